"""A model behind an OpenAI-compatible server that rates answers."""

from __future__ import annotations

import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ft_core.errors import FtError, UsageError

INSTRUCTION = (
    "Rate how well the answer serves the question, from 0 (useless or wrong) to 10 (right and complete). "
    "Reply with the number alone."
)
KEY = "OPENAI_API_KEY"
"""Environment variable with the server's key, if it wants one."""

_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_ATTEMPTS = 3
_TOGETHER = 8
_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Judge:
    """Asks a server.

    Attributes:
        url: of its API, which ends with ``/v1`` as a rule.
        model: which of its models is asked.
    """

    url: str
    model: str

    @classmethod
    def at(cls, url: str, model: str | None) -> Judge:
        """Reach a server, and choose its first model where none is named.

        Raises:
            UsageError: this is no address, or nobody answers there.
        """
        if not url.startswith(("http://", "https://")):
            raise UsageError(
                f"--reward_funcs judge:{url}: is no address; write judge:http://HOST:PORT/v1"
            )
        url = url.rstrip("/")
        if model is None:
            try:
                model = str(_call(f"{url}/models", None)["data"][0]["id"])
            except (FtError, LookupError, TypeError) as error:
                raise UsageError(
                    f"--reward_funcs judge:{url}: its models can't be listed ({error}); check the address, or name one "
                    "with --judge_model"
                ) from error
        return cls(url, model)

    def rate(self, questions: Sequence[str], answers: Sequence[str]) -> list[float | None]:
        """Return a number from 0 to 1 for each answer; ``None`` where the reply holds none.

        Raises:
            FtError: the server fails three times.
        """
        with ThreadPoolExecutor(_TOGETHER) as pool:
            return [*pool.map(self._rate, questions, answers)]

    def _rate(self, question: str, answer: str) -> float | None:
        reply = _call(
            f"{self.url}/chat/completions",
            {
                "model": self.model,
                "temperature": 0,
                "max_tokens": 16,
                "messages": [
                    {"role": "system", "content": INSTRUCTION},
                    {"role": "user", "content": f"Question:\n{question}\n\nAnswer:\n{answer}"},
                ],
            },
        )
        try:
            text = str(reply["choices"][0]["message"]["content"])
        except (LookupError, TypeError) as error:
            raise FtError(
                f"the judge at {self.url} gave no answer: {json.dumps(reply)[:200]}"
            ) from error
        found = _NUMBER.search(text)
        return None if found is None else min(float(found[0]), 10.0) / 10


def _call(url: str, content: Mapping[str, Any] | None) -> Any:
    """Ask until the server answers; what it refuses is not asked again."""
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get(KEY):
        headers["Authorization"] = f"Bearer {key}"
    body = None if content is None else json.dumps(content).encode()
    last = ""
    for attempt in range(_ATTEMPTS):
        request = urllib.request.Request(url, body, headers)
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            last = f"HTTP {error.code}: {error.read(200).decode(errors='replace')}"
            if error.code < 500 and error.code != 429:
                break
        except (OSError, ValueError) as error:
            last = str(error)
        if attempt + 1 < _ATTEMPTS:
            time.sleep(2**attempt)
    raise FtError(f"the judge at {url} fails: {last}")
