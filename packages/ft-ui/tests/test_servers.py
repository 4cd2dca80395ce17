"""Talking to a server in OpenAI's protocol: streams, ends, errors, and what to copy."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ft_core.engine import Sampling
from ft_core.errors import FtError
from ft_core.examples import Message
from ft_core.runs import process_start
from ft_ui.studio.jobs import Job
from ft_ui.studio.servers import (
    Server,
    ServerAnswerer,
    curl_snippet,
    metrics_of,
    openai_snippet,
    server_of,
)

pytest.importorskip("httpx")


class Answers(BaseHTTPRequestHandler):
    """A server that says what the test put into ``reply``."""

    reply: ClassVar[tuple[int, str]] = (200, "")
    asked: ClassVar[list[tuple[str, str, Any]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        Answers.asked.append((self.path, self.headers.get("authorization", ""), body))
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        status, text = Answers.reply
        self.send_response(status)
        self.send_header("content-length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *words: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    Answers.asked.clear()
    running = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    job = Job(tmp_path, {"words": ["deploy"]})
    yield Server(job, f"http://127.0.0.1:{running.server_port}", ("default-lora", "tiny"))
    running.shutdown()
    running.server_close()


def stream(*events: Any) -> tuple[int, str]:
    return 200, "".join(f"data: {json.dumps(e)}\n\n" for e in events) + "data: [DONE]\n\n"


async def said(server: Server, **how: Any) -> list[tuple[str, str | None]]:
    pieces = ServerAnswerer(server).answer([Message("user", "hi")], Sampling(**how), "tiny")
    return [(piece.text, piece.finish_reason) async for piece in pieces]


async def test_an_answer_streams_with_its_end(server: Server, monkeypatch: Any) -> None:
    monkeypatch.setenv("FT_API_KEY", "first,second")
    Answers.reply = stream(
        {"choices": [{"delta": {"role": "assistant", "content": ""}}]},
        {"choices": [{"delta": {"content": "It is "}}]},
        {"choices": [{"delta": {"content": "Paris."}, "finish_reason": None}]},
        {"choices": [{"delta": {}, "finish_reason": "length"}]},
        {"choices": [], "usage": {"completion_tokens": 7}},
    )
    assert await said(server, seed=3) == [("It is ", None), ("Paris.", None), ("", "length")]
    path, key, body = Answers.asked[0]
    assert (path, key) == ("/v1/chat/completions", "Bearer first")
    assert (body["model"], body["seed"], body["stream"]) == ("tiny", 3, True)
    assert body["messages"] == [{"role": "user", "content": "hi"}]


async def test_errors_of_a_server_are_told(server: Server) -> None:
    Answers.reply = (400, json.dumps({"error": {"message": "the prompt is too long"}}))
    with pytest.raises(FtError, match="too long"):
        await said(server)
    Answers.reply = stream({"error": {"message": "the model is gone"}})
    with pytest.raises(FtError, match="gone"):
        await said(server)
    nobody = Server(server.job, "http://127.0.0.1:9", ("tiny",))
    with pytest.raises(FtError, match=r"127\.0\.0\.1:9"):
        await said(nobody)


def test_figures_are_shown_without_comments_and_buckets(server: Server) -> None:
    Answers.reply = (200, '# HELP x\nft_requests_total 3\nft_seconds_bucket{le="1"} 2\n')
    assert metrics_of(server) == "ft_requests_total 3"


def test_a_server_is_known_by_its_line(tmp_path: Path) -> None:
    own = {"words": ["deploy"], "pid": os.getpid(), "pid_start": process_start(os.getpid())}
    log = tmp_path / "log.txt"
    log.write_text("loading\n", encoding="utf-8")
    assert server_of(Job(tmp_path, own)) is None
    line = "ready: http://127.0.0.1:8000/v1 answers as default-lora, tiny\n"
    log.write_text(f"loading\n{line}", encoding="utf-8")
    found = server_of(Job(tmp_path, own))
    assert found is not None
    assert (found.url, found.models) == ("http://127.0.0.1:8000", ("default-lora", "tiny"))
    assert server_of(Job(tmp_path, {**own, "exit_code": 0})) is None
    assert server_of(Job(tmp_path, {**own, "words": ["sft"]})) is None


def test_what_is_copied_is_whole(server: Server) -> None:
    text = curl_snippet(server)
    assert json.loads(text.partition("-d '")[2].rstrip("'"))["model"] == "default-lora"
    assert f"{server.url}/v1/chat/completions" in text
    compile(openai_snippet(server), "snippet", "exec")
