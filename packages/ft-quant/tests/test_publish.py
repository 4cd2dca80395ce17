"""Pushing what was made, by Hugging Face's own client against a server here."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from ft_core import HubError, UsageError
from ft_quant.export import ExportJob, Made
from ft_quant.export_arguments import PublishArguments
from ft_quant.publish import check_pushable, open_repository, publish

SECRET = "hf_a_secret_token"


@dataclass
class Shelf:
    """What the server holds: files by repository, messages of commits, and whether it refuses commits now."""

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    private: bool = False
    broken: bool = False


class Handler(BaseHTTPRequestHandler):
    shelf: Shelf

    def do_GET(self) -> None:
        known = self.path.startswith("/api/whoami")
        self.answer(200 if known else 404, {"name": "finch", "type": "user", "orgs": []})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != f"Bearer {SECRET}":
            return self.answer(401, {"error": "Invalid user token."})
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'finch'}/{asked['name']}"
            self.shelf.files.setdefault(name, {})
            self.shelf.private = bool(asked.get("private") or asked.get("visibility") == "private")
            return self.answer(200, {"url": f"http://{self.headers['Host']}/{name}", "name": name})
        name = "/".join(self.path.split("/")[3:5])
        if "/preupload/" in self.path:
            files = [
                {"path": item["path"], "uploadMode": "regular", "shouldIgnore": False}
                for item in json.loads(body)["files"]
            ]
            return self.answer(200, {"files": files})
        if self.path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        if self.shelf.broken or "/commit/" not in self.path:
            return self.answer(403, {"error": "no"})
        for item in map(json.loads, body.splitlines()):
            if item["key"] == "header":
                self.shelf.messages.append(item["value"]["summary"])
            if item["key"] == "file":
                content = base64.b64decode(item["value"]["content"])
                self.shelf.files[name][item["value"]["path"]] = content
        url = f"http://{self.headers['Host']}/{name}/commit/{'a' * 40}"
        return self.answer(
            200, {"commitUrl": url, "commitOid": "a" * 40, "success": True, "hookOutput": ""}
        )

    def answer(self, status: int, content: object) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Shelf]:
    state = Shelf()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Hub", (Handler,), {"shelf": state}))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("USE_HF", "1")
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def made(kind: str, directory: Path) -> Made:
    directory.mkdir()
    for name in ("model.safetensors", "export.json", "README.md", "optimizer.pt", ".cache"):
        (directory / name).write_text(f"{kind} {name}")
    return Made(kind, directory, 1, 1.0)  # type: ignore[arg-type]


def test_the_smallest_form_is_pushed_and_a_gguf_beside_it(
    shelf: Shelf, job: Callable[..., ExportJob], base: Path, adapter: Path, tmp_path: Path
) -> None:
    prepared = job(base, adapter, to_gguf="f16").prepared
    results = [made(kind, tmp_path / kind) for kind in ("merged", "quantized", "gguf")]
    asked = PublishArguments(
        push_to_hub=True, hub_model_id="small", hub_token=SECRET, hub_private_repo=True
    )
    repository = open_repository(asked)
    assert repository is not None and shelf.private
    said: list[str] = []
    publish(repository, results, prepared, message="first", say=said.append)
    assert shelf.files["finch/small"] == {
        "model.safetensors": b"quantized model.safetensors",
        "export.json": b"quantized export.json",
        "README.md": b"quantized README.md",
        "gguf/model.safetensors": b"gguf model.safetensors",
        "gguf/export.json": b"gguf export.json",
        "gguf/README.md": b"gguf README.md",
    }
    assert shelf.messages == ["first", "first"]
    assert said and not any(SECRET in line for line in said) and SECRET not in repr(repository)


def test_a_push_that_broke_off_goes_on_with_the_checkpoint(
    shelf: Shelf, job: Callable[..., ExportJob], base: Path, adapter: Path, tmp_path: Path
) -> None:
    prepared = job(base, adapter, to_gguf="f16").prepared
    repository = open_repository(
        PublishArguments(push_to_hub=True, hub_model_id="team/lora", hub_token=SECRET)
    )
    assert repository is not None
    shelf.broken = True
    with pytest.raises(HubError, match=r"team/lora can't be pushed.*on disk in .*merged") as raised:
        publish(
            repository,
            [made("merged", tmp_path / "merged")],
            prepared,
            message="one",
            say=lambda text: None,
        )
    assert SECRET not in str(raised.value)
    shelf.broken = False
    publish(repository, [], prepared, message="two", say=lambda text: None)
    assert {"adapter_config.json", "adapter_model.safetensors"} <= set(shelf.files["team/lora"])


def test_nothing_to_push_is_refused(
    job: Callable[..., ExportJob], base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = job(base, to_gguf="f16").prepared
    check_pushable(prepared, makes=True)
    with pytest.raises(UsageError, match="--push_to_hub true has nothing to push"):
        check_pushable(prepared, makes=False)
    monkeypatch.setenv("USE_HF", "1")
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match="--push_to_hub needs a token of Hugging Face"):
        open_repository(PublishArguments(push_to_hub=True, hub_model_id="a"))
    assert open_repository(PublishArguments()) is None
