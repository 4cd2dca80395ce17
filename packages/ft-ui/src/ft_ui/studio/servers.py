"""Servers that the studio started with ``ft deploy``, and talking to them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ft_core.agents import ParsedAnswer
from ft_core.engine import FinishReason, Sampling
from ft_core.errors import FtError, UsageError
from ft_core.examples import Message
from ft_core.samples import MediumKind
from ft_ui.chat.answering import Piece
from ft_ui.studio.jobs import Job

_READY = re.compile(r"ready: (http://\S+) answers as (.+)")
_REASONS: Mapping[str, FinishReason] = {"stop": "stop", "length": "length", "tool_calls": "stop"}


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers.

    Attributes:
        job: its process.
        url: where it listens, without ``/v1``.
        models: what it answers as, the one that answers by itself first.
    """

    job: Job
    url: str
    models: tuple[str, ...]


def server_of(job: Job) -> Server | None:
    """Return the server of a job; ``None`` while it loads and once it has ended."""
    if job.command != "deploy" or job.status != "running":
        return None
    found = _READY.search(job.log(1_000_000))
    if found is None:
        return None
    return Server(
        job, found[1].removesuffix("/v1"), tuple(name.strip() for name in found[2].split(","))
    )


def curl_snippet(server: Server) -> str:
    """Return how to ask it with curl."""
    body = {"model": server.models[0], "messages": [{"role": "user", "content": "Hello"}]}
    text = json.dumps(body, ensure_ascii=False)
    return f"curl {server.url}/v1/chat/completions \\\n  -H 'Content-Type: application/json' \\\n  -d '{text}'"


def openai_snippet(server: Server) -> str:
    """Return how to ask it with OpenAI's client."""
    return (
        "from openai import OpenAI\n\n"
        f'client = OpenAI(base_url="{server.url}/v1", api_key="none")\n'
        "answer = client.chat.completions.create(\n"
        f'    model="{server.models[0]}", messages=[{{"role": "user", "content": "Hello"}}]\n'
        ")\n"
        "print(answer.choices[0].message.content)\n"
    )


def metrics_of(server: Server) -> str:
    """Return the server's own figures, without Prometheus's comments.

    Raises:
        FtError: it doesn't answer.
    """
    import httpx

    try:
        answer = httpx.get(f"{server.url}/metrics", timeout=5, headers=_key(), trust_env=False)
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise FtError(f"{server.url}/metrics: {error}") from error
    lines = [line for line in answer.text.splitlines() if line and not line.startswith("#")]
    return "\n".join(line for line in lines if "_bucket{" not in line and "_created" not in line)


@dataclass(frozen=True, slots=True)
class ServerAnswerer:
    """Asks a server in OpenAI's protocol; its models are the voices.

    Attributes:
        server: is asked.
    """

    server: Server

    @property
    def voices(self) -> Sequence[str]:
        """The checkpoint's adapter, then the model without it, then further adapters."""
        return self.server.models

    @property
    def chats(self) -> bool:
        """A server always takes conversations."""
        return True

    @property
    def media(self) -> frozenset[MediumKind]:
        """Nothing: messages to a server are texts here."""
        return frozenset()

    @property
    def takes_tools(self) -> bool:
        """A server's calls come in a form of their own, which this page doesn't show."""
        return False

    def answer(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        voice: str,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> AsyncIterator[Piece]:
        """Answer the last message.

        Raises:
            UsageError: tools are given.
        """
        if tools:
            raise UsageError("functions can't be called over a server from this page")
        said = [{"role": m.role, "content": m.text} for m in messages]
        return self._ask("chat/completions", {"messages": said}, sampling, voice)

    def read(self, answer: str) -> ParsedAnswer:
        """Return the answer, in which nothing is called."""
        return ParsedAnswer(answer)

    def complete(self, text: str, sampling: Sampling, voice: str) -> AsyncIterator[Piece]:
        """Continue a text."""
        return self._ask("completions", {"prompt": text}, sampling, voice)

    async def _ask(
        self, route: str, body: Mapping[str, Any], sampling: Sampling, voice: str
    ) -> AsyncIterator[Piece]:
        import httpx

        request = {
            **body,
            "model": voice,
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "repetition_penalty": sampling.repetition_penalty,
            "max_tokens": sampling.max_new_tokens,
            **({} if sampling.seed is None else {"seed": sampling.seed}),
        }
        reason: FinishReason = "aborted"
        tokens = 0
        try:
            async with (
                httpx.AsyncClient(
                    timeout=httpx.Timeout(600, connect=5), headers=_key(), trust_env=False
                ) as client,
                client.stream("POST", f"{self.server.url}/v1/{route}", json=request) as answer,
            ):
                if answer.status_code != 200:
                    raise FtError(_problem(await answer.aread()))
                async for line in answer.aiter_lines():
                    event = _event(line)
                    if event is None:
                        continue
                    if "error" in event:
                        raise FtError(str(event["error"].get("message", event["error"])))
                    tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
                    for choice in event.get("choices", ()):
                        reason = _REASONS.get(choice.get("finish_reason") or "", reason)
                        text = choice.get("text") or (choice.get("delta") or {}).get("content")
                        if text:
                            tokens += 1
                            yield Piece(text, None, tokens)
        except httpx.HTTPError as error:
            raise FtError(f"{self.server.url}: {error or type(error).__name__}") from error
        yield Piece("", reason, tokens)


def _key() -> dict[str, str]:
    """Return the header with the key that a server started from here has, as it inherits FT_API_KEY."""
    given = os.environ.get("FT_API_KEY", "")
    if given.startswith("@"):
        given = Path(given[1:]).expanduser().read_text(encoding="utf-8")
    keys = [key.strip() for key in given.replace("\n", ",").split(",") if key.strip()]
    return {"authorization": f"Bearer {keys[0]}"} if keys else {}


def _event(line: str) -> Mapping[str, Any] | None:
    data = line.removeprefix("data:").strip()
    if not line.startswith("data:") or data == "[DONE]":
        return None
    event: Mapping[str, Any] = json.loads(data)
    return event


def _problem(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode("utf-8", errors="replace")[:500]
