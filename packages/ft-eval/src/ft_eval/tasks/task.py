"""A task: questions of one kind with what counts as right."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ft_core.errors import Place
from ft_eval.respondents.protocol import Prompt

Method = Literal["likelihood", "letter", "generation", "perplexity", "program"]
"""How a task is answered: the likelier of several texts, the letter a model writes, any answer, no answer
but the likelihood of a text, or programs that are run."""


@dataclass(frozen=True, slots=True)
class Item:
    """One question.

    Attributes:
        id: unique within its task.
        prompt: what is asked.
        references: answers that count as right.
        choices: texts to choose from, of which ``references`` names the right one.
        extra: what else grading needs, as plain JSON.
        place: where it came from.
    """

    id: str
    prompt: Prompt
    references: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    place: Place | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON without the place."""
        return {
            "id": self.id,
            "prompt": self.prompt.to_json(),
            "references": list(self.references),
            "choices": list(self.choices),
            "extra": dict(self.extra),
        }


@dataclass(frozen=True, slots=True)
class Task:
    """Questions that are asked and graded in the same way.

    Attributes:
        name: as in reports.
        items: the questions.
        method: how they are answered.
        measures: names of the metrics.
        shots: solved examples in front of each question.
        version: of the task's definition.
        subset: the part of a larger data set this is.
        max_new_tokens: longest answer.
        stop: texts that end an answer.
        samples: answers drawn for each question.
        total: questions before a limit was applied; 0 means as many as there are items.
    """

    name: str
    items: tuple[Item, ...]
    method: Method
    measures: tuple[str, ...]
    shots: int = 0
    version: str = "1"
    subset: str | None = None
    max_new_tokens: int = 512
    stop: tuple[str, ...] = ()
    samples: int = 1
    total: int = 0

    @property
    def title(self) -> str:
        """Name with the subset."""
        return self.name if self.subset is None else f"{self.name}/{self.subset}"

    @property
    def digest(self) -> str:
        """Changes with any question, any right answer and the way of asking."""
        settings = [self.method, self.measures, self.max_new_tokens, self.stop, self.samples]
        data = [settings, [item.to_json() for item in self.items]]
        text = json.dumps(data, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def with_items(self, items: Sequence[Item]) -> Task:
        """Return the task with some of its questions."""
        return replace(self, items=tuple(items), total=self.total or len(self.items))
