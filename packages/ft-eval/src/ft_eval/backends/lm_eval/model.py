"""A respondent as lm-eval's language model, so that its tasks ask whom the builtin backend asks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TextIO

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from ft_core.engine import Sampling
from ft_core.errors import UsageError
from ft_core.examples import Message
from ft_eval.progress import Progress
from ft_eval.respondents.protocol import Answer, Prompt, Question, Respondent
from ft_eval.respondents.remembered import answer_key
from ft_eval.work import Wait

_MARK = "\N{SYMBOL FOR START OF HEADING}ft conversation\N{SYMBOL FOR START OF TEXT}"

Place = tuple[str, int]


class RespondentLM(LM):  # type: ignore[misc]
    """Answers lm-eval's requests.

    lm-eval hands contexts around as strings. A conversation is one that carries its messages as JSON behind
    a mark, so the respondent renders it with the chat format that training and serving use, and tokenizes
    it once.

    Args:
        respondent: who answers.
        wait: runs its coroutines.
        batch_size: questions asked at the same time.
        seed: of sampled answers.
        out: where progress is shown.
    """

    def __init__(
        self,
        respondent: Respondent,
        wait: Wait,
        *,
        batch_size: int,
        seed: int,
        out: TextIO | None = None,
    ) -> None:
        super().__init__()
        self._out = out
        self._respondent = respondent
        self._wait = wait
        self._batch_size = batch_size
        self._seed = seed
        self.cut: set[Place] = set()

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Score continuations; those of one context are asked for together."""
        if not self._respondent.scores:
            raise UsageError(
                f"{self._respondent.name} gives no likelihoods, and task {requests[0].task_name} needs them; "
                "choose tasks that are answered by generation, or another server"
            )
        wanted: dict[str, dict[str, None]] = {}
        for request in requests:
            context, continuation = request.args
            wanted.setdefault(context, {})[continuation] = None
        order = sorted(wanted, key=len, reverse=True)
        found: dict[tuple[str, str], tuple[float, bool]] = {}
        progress = Progress(f"{self._respondent.name} likelihoods", len(order), out=self._out)
        for begin in range(0, len(order), self._batch_size):
            contexts = order[begin : begin + self._batch_size]
            questions = [Question(prompt_of(text), tuple(wanted[text])) for text in contexts]
            values = self._wait(self._respondent.likelihoods(questions))
            for text, question, row in zip(contexts, questions, values, strict=True):
                for continuation, value in zip(question.continuations, row, strict=True):
                    found[text, continuation] = (value.logprob, value.greedy)
            progress.advance(len(contexts))
        return [found[request.args[0], request.args[1]] for request in requests]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Score whole texts."""
        found = self.loglikelihood(
            [replace(request, arguments=("", request.args[0])) for request in requests]
        )
        return [logprob for logprob, _ in found]

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Generate answers."""
        answers = self._wait(self._answers(requests))
        for request, answer in zip(requests, answers, strict=True):
            if answer.finish_reason == "length":
                self.cut.add((str(request.task_name), int(request.doc_id or 0)))
        return [answer.text for answer in answers]

    async def _answers(self, requests: Sequence[Instance]) -> list[Answer]:
        gate = asyncio.Semaphore(self._batch_size)
        progress = Progress(f"{self._respondent.name} answers", len(requests), out=self._out)

        async def one(request: Instance, index: int) -> Answer:
            context, settings = request.args
            async with gate:
                answer = await self._respondent.answer(
                    prompt_of(context), sampling_of(settings, self._seed + index)
                )
            progress.advance()
            return answer

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(item, index)) for index, item in enumerate(requests)]
        return [task.result() for task in tasks]

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Carry a conversation through lm-eval as text; rendering it is the respondent's."""
        return conversation(chat_history)

    @property
    def tokenizer_name(self) -> str:
        """A name that changes with the model and its chat format."""
        return answer_key(dict(self._respondent.identity))[:16]

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Say whose chat format it is."""
        return str(self._respondent.identity.get("template", "the server's own"))


def conversation(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return messages as a context string."""
    return _MARK + json.dumps(list(messages), ensure_ascii=False)


def prompt_of(context: str) -> Prompt:
    """Return what a context string stands for.

    A last turn of the assistant is the beginning of the answer.
    """
    mark, marked, text = context.partition(_MARK)
    if not marked:
        return Prompt(text=context)
    if mark:
        raise UsageError(
            "lm-eval put text in front of a conversation; this task can't be asked as one"
        )
    messages = [Message.from_json(item) for item in json.loads(text)]
    beginning = ""
    if messages and messages[-1].role == "assistant":
        beginning = messages.pop().text
    return Prompt(tuple(messages), beginning=beginning)


def sampling_of(settings: Mapping[str, Any], seed: int) -> Sampling:
    """Return lm-eval's generation settings as an engine takes them."""
    stops = settings.get("until") or ()
    stops = (stops,) if isinstance(stops, str) else tuple(stops)
    sampled = bool(settings.get("do_sample", settings.get("temperature", 0) > 0))
    return Sampling(
        max_new_tokens=int(settings.get("max_gen_toks") or settings.get("max_new_tokens") or 256),
        temperature=float(settings.get("temperature", 1.0)) if sampled else 0.0,
        top_p=float(settings.get("top_p", 1.0)),
        top_k=int(settings.get("top_k", 0)),
        stop=tuple(stop for stop in stops if stop),
        seed=seed,
    )
