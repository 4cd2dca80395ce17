"""Answers that are kept as they come, so that nothing is asked twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ft_core.engine import Sampling
from ft_core.errors import FtError
from ft_eval.respondents.protocol import Answer, Likelihood, Prompt, Question, Respondent

ANSWERS_FILE = "answers.jsonl"


class AnswerStore:
    """Answers by the key of all they depend on, in a file that grows by a line for each.

    Args:
        file: where new answers are written.
        earlier: files of earlier runs whose answers may be used again.
    """

    def __init__(self, file: Path, earlier: Iterable[Path] = ()) -> None:
        self.reused = 0
        self._known: dict[str, Any] = {}
        for other in earlier:
            self._read(other)
        try:
            self._file = file.open("a", encoding="utf-8")
        except OSError as error:
            raise FtError(f"{file}: can't be written ({error.strerror or error})") from error
        self._written: set[str] = set()

    @property
    def kept(self) -> int:
        """How many answers this run's file holds."""
        return len(self._written)

    def get(self, key: str) -> Any:
        """Return what is kept under a key, and keep it in this run's file as well; ``None`` if nothing is."""
        value = self._known.get(key)
        if value is not None:
            self.reused += key not in self._written
            self._write(key, value)
        return value

    def put(self, key: str, value: Any) -> None:
        """Keep an answer."""
        self._known[key] = value
        self._write(key, value)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, key: str, value: Any) -> None:
        if key in self._written:
            return
        self._written.add(key)
        self._file.write(json.dumps({"key": key, "value": value}, ensure_ascii=False) + "\n")
        self._file.flush()

    def _read(self, file: Path) -> None:
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                try:
                    row = json.loads(line)
                except json.JSONDecodeError:
                    break  # the line that was being written when the run was killed
                self._known[row["key"]] = row["value"]


def answer_key(*parts: Any) -> str:
    """Return the key of an answer: a hash of everything it depends on."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(slots=True)
class Remembering:
    """A respondent that is asked only what is not known yet.

    Attributes:
        inner: who is asked.
        store: what is known.
    """

    inner: Respondent
    store: AnswerStore
    _identity: str = field(init=False)

    def __post_init__(self) -> None:
        self._identity = answer_key(dict(self.inner.identity))

    @property
    def name(self) -> str:
        """The inner one's."""
        return self.inner.name

    @property
    def identity(self) -> Mapping[str, Any]:
        """The inner one's."""
        return self.inner.identity

    @property
    def chat(self) -> bool:
        """The inner one's."""
        return self.inner.chat

    @property
    def scores(self) -> bool:
        """The inner one's."""
        return self.inner.scores

    @property
    def agent(self) -> str | None:
        """The inner one's."""
        return self.inner.agent

    async def answer(self, prompt: Prompt, sampling: Sampling) -> Answer:
        """Return the kept answer, or ask."""
        key = answer_key(self._identity, "answer", prompt.to_json(), asdict(sampling))
        if (kept := self.store.get(key)) is not None:
            return Answer(**{**kept, "tool_calls": tuple(kept["tool_calls"])})
        answer = await self.inner.answer(prompt, sampling)
        self.store.put(key, asdict(answer))
        return answer

    async def likelihoods(self, questions: Sequence[Question]) -> list[list[Likelihood]]:
        """Return kept likelihoods and ask for the others together."""
        keys = [
            answer_key(
                self._identity, "likelihood", question.prompt.to_json(), question.continuations
            )
            for question in questions
        ]
        found = {key: value for key in keys if (value := self.store.get(key)) is not None}
        missing = {key: q for key, q in zip(keys, questions, strict=True) if key not in found}
        if missing:
            fresh = await self.inner.likelihoods(list(missing.values()))
            for key, values in zip(missing, fresh, strict=True):
                found[key] = [[item.logprob, item.tokens, item.greedy] for item in values]
                self.store.put(key, found[key])
        return [[Likelihood(*value) for value in found[key]] for key in keys]

    async def close(self) -> None:
        """Close the inner one."""
        await self.inner.close()
