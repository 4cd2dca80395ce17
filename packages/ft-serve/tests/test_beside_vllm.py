"""The same requests to vLLM's own server and to ours, on the same model: status, fields and events are the same."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ft_core.arguments import ModelArguments, TemplateArguments
from ft_core.prepare import prepare

PYTHON = os.environ.get("FT_VLLM_PYTHON")

pytestmark = [
    pytest.mark.accept,
    pytest.mark.skipif(PYTHON is None, reason="needs vLLM: make test-vllm"),
]

MODEL = "smol"
LENGTH = 512
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
CHAT: dict[str, Any] = {"model": MODEL, "messages": QUESTION, "temperature": 0, "max_tokens": 8}
TEXT: dict[str, Any] = {"model": MODEL, "prompt": "Paris is", "temperature": 0, "max_tokens": 8}
USAGE = {"stream_options": {"include_usage": True}}


class Server:
    """A server in a process of its own, until ``end``."""

    def __init__(self, words: list[str], port: int, log: Path, **environment: str) -> None:
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=300)
        self._log = log.open("w")
        self._process = subprocess.Popen(
            words,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            start_new_session=True,
        )

    def wait_until(self, path: str, seconds: float = 600) -> None:
        """Wait until a route answers 200."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self._process.poll() is None, Path(self._log.name).read_text()[-3000:]
            try:
                if self.http.get(path).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.5)
        raise AssertionError(Path(self._log.name).read_text()[-3000:])

    def end(self) -> None:
        """Stop the process."""
        self.http.close()
        self._process.terminate()
        self._process.wait(60)
        self._log.close()


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    """vLLM's server, and ours, of one model."""
    logs = tmp_path_factory.mktemp("logs")
    made = prepare(ModelArguments(model_type="smollm2-135m-instruct"), TemplateArguments())
    theirs, ours = free_port(), free_port()
    vllm = [
        *(str(PYTHON), "-m", "vllm.entrypoints.openai.api_server"),
        *(
            "--model",
            str(made.directory),
            "--served-model-name",
            MODEL,
            "--port",
            str(theirs),
            "--host",
            "127.0.0.1",
        ),
        *("--max-model-len", str(LENGTH), "--dtype", "float32", "--enforce-eager"),
    ]
    own = [
        *(sys.executable, "-m", "ft_serve", "deploy", "--model_id_or_path", str(made.directory)),
        *("--model_type", "smollm2-135m-instruct", "--served_model_name", MODEL),
        *("--port", str(ours), "--dtype", "fp32", "--max_model_len", str(LENGTH)),
    ]
    first = Server(vllm, theirs, logs / "vllm.log", VLLM_CPU_KVCACHE_SPACE="1")
    second = Server(own, ours, logs / "ft.log")
    try:
        first.wait_until("/health")
        second.wait_until("/health/ready")
        yield first, second
    finally:
        first.end()
        second.end()


def keys(value: Any, path: str = "") -> set[str]:
    """Return the paths of all keys; those that hold null say nothing."""
    if isinstance(value, dict):
        return {
            found
            for key, item in value.items()
            if item is not None
            for found in ({f"{path}.{key}"} | keys(item, f"{path}.{key}"))
        }
    if isinstance(value, list):
        return {found for item in value for found in keys(item, path + "[]")}
    return set()


def events(answer: httpx.Response) -> list[Any]:
    """Return the events of a stream, the last one as it is."""
    lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


ANSWERED = {
    "chat": ("/v1/chat/completions", CHAT),
    "chat that is cut": ("/v1/chat/completions", {**CHAT, "max_tokens": 1}),
    "two answers": ("/v1/chat/completions", {**CHAT, "n": 2, "temperature": 1, "seed": 1}),
    "scores": ("/v1/chat/completions", {**CHAT, "logprobs": True, "top_logprobs": 2}),
    "a stop": ("/v1/chat/completions", {**CHAT, "stop": ["Paris"]}),
    "text": ("/v1/completions", TEXT),
    "texts": ("/v1/completions", {**TEXT, "prompt": ["Paris is", "Rome is"]}),
    "tokens": ("/v1/completions", {**TEXT, "prompt": [52, 98, 1000]}),
    "echo": ("/v1/completions", {**TEXT, "echo": True, "logprobs": 1}),
    "echo alone": ("/v1/completions", {**TEXT, "echo": True, "logprobs": 1, "max_tokens": 0}),
    "tokenize": ("/tokenize", {"model": MODEL, "prompt": "Paris is"}),
    "tokenize chat": ("/tokenize", {"model": MODEL, "messages": QUESTION}),
    "detokenize": ("/detokenize", {"model": MODEL, "tokens": [52, 98, 1000]}),
}


VLLMS_OWN = ".choices[].prompt_logprobs"
"""What vLLM adds to OpenAI's fields; scores of given tokens are in ``logprobs`` too."""

