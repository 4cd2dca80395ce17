"""A model as the judge of two answers, asked twice with their places swapped.

Judges prefer what they read first (Zheng et al. 2023, arXiv:2306.05685), so an answer only wins where both
orders agree; otherwise it is a tie.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ft_core.engine import Sampling
from ft_eval.respondents.protocol import Prompt, Respondent
from ft_eval.tasks.task import Item

PROMPT = """Two assistants answered the same question. Judge which answer is better: more correct first, then \
more helpful. Length, style and the order in which the answers stand must not matter.

[Question]
{question}

[Answer A]
{first}

[Answer B]
{second}

Reply with exactly one of [[A]], [[B]] or [[C]] (they are equally good), and nothing else."""

_VERDICT = re.compile(r"\[\[\s*([ABC])\s*\]\]")
_POINTS = {"A": 1.0, "B": 0.0, "C": 0.5}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge made of an answer.

    Attributes:
        scores: ``judge`` (1 better than the reference, 0.5 as good, 0 worse) and ``judge_agrees`` (whether
            both orders gave the same); empty where a reply named no verdict.
        said: both replies.
    """

    scores: Mapping[str, Sequence[float]]
    said: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Judge:
    """Compares answers with references.

    Attributes:
        respondent: the judging model.
        max_new_tokens: longest reply; a judge that reasons first needs many.
    """

    respondent: Respondent
    max_new_tokens: int = 1024

    async def compare(self, item: Item, answer: str) -> Verdict:
        """Compare an answer with the first reference."""
        question = "\n\n".join(
            f"{message.role}: {message.text}" for message in item.prompt.messages
        )
        question = question or (item.prompt.text or "")
        reference = item.references[0]
        said = await asyncio.gather(
            self._ask(question, answer, reference), self._ask(question, reference, answer)
        )
        points = [_points(text) for text in said]
        if points[0] is None or points[1] is None:
            return Verdict({}, said)
        forward, backward = points[0], 1 - points[1]
        agrees = forward == backward
        scores = {"judge": (forward if agrees else 0.5, 1.0), "judge_agrees": (float(agrees), 1.0)}
        return Verdict(scores, said)

    async def _ask(self, question: str, first: str, second: str) -> str:
        text = PROMPT.format(question=question, first=first, second=second)
        sampling = Sampling(max_new_tokens=self.max_new_tokens, seed=0)
        return (await self.respondent.answer(Prompt.ask(text), sampling)).text


def _points(text: str) -> float | None:
    found = _VERDICT.findall(text)
    return _POINTS[found[-1]] if found else None
