"""An engine of this process as a respondent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ft_core.agents import AGENTS
from ft_core.engine import Capability, Engine, GenerationRequest, Sampling
from ft_core.errors import ModelError, UsageError
from ft_core.templates.template import Segment, Template
from ft_eval.respondents.protocol import Answer, Likelihood, Prompt, Question


@dataclass(frozen=True, slots=True)
class EngineRespondent:
    """Asks an engine, with the chat format that training and serving use.

    Attributes:
        name: what reports call it.
        engine: what answers.
        template: the chat format; plain texts go without it.
        identity: hashes of weights, adapter and chat format, and how the weights were loaded.
        adapter: name of the engine's adapter that answers; ``None`` for the model as it is.
        chat: whether the model is asked in conversations.
    """

    name: str
    engine: Engine
    template: Template
    identity: Mapping[str, Any] = field(default_factory=dict)
    adapter: str | None = None
    chat: bool = True

    @property
    def scores(self) -> bool:
        """Whether the engine can score."""
        return Capability.SCORE in self.engine.capabilities

    @property
    def agent(self) -> str | None:
        """The chat format's own, since an engine leaves calls in the text."""
        return self.template.tools_prompt

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """Return the tokens of a prompt."""
        if prompt.text is None:
            return list(self.template.encode_segments([self._rendered(prompt)])[0].input_ids)
        return [*self._beginning(), *self.template.tokenizer.encode(prompt.text)]

    async def answer(self, prompt: Prompt, sampling: Sampling) -> Answer:
        """Generate an answer; a call of a tool ends it, since nothing here runs tools."""
        pauses: tuple[str, ...] = ()
        if prompt.tools and self.agent is not None:
            pauses = AGENTS.get(self.agent).stop
        stop = (*sampling.stop, *self.template.stop_strings, *pauses)
        request = GenerationRequest(
            self.prompt_ids(prompt), replace(sampling, stop=stop), self.adapter
        )
        text, last = "", None
        async for event in self.engine.generate(request):
            text += event.text
            last = event
        if last is None or last.finish_reason is None:
            raise ModelError("the engine ended an answer without saying why")
        return Answer(text, last.finish_reason, last.prompt_tokens, last.generated_tokens)

    async def likelihoods(self, questions: Sequence[Question]) -> list[list[Likelihood]]:
        """Score all continuations of all questions at once.

        A text without a prompt may be longer than what the model takes; it is scored in windows.

        Raises:
            UsageError: the engine can't score, or a prompt with its continuation is too long.
        """
        if not self.scores:
            raise UsageError(f"{self.name}: this engine can't score tokens")
        longest = self.engine.scored_tokens
        texts: list[list[tuple[list[int], int]]] = []
        for question in questions:
            whole = question.prompt.text is not None and not question.prompt.text.strip()
            for ids, start in self._encode(question):
                divided = whole and longest is not None and len(ids) > longest
                texts.append(windows(ids, longest) if divided and longest else [(ids, start)])
        rows = [window for text in texts for window in text]
        found = await self.engine.score([ids for ids, _ in rows], top=1, adapter=self.adapter)
        parts = (
            _likelihood(ids, start, scores.logprobs, scores.top)
            for (ids, start), scores in zip(rows, found, strict=True)
        )
        sums = (_sum([next(parts) for _ in text]) for text in texts)
        return [[next(sums) for _ in question.continuations] for question in questions]

    async def close(self) -> None:
        """Leave the engine to whoever started it."""

    def _rendered(self, prompt: Prompt) -> list[Segment]:
        rendered = self.template.render_prompt(prompt.messages, prompt.tools)
        if not prompt.beginning:
            return rendered
        return [*rendered, Segment(prompt.beginning, "content", "assistant")]

    def _beginning(self) -> list[int]:
        tokenizer = self.template.tokenizer
        if tokenizer.adds_bos and tokenizer.bos_token_id is not None:
            return [tokenizer.bos_token_id]
        return []

    def _encode(self, question: Question) -> list[tuple[list[int], int]]:
        """Return for each continuation all tokens and where it starts among them."""
        prompt = question.prompt
        if prompt.text is None:
            rendered = self._rendered(prompt)
            context = self.template.encode_segments([rendered])[0].input_ids
            whole = self.template.encode_segments(
                [
                    [*rendered, Segment(text, "content", "assistant")]
                    for text in question.continuations
                ]
            )
            return [(list(tokens.input_ids), len(context)) for tokens in whole]
        return [self._plain(prompt.text, text) for text in question.continuations]

    def _plain(self, context: str, continuation: str) -> tuple[list[int], int]:
        """Encode plain text as a whole and find where the continuation starts.

        White space at the end of the context belongs to the continuation, as it does in the language
        model evaluation harness (Gao et al.), so that likelihoods can be compared with it.
        """
        kept = context.rstrip()
        continuation = context[len(kept) :] + continuation
        tokenizer = self.template.tokenizer
        if not kept:
            # The first token is scored after the token that begins or ends texts.
            first = tokenizer.bos_token_id
            first = tokenizer.eos_token_id if first is None else first
            if first is None:
                raise ModelError(f"{self.name}: has no token that begins a text to score it after")
            return [first, *tokenizer.encode(continuation)], 1
        beginning = self._beginning()
        whole = [*beginning, *tokenizer.encode(kept + continuation)]
        return whole, len(beginning) + len(tokenizer.encode(kept))


def windows(ids: Sequence[int], longest: int) -> list[tuple[list[int], int]]:
    """Divide a text so that each token but the first is scored once.

    They are the windows of the language model evaluation harness with one token of context (``lm_eval.utils``,
    ``get_rolling_token_windows``): the last one reaches as far back as there is room.

    Args:
        ids: the tokens, the first of which only begins the text.
        longest: tokens of a window, at least 2.

    Returns:
        The tokens of each window and where those start that are scored.
    """
    found = []
    done = 1
    while done < len(ids):
        end = min(done + longest - 1, len(ids))
        begin = max(0, end - longest)
        found.append((list(ids[begin:end]), done - begin))
        done = end
    return found


def _sum(parts: Sequence[Likelihood]) -> Likelihood:
    return Likelihood(
        sum(part.logprob for part in parts),
        sum(part.tokens for part in parts),
        all(part.greedy for part in parts),
    )


def _likelihood(
    ids: Sequence[int],
    start: int,
    logprobs: Sequence[float],
    top: Sequence[Sequence[tuple[int, float]]],
) -> Likelihood:
    if len(logprobs) != len(ids):
        raise ModelError(f"the engine gave {len(logprobs)} scores for {len(ids)} tokens")
    places = range(start, len(ids))
    return Likelihood(
        sum(logprobs[place] for place in places),
        len(places),
        all(ids[place] == top[place][0][0] for place in places),
    )