OURS = {".usage.prompt_tokens_details", ".usage.prompt_tokens_details.cached_tokens"}
"""OpenAI's fields that vLLM leaves out as it was started here."""


@pytest.mark.parametrize("name", ANSWERED)
def test_answers_have_the_same_fields(name: str, servers: tuple[Server, Server]) -> None:
    path, body = ANSWERED[name]
    theirs, ours = (server.http.post(path, json=body) for server in servers)
    assert (theirs.status_code, ours.status_code) == (200, 200), (theirs.text, ours.text)
    expected = {key for key in keys(theirs.json()) if not key.startswith(VLLMS_OWN)}
    assert expected - keys(ours.json()) == set()
    assert keys(ours.json()) - expected <= OURS


@pytest.mark.parametrize("name", ["chat", "chat that is cut", "text", "texts", "tokens"])
def test_greedy_answers_are_the_same(name: str, servers: tuple[Server, Server]) -> None:
    path, body = ANSWERED[name]
    theirs, ours = (server.http.post(path, json=body).json() for server in servers)
    for own, other in zip(ours["choices"], theirs["choices"], strict=True):
        assert own.get("text") == other.get("text")
        assert own.get("message", {}).get("content") == other.get("message", {}).get("content")
        assert own["finish_reason"] == other["finish_reason"]
    for field in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert ours["usage"][field] == theirs["usage"][field]


REFUSED = {
    "another model": ("/v1/chat/completions", {**CHAT, "model": "nope"}),
    "a negative temperature": ("/v1/chat/completions", {**CHAT, "temperature": -1}),
    "top_p above one": ("/v1/chat/completions", {**CHAT, "top_p": 2}),
    "no messages": ("/v1/chat/completions", {"model": MODEL}),
    "an empty list": ("/v1/chat/completions", {**CHAT, "messages": []}),
    "a long answer": ("/v1/chat/completions", {**CHAT, "max_tokens": 100_000}),
    "no answer": ("/v1/chat/completions", {**CHAT, "n": 0}),
    "top_logprobs alone": ("/v1/chat/completions", {**CHAT, "top_logprobs": 2}),
    "1,000 top_logprobs": (
        "/v1/chat/completions",
        {**CHAT, "logprobs": True, "top_logprobs": 1000},
    ),
    "a word for a number": ("/v1/chat/completions", {**CHAT, "max_tokens": "many"}),
    "less than nothing": ("/v1/chat/completions", {**CHAT, "max_tokens": -1}),
    "options of no stream": ("/v1/chat/completions", {**CHAT, **USAGE}),
    "a long prompt": ("/v1/completions", {**TEXT, "prompt": "a " * 2000}),
    "a token of none": ("/v1/completions", {**TEXT, "prompt": [10**9]}),
    "an empty prompt": ("/v1/completions", {**TEXT, "prompt": ""}),
    "no prompt": ("/v1/completions", {"model": MODEL}),
    "a large penalty": ("/v1/completions", {**TEXT, "frequency_penalty": 9}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_have_the_same_status_and_form(name: str, servers: tuple[Server, Server]) -> None:
    path, body = REFUSED[name]
    theirs, ours = (server.http.post(path, json=body) for server in servers)
    assert ours.status_code == theirs.status_code >= 400
    assert set(ours.json()["error"]) == set(theirs.json()["error"])


def test_addresses_have_the_same_status(servers: tuple[Server, Server]) -> None:
    for path in ("/v1/models", "/v1/models/nope", "/version", "/nope", "/v1/completions"):
        theirs, ours = (server.http.get(path) for server in servers)
        assert ours.status_code == theirs.status_code, path
    theirs, ours = (server.http.get("/v1/models").json()["data"][0] for server in servers)
    assert set(ours) == set(theirs)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("usage", [False, True])
def test_streams_have_the_same_events(
    path: str, usage: bool, servers: tuple[Server, Server]
) -> None:
    body = {**(CHAT if "chat" in path else TEXT), "stream": True, **(USAGE if usage else {})}
    theirs, ours = (server.http.post(path, json=body) for server in servers)
    assert ours.headers["content-type"] == theirs.headers["content-type"]
    assert len(events(ours)) == len(events(theirs))
    # Fields that may be anywhere in a stream; an empty ``content`` at its end says nothing.
    anywhere = {".system_fingerprint", ".choices[].delta.content"} | OURS
    for own, other in zip(events(ours), events(theirs), strict=True):
        assert keys(own) ^ keys(other) <= anywhere
        assert [said(choice) for choice in own["choices"]] == [said(c) for c in other["choices"]]


def said(choice: dict[str, Any]) -> tuple[str, Any]:
    """Return the text of an event's choice, and why it ended."""
    return choice.get("text") or choice.get("delta", {}).get("content") or "", choice[
        "finish_reason"
    ]
