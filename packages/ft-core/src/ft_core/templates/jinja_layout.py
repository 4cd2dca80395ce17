"""Where the answers are in what a Jinja template renders."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from ft_core.errors import DataError, ModelError
from ft_core.examples import Role
from ft_core.templates.conversation import Parts, fail, weigh_parts
from ft_core.templates.jinja_environment import ChatTemplate
from ft_core.templates.jinja_habits import Habits
from ft_core.templates.sentinels import SENTINEL
from ft_core.templates.special import STAND_IN, Disguise, SpecialTokens
from ft_core.templates.template import Segment

# A prompt that opens the model's reasoning, and one that opens and closes it.
_OPENED = re.compile(r"<([\w:]+)>\s*$")
_MARKED = re.compile(r"(\s*<think>)(.*?)(</think>)(.*)", re.DOTALL)
_REASONED = re.compile(r"\s*<think>\s*(.*?)\s*</think>\s*(.*)", re.DOTALL)
_CLOSED = re.compile(r"<([\w:]+)>\s*</\1>\s*$")


class Conversation:
    """One conversation as a template renders it.

    Args:
        template: the compiled template.
        habits: what it always does.
        special: the tokenizer's special tokens.
        messages: plain messages, as chat templates expect them.
        weights: loss weight of each message; only those of answers count.
        parts: weighted parts of each message's text; none for most.
        speakers: whose turn each message is, where the template gets it as another's.
        tools: plain tools.
        variables: of this row or request; they go before the run's.
        eos: ends answers that the template doesn't end.
    """

    def __init__(
        self,
        template: ChatTemplate,
        habits: Habits,
        special: SpecialTokens,
        *,
        messages: list[dict[str, Any]],
        weights: Sequence[float],
        parts: Sequence[Parts],
        speakers: Sequence[Role],
        tools: list[dict[str, Any]],
        variables: Mapping[str, Any],
        eos: str | None,
    ) -> None:
        self._template = template
        self._habits = habits
        self._special = special
        self._original = (list(messages), tools)
        self._disguise = Disguise(special.pattern)
        self._messages = [self._hidden(message) for message in messages]
        self._tools: list[dict[str, Any]] = self._disguise.hide(tools)
        self._variables = variables
        self._weights = weights
        self._parts = parts
        self._speakers = speakers
        self._eos = eos
        self._texts: dict[tuple[int, bool], str] = {}
        self._answers: dict[int, str] = {}
        if template.reasoning_field is not None:
            self._separate_reasoning(template.reasoning_field)

    def _hidden(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Return a message with its texts in disguise, but for the marks around an answer's reasoning."""
        hidden = {
            key: value if key == "role" else self._disguise.hide(value)
            for key, value in message.items()
        }
        if message["role"] == "assistant" and (match := _MARKED.match(message["content"])):
            inner, rest = self._disguise.hide(match[2]), self._disguise.hide(match[4])
            hidden["content"] = match[1] + inner + match[3] + rest
        return hidden

    def _separate_reasoning(self, field: str) -> None:
        """Hand reasoning at the beginning of answers over in the field the template has for it.

        An answer keeps it in its content where the template would not render the field.
        """
        for index in self._answer_indices:
            match = _REASONED.match(str(self._messages[index]["content"]))
            if match is None:
                continue
            before = self._messages[index], self._original[0][index]
            parts = {field: match[1], "content": match[2]}
            self._messages[index] = {**before[0], **parts}
            plain = {key: self._disguise.reveal(value) for key, value in parts.items()}
            self._original[0][index] = {**before[1], **plain}
            prompt, full = self._text(index, asking=True), self._text(index + 1, asking=False)
            if match[1] not in full[_shared(prompt, full) :]:
                self._messages[index], self._original[0][index] = before
                self._texts = {key: text for key, text in self._texts.items() if key[0] <= index}

    def prompt(self) -> list[Segment]:
        """Return the prompt for the next answer."""
        count = len(self._messages)
        text = self._text(count, asking=True)
        return self._segments(text, self._earlier(text, count), count, frozenset())

    def samples(self) -> list[list[Segment]]:
        """Return as few samples as train every answer once, in the order of their last answers."""
        answers = self._answer_indices
        todo = {index for index in answers if self._weights[index] != 0} or {answers[-1]}
        samples: list[list[Segment]] = []
        for index in reversed(answers):
            if index not in todo:
                continue
            prompt = self._text(index, asking=True)
            spans = self._earlier(prompt, index)
            segments = self._segments(prompt, spans, index, frozenset(todo))
            answer = self._answer(index)
            segments += self._generation(answer, self._weights[index], index)
            full = self._text(index + 1, asking=False)
            if full.startswith(prompt + answer) and (tail := full[len(prompt) + len(answer) :]):
                segments.append(Segment(tail, turn=index))
            samples.insert(0, segments)
            todo -= {index, *spans}
        return samples

    @cached_property
    def _answer_indices(self) -> list[int]:
        return [
            index for index, message in enumerate(self._messages) if message["role"] == "assistant"
        ]

    def _text(self, count: int, *, asking: bool) -> str:
        """Render the first ``count`` messages, with or without the generation prompt."""
        key = (count, asking)
        if key not in self._texts:
            text = self._rendered(self._messages[:count], self._tools, asking)
            if self._disguise:
                messages, tools = self._original
                real = self._rendered(messages[:count], tools, asking)
                if self._disguise.reveal(text) != real:
                    fail(
                        "a text has a special token's name in it, and the tokenizer's chat template treats that specially; take it out or give a registered --template_type",
                        rule="special_text",
                    )
            self._texts[key] = text
        return self._texts[key]

    def _rendered(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]], asking: bool
    ) -> str:
        return self._template.render(
            messages, tools, add_generation_prompt=asking, variables=self._variables
        )

    def _answer(self, index: int) -> str:
        """What the model has to produce after the prompt for message ``index``, with its end."""
        if index not in self._answers:
            prompt, full = self._text(index, asking=True), self._text(index + 1, asking=False)
            content = str(self._messages[index]["content"])
            body = (
                full[len(prompt) :] if full.startswith(prompt) else _bridge(prompt, full, content)
            )
            if content.rpartition("</think>")[2].strip() not in body:
                fail(
                    "the tokenizer's chat template leaves out or changes the text of an answer; give a registered --template_type",
                    rule="answer_changed",
                )
            self._answers[index] = self._ended(body)
        return self._answers[index]

    def _ended(self, body: str) -> str:
        """Cut an answer after the token that ends it; without one EOS is put there."""
        for text in (body.removesuffix(self._habits.tail), body.rstrip()):
            if self._special.closing(text) is not None:
                return text
        if self._eos is None:
            raise ModelError(
                "neither the tokenizer's chat template nor an eos_token ends an answer; add eos_token to tokenizer_config.json"
            )
        return body.removesuffix(self._habits.tail) + self._eos

    def _earlier(self, prompt: str, count: int) -> dict[int, tuple[int, int]]:
        """Find the earlier answers that stand in a prompt exactly as they were produced."""
        spans: dict[int, tuple[int, int]] = {}
        cursor = 0
        for index in self._answer_indices:
            if index >= count:
                break
            try:
                before, answer = self._text(index, asking=True), self._answer(index)
            except DataError:
                continue  # not an answer this template can produce; as a turn to train it raises again
            if (
                len(before) >= cursor
                and prompt.startswith(before)
                and prompt.startswith(answer, len(before))
            ):
                cursor = len(before) + len(answer)
                spans[index] = (len(before), cursor)
        return spans

    def _segments(
        self, text: str, spans: Mapping[int, tuple[int, int]], count: int, trained: frozenset[int]
    ) -> list[Segment]:
        """Cut the rendering of the first ``count`` messages at its earlier answers."""
        segments: list[Segment] = []
        position, first = 0, 0
        for index, (start, end) in spans.items():
            segments += self._format(text[position:start], first, index)
            weight = self._weights[index] if index in trained else 0.0
            segments += self._generation(text[start:end], weight, index)
            position, first = end, index + 1
        return segments + self._format(text[position:], first, count)

    def _generation(self, text: str, weight: float, index: int) -> list[Segment]:
        segments = self._special.generation(text, weight, index)
        if segments[-1].token_ids is not None:
            segments[-1] = replace(segments[-1], ends=True)
        if self._disguise:
            segments = [replace(item, text=self._disguise.reveal(item.text)) for item in segments]
        return weigh_parts(segments, self._parts[index]) if weight else segments

    def _format(self, text: str, first: int, end: int) -> list[Segment]:
        """Cut the stretch of messages ``first`` to ``end`` into the template's texts and their contents.

        Ids don't depend on what is found here, since contents in disguise have no special tokens.
        """
        contents: list[tuple[str, Role, int]] = []
        for index, message in enumerate(self._messages[first:end], start=first):
            for piece in SENTINEL.split(str(message["content"])):  # media stand between texts
                content = piece.strip()
                if content and content in text:
                    contents.append((content, self._speakers[index], index))
        segments: list[Segment] = []
        pending = ""
        for piece, is_special in self._special.cut(text):
            cursor = 0
            while contents and not is_special:
                content, role, index = contents[0]
                at_end = piece.rstrip().endswith(content)
                at = piece.rfind(content, cursor) if at_end else piece.find(content, cursor)
                if at < 0:
                    break
                segments += self._revealed(pending + piece[cursor:at], index)
                revealed = self._disguise.reveal(content)
                segments.append(Segment(revealed, "content", role, turn=index))
                pending, cursor = "", at + len(content)
                contents.pop(0)
            pending += piece[cursor:]
        return segments + self._revealed(pending, max(first, end - 1))

    def _revealed(self, text: str, turn: int) -> list[Segment]:
        """Return the template's text as segments; look-alikes of special tokens in it are content."""
        if not self._disguise:
            return [Segment(text, turn=turn)] if text else []
        pieces = re.split(f"({STAND_IN.pattern})", text)
        return [
            Segment(self._disguise.reveal(piece), "content" if number % 2 else "format", turn=turn)
            for number, piece in enumerate(pieces)
            if piece
        ]


