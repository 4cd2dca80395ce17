"""For tests: a respondent that follows a script, and a small server that speaks OpenAI's protocol."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ft_core.engine import Sampling
from ft_core.errors import ModelError
from ft_eval.respondents.protocol import Answer, Likelihood, Prompt, Question

QUESTIONS = (
    ("What is the capital of France?", ("Berlin", "Paris", "Rome", "Madrid"), "B"),
    ("Which is a fruit?", ("Car", "Stone", "Apple", "Table"), "C"),
    ("What is the sky on a clear day?", ("Blue", "Green", "Red", "Black"), "A"),
    ("Who are you?", ("A model", "A fox", "A dog", "The sea"), "A"),
    ("What do you count first?", ("4", "3", "2", "1"), "D"),
)
"""Multiple-choice questions: text, choices, right letter."""

Reply = Callable[[Prompt], str]


@dataclass(slots=True)
class ScriptedRespondent:
    """Answers with given texts and gives likelihoods by a given rule, without a model.

    Attributes:
        reply: the answer, or what makes it from the prompt; it may raise an ``FtError``.
        score: log-probability of a continuation after a prompt.
        name, identity, chat, scores, agent: as of a respondent.
        fails_after: after this many questions it is gone.
        asked: the prompts it was asked.
    """

    reply: str | Reply = "hello"
    score: Callable[[Prompt, str], float] = lambda prompt, text: -float(len(text))
    name: str = "scripted"
    identity: Mapping[str, Any] = field(default_factory=lambda: {"weights": "1"})
    chat: bool = True
    scores: bool = True
    agent: str | None = None
    fails_after: int | None = None
    asked: list[Prompt] = field(default_factory=list)

    async def answer(self, prompt: Prompt, sampling: Sampling) -> Answer:
        """Give the reply."""
        self._count(prompt)
        text = self.reply if isinstance(self.reply, str) else self.reply(prompt)
        return Answer(text, "stop", prompt.size, len(text))

    async def likelihoods(self, questions: Sequence[Question]) -> list[list[Likelihood]]:
        """Score by the rule."""
        for question in questions:
            self._count(question.prompt)
        return [
            [Likelihood(self.score(q.prompt, text), len(text), False) for text in q.continuations]
            for q in questions
        ]

    async def close(self) -> None:
        """Do nothing."""

    def _count(self, prompt: Prompt) -> None:
        if self.fails_after is not None and len(self.asked) >= self.fails_after:
            raise ModelError("the model is gone: it was told to")
        self.asked.append(prompt)


Body = dict[str, Any]
Handler = Callable[[str, Body], tuple[int, Any]]
"""From a path and a body to a status and JSON (or a text, which is sent as it is)."""


@dataclass(slots=True)
class StandIn:
    """A server that is running.

    Attributes:
        url: its base URL, with /v1.
        requests: path, body and headers of what it was asked.
    """

    url: str
    requests: list[tuple[str, Body, Mapping[str, str]]] = field(default_factory=list)


@contextmanager
def stand_in(handler: Handler) -> Iterator[StandIn]:
    """Run a server on a free port of this machine until the end of the block.

    Args:
        handler: answers; a header may be asked for by returning ``{"retry-after": …}`` beside an error.
    """
    server = StandIn("")

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({})

        def do_POST(self) -> None:
            length = int(self.headers.get("content-length", 0))
            self._answer(json.loads(self.rfile.read(length)))

        def _answer(self, body: Body) -> None:
            server.requests.append((self.path, body, dict(self.headers)))
            status, data = handler(self.path, body)
            text = data if isinstance(data, str) else json.dumps(data)
            self.send_response(status)
            if isinstance(data, dict) and "retry-after" in data:
                self.send_header("retry-after", str(data["retry-after"]))
            payload = text.encode()
            self.send_header("content-length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, format: str, *args: Any) -> None:
            """Stay quiet."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    server.url = f"http://127.0.0.1:{http.server_port}/v1"
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def openai_server(reply: Callable[[Body], str], *, model: str = "served") -> Handler:
    """Return what answers as a chat and completions server without likelihoods would."""

    def handle(path: str, body: Body) -> tuple[int, Any]:
        if path == "/v1/models":
            return 200, {"data": [{"id": model}]}
        if path in ("/v1/chat/completions", "/v1/completions"):
            text = reply(body)
            message = {"message": {"role": "assistant", "content": text}}
            choice = message if "messages" in body else {"text": text}
            return 200, {
                "id": "1",
                "object": "chat.completion" if "messages" in body else "text_completion",
                "created": 1,
                "model": model,
                "choices": [{"index": 0, "finish_reason": "stop", **choice}],
                "usage": {
                    "prompt_tokens": 1,
                    "completion_tokens": len(text),
                    "total_tokens": len(text) + 1,
                },
            }
        return 404, {"error": {"message": f"no {path}"}}

    return handle


def write_lines(file: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write JSON lines, making the directory."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file
