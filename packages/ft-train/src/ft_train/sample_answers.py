"""A few questions that a run answers before and after training, to show what it changed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ft_core.samples import Sample
from ft_train.data import TrainData
from ft_train.generation import AnswerSettings, Question, answer, question_of

LONGEST = 64
"""Tokens of an answer."""


@dataclass(frozen=True, slots=True)
class SampleAnswer:
    """A question with its answers.

    Attributes:
        prompt: what the model was given, as text.
        reference: the row's own answer.
        before, after: the model's answers; ``None`` where it wasn't asked.
    """

    prompt: str
    reference: str
    before: str | None = None
    after: str | None = None


@dataclass(frozen=True, slots=True)
class Interview:
    """Asks the same questions twice.

    Attributes:
        questions: what is asked.
        settings: how answers are made; the most likely ones.
        answers: what was said so far.
    """

    questions: tuple[Question, ...]
    settings: AnswerSettings
    answers: tuple[SampleAnswer, ...]

    @classmethod
    def about(
        cls, data: TrainData, settings: AnswerSettings | None, count: int
    ) -> Interview | None:
        """Choose the first rows of evaluation, or where there are none those of training.

        Returns:
            ``None`` where nothing can or should be asked.
        """
        rows = data.evaluation or data.rows
        samples: list[Sample] = []
        for index in range(len(rows)):
            if len(samples) >= count:
                break
            row = rows[index]
            parts = [row] if isinstance(row, Sample) else row if isinstance(row, Sequence) else []
            samples += [part for part in parts if isinstance(part, Sample)][:1]
        if settings is None or not samples:
            return None
        questions = tuple(question_of(sample.sequences[0]) for sample in samples)
        answers = tuple(
            SampleAnswer(settings.decode(item.prompt), settings.decode(item.answer).strip())
            for item in questions
        )
        return cls(questions, settings.greedy(LONGEST), answers)

    def before(self, model: Any, earlier: Path | None) -> Interview:
        """Ask before training; a run that goes on takes what its card says instead."""
        known = {} if earlier is None else _known(earlier)
        if earlier is not None:
            said = [known.get(item.prompt) for item in self.answers]
        else:
            said = list(self._ask(model))
        return replace(
            self,
            answers=tuple(
                replace(item, before=text) for item, text in zip(self.answers, said, strict=True)
            ),
        )

    def after(self, model: Any) -> Interview:
        """Ask after training."""
        said = zip(self.answers, self._ask(model), strict=True)
        return replace(self, answers=tuple(replace(item, after=text) for item, text in said))

    def _ask(self, model: Any) -> list[str]:
        return answer(model, [item.prompt for item in self.questions], self.settings, seed=0)


def _known(card: Path) -> dict[str, str | None]:
    if not card.is_file():
        return {}
    content = json.loads(card.read_text(encoding="utf-8"))
    return {item["prompt"]: item["before"] for item in content["answers"]}
