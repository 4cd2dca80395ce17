# ruff: noqa: D102 (what these do is what the servers they stand in for do)
"""For tests: a server that speaks as vLLM, LMDeploy and others do, with any answers behind it.

Run as a program it is taken for vLLM: it reads vLLM's flags, and spells answers without a model. It needs
the standard library alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

Event = dict[str, Any]
"""text, token_ids, finish_reason, and logprobs: (token, logprob, [(token, logprob), …]) for each token."""


class Answers(Protocol):
    """What is behind the server. Wrong requests raise ``ValueError``."""

    def events(self, body: Mapping[str, Any]) -> Iterator[Event]: ...

    def scores(self, token_ids: Sequence[int], top: int) -> list[dict[int, float] | None]: ...


class Spelled:
    """Answers with letters that depend on the prompt, a token each."""

    def events(self, body: Mapping[str, Any]) -> Iterator[Event]:
        prompt = body["prompt"]
        length = min(body["max_tokens"], 40)
        for place in range(length):
            letter = chr(97 + (sum(prompt) + place * len(prompt)) % 26)
            reason = "length" if place + 1 == length else None
            yield {"text": letter, "token_ids": [ord(letter)], "finish_reason": reason}

    def scores(self, token_ids: Sequence[int], top: int) -> list[dict[int, float] | None]:
        return [None, *({token: -1.0} for token in token_ids[1:])]


class StandIn(ThreadingHTTPServer):
    """The server.

    Attributes:
        requests: the bodies of all requests so far.
    """

    request_queue_size = 128

    daemon_threads = True

    def __init__(
        self,
        answers: Answers,
        *,
        port: int = 0,
        key: str | None = None,
        model: str = "model",
        adapters: Sequence[str] = (),
        owner: str = "vllm",
        length: int | None = None,
    ) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.answers = answers
        self.key = key
        self.requests: list[Mapping[str, Any]] = []
        cards: list[dict[str, Any]] = [
            {"id": model, "owned_by": owner, "parent": None, "max_model_len": length}
        ]
        cards += [{"id": name, "owned_by": owner, "parent": model} for name in adapters]
        self.models: dict[str, Any] = {"object": "list", "data": cards}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: StandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/health":
            self._json(200, {})
        elif self._allowed():
            self._json(200, self.server.models)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/crash":
            os._exit(7)
        if not self._allowed():
            return
        self.server.requests.append(body)
        try:
            self._answer(body)
        except ValueError as error:
            self._json(400, {"error": {"message": str(error), "code": 400}})
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _allowed(self) -> bool:
        key = self.server.key
        if key is None or self.headers["Authorization"] == f"Bearer {key}":
            return True
        self._json(401, {"error": "Unauthorized"})
        return False

    def _answer(self, body: Mapping[str, Any]) -> None:
        known = [card["id"] for card in self.server.models["data"]]
        if "model" in body and body["model"] not in known:
            self._json(404, {"error": {"message": f"The model `{body['model']}` does not exist."}})
            return
        if body.get("prompt_logprobs") is not None:
            self._json(200, self._scored(body))
            return
        say = _generated if self.path == "/generate" else _completed
        events = self.server.answers.events(body)
        first = next(events)  # a wrong request is found before the stream begins
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        tokens = 0
        try:
            for event in _chain(first, events):
                self._chunk(f"data: {json.dumps(say(event, body))}\n\n")
                tokens += len(event["token_ids"])
        finally:
            events.close()  # type: ignore[attr-defined]
        if (body.get("stream_options") or {}).get("include_usage"):
            usage = {"choices": [], "usage": {"completion_tokens": tokens}}
            self._chunk(f"data: {json.dumps(usage)}\n\n")
        self._chunk("data: [DONE]\n\n")
        self._chunk("")

    def _scored(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        top = body["prompt_logprobs"]
        entries = [
            None
            if entry is None
            else {str(token): {"logprob": value} for token, value in entry.items()}
            for entry in self.server.answers.scores(body["prompt"], top)
        ]
        return {"choices": [{"text": "", "prompt_logprobs": entries}]}

    def _chunk(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _json(self, status: int, data: object) -> None:
        text = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def _chain(first: Event, rest: Iterator[Event]) -> Iterator[Event]:
    yield first
    yield from rest


def _completed(event: Event, body: Mapping[str, Any]) -> Mapping[str, Any]:
    """As vLLM's ``/v1/completions`` says it; token ids only where they are asked for."""
    if "error" in event:
        return {"error": event["error"]}
    choice = {"index": 0, "text": event["text"], "finish_reason": event["finish_reason"]}
    choice["stop_reason"] = event.get("stop_reason")
    if body.get("return_token_ids"):
        choice["token_ids"] = event["token_ids"]
    if body.get("logprobs") is not None:
        found = event["logprobs"]
        choice["logprobs"] = {
            "tokens": [f"token_id:{token}" for token, _, _ in found],
            "token_logprobs": [value for _, value, _ in found],
            "top_logprobs": [{f"token_id:{t}": v for t, v in best} for _, _, best in found],
        }
    return {"choices": [choice]}


def _generated(event: Event, body: Mapping[str, Any]) -> Mapping[str, Any]:
    """As LMDeploy's ``/generate`` says it."""
    reason = event["finish_reason"]
    told: dict[str, Any] = {"finish_reason": {"type": reason} if reason else None}
    if body.get("return_logprob"):
        found = event["logprobs"]
        told["output_token_logprobs"] = [(value, token) for token, value, _ in found]
        told["output_top_logprobs"] = [[(v, t) for t, v in best] for _, _, best in found]
    return {"text": event["text"], "output_ids": event["token_ids"], "meta_info": told}


def main(argv: Sequence[str]) -> None:
    """Serve as vLLM would."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--served-model-name", required=True)
    parser.add_argument("--max-model-len", type=int, default=4096)
    parser.add_argument("--lora-modules", nargs="*", type=json.loads, default=[])
    arguments, further = parser.parse_known_args(argv)
    if "--enforce-eager" in further:
        sys.exit("RuntimeError: told not to start")
    helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    print(f"processes {os.getpid()} {helper.pid}", flush=True)
    server = StandIn(
        Spelled(),
        port=arguments.port,
        key=os.environ.get("VLLM_API_KEY"),
        model=arguments.served_model_name,
        adapters=[module["name"] for module in arguments.lora_modules],
        length=arguments.max_model_len,
    )
    with suppress(KeyboardInterrupt):
        server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