def _shared(one: str, other: str) -> int:
    """Length of the common beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (left, right) in pairs if left != right), min(len(one), len(other)))


def _bridge(prompt: str, full: str, content: str) -> str:
    """Work out the answer to a prompt that the rendering with the answer doesn't begin with.

    Reasoning formats open the model's reasoning in the prompt (``<think>``) and leave it out of finished
    turns. The row's own reasoning is put back; an answer without any closes it at once.

    Raises:
        DataError: the two differ in another way.
    """
    common = _shared(prompt, full)
    if not prompt[common:].strip():
        return full[common:].lstrip()
    closed, opened = _CLOSED.search(prompt), _OPENED.search(prompt)
    if closed is not None and prompt[: closed.start()] == full[: closed.start()]:
        rest = full[closed.start() :]
        if f"</{closed[1]}>" not in rest:
            return rest
    elif opened is not None and prompt[: opened.start()] == full[: opened.start()]:
        start, end = f"<{opened[1]}>", f"</{opened[1]}>"
        reasoning, thought, answer = content.rpartition(end)
        at = full.find(answer.strip(), opened.start())
        if at >= 0 and thought:
            gap = answer[: len(answer) - len(answer.lstrip())] or "\n\n"
            return reasoning.partition(start)[2].lstrip("\n") + end + gap + full[at:]
        if at >= 0:
            return f"\n{end}\n\n{full[at:]}"
    return fail(
        f"the tokenizer's chat template asks for an answer with {prompt[common:][:40]!r} and renders a given one with {full[common:][:40]!r} instead; give a registered --template_type",
        rule="prompt_mismatch",
    )
