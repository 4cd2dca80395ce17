"""A stand-in for both hubs on this machine: their routes, their redirects to a CDN, and their bad days."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from huggingface_hub import constants

# lm-eval sets it to 1 when another test imports it, and then broken downloads start over.
os.environ["HF_XET_HIGH_PERFORMANCE"] = "0"

PAGE = 200
CUT = 3000


def safetensors(fill: int, size: int = 300_000) -> bytes:
    """Return a file of one tensor, large enough to break on its way."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes([fill]) * size


MODEL = {
    "config.json": b'{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}',
    "model-1-of-2.safetensors": safetensors(1),
    "model-2-of-2.safetensors": safetensors(2),
    "model.safetensors.index.json": json.dumps(
        {"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}
    ).encode(),
    "pytorch_model.bin": b"pickled",
    "tokenizer.json": b"{}",
    "onnx/model.onnx": b"onnx",
    "odd[1] +&.json": b"[]",
}
LARGE = (".safetensors", ".bin", ".onnx", ".parquet")


@dataclass
class StandIn:
    """What the hubs hold, how they behave, and what they were asked.

    Attributes:
        repositories: files by ``owner/name``; ids in messages of the hubs choose other answers.
        commit: of all of them.
        revisions: what they are called.
        token: the one that opens ``o/secret`` and ``o/gated``.
        breaks: for a large file, after how many bytes its next answers break off.
        damaged: how often a large file comes with wrong content.
        busy: how many answers to come are HTTP 503.
        hold: called before the content of a large file is sent.
        asked: method and path with query of each request, in order.
        ranges: for each large file the ``Range`` of each request, or an empty text.
        leaked: credentials that reached the CDN.
    """

    repositories: dict[str, dict[str, bytes]] = field(
        default_factory=lambda: {
            "o/good": dict(MODEL),
            "o/secret": dict(MODEL),
            "o/gated": dict(MODEL),
        }
    )
    commit: str = "a" * 40
    revisions: tuple[str, ...] = ("main", "master", "v2")
    token: str = "right"
    breaks: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    damaged: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    busy: int = 0
    hold: Callable[[], object] = lambda: None
    asked: list[tuple[str, str]] = field(default_factory=list)
    ranges: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    leaked: list[str] = field(default_factory=list)
    hub: str = ""
    cdn: str = ""
    stop: Callable[[], None] = lambda: None

    def asked_for(self, part: str) -> int:
        """Return how many requests had this in their path or query."""
        return sum(part in unquote(path) for _, path in self.asked)


class Handler(BaseHTTPRequestHandler):
    """Answers of a server with a stand-in behind it."""

    state: StandIn

    def do_HEAD(self) -> None:
        self.take()

    def do_GET(self) -> None:
        self.take()

    def take(self) -> None:
        self.state.asked.append((self.command, self.path))
        self.route = urlsplit(self.path)
        self.query = {name: values[-1] for name, values in parse_qs(self.route.query).items()}
        self.answer()

    def answer(self) -> None:
        raise AssertionError

    def send(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def send_json(self, status: int, content: object, **headers: str) -> None:
        self.send(status, json.dumps(content).encode(), Content_Type="application/json", **headers)

    def log_message(self, *_: object) -> None: ...


class Cdn(Handler):
    """Where large files come from, by range; another origin, which must not see credentials."""

    def answer(self) -> None:
        state = self.state
        state.leaked += [v for n, v in self.headers.items() if n in ("Authorization", "Cookie")]
        repository, _, name = unquote(self.route.path).lstrip("/").partition("/-/")
        content = state.repositories[repository][name]
        asked = self.headers.get("Range", "")
        state.ranges[name].append(asked)
        state.hold()
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if start >= len(content) and asked:
            return self.send(416, Content_Range=f"bytes */{len(content)}")
        if state.damaged[name]:
            state.damaged[name] -= 1
            content = content[:-1] + b"?"
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if state.breaks[name]:
            self.wfile.write(content[start : start + state.breaks[name].pop(0)])
            self.close_connection = True
            return None
        self.wfile.write(content[start:])
        return None


class Hubs(Handler):
    """The routes of both hubs; their paths don't overlap."""

    def answer(self) -> None:
        if self.state.busy:
            self.state.busy -= 1
            return self.send(503)
        path = unquote(self.route.path)
        if found := re.fullmatch(r"/api/v1/(models|datasets)/([^/]+/[^/]+)/(.+)", path):
            return self.modelscope(*found.groups())
        if found := re.fullmatch(
            r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree)/(.+))?", path
        ):
            return self.huggingface_list(found[2], found[3], found[4] or "main")
        found = re.fullmatch(r"/(?:datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if found is None:
            return self.send(404)
        return self.huggingface_file(*found.groups())

    def authorized(self, scheme: str = "Bearer ") -> bool:
        return self.headers.get("Authorization", "") == scheme + self.state.token

    def redirect(self, repository: str, name: str, **headers: str) -> None:
        from urllib.parse import quote

        self.send(302, Location=f"{self.state.cdn}/{repository}/-/{quote(name)}", **headers)

    # Hugging Face -------------------------------------------------------------------------------------

    def huggingface_refuses(self, repository: str, revision: str, *, content: bool) -> bool:
        token = self.headers.get("Authorization")
        if token and not self.authorized():
            self.send(401, X_Error_Message="Invalid credentials in Authorization header")
        elif repository not in self.state.repositories or (
            repository == "o/secret" and not self.authorized()
        ):
            self.send(404 if token else 401, X_Error_Code="RepoNotFound")
        elif repository == "o/gated" and content and not self.authorized():
            self.send(401, X_Error_Code="GatedRepo")
        elif revision not in (*self.state.revisions, self.state.commit):
            self.send(404, X_Error_Code="RevisionNotFound")
        else:
            return False
        return True

    def huggingface_list(self, repository: str, what: str | None, revision: str) -> None:
        if self.huggingface_refuses(repository, revision, content=False):
            return
        files = self.state.repositories[repository]
        if what == "tree":
            tree = [{"type": "directory", "path": "onnx", "oid": "0" * 40}]
            self.send_json(200, tree + [entry(name, content) for name, content in files.items()])
        else:
            siblings = [{"rfilename": name} for name in files]
            self.send_json(200, {"id": repository, "sha": self.state.commit, "siblings": siblings})

    def huggingface_file(self, repository: str, revision: str, name: str) -> None:
        if self.huggingface_refuses(repository, revision, content=True):
            return
        content = self.state.repositories[repository].get(name)
        commit = {"X_Repo_Commit": self.state.commit}
        if content is None:
            self.send(404, X_Error_Code="EntryNotFound", **commit)
        elif name.endswith(LARGE):
            linked = {"X_Linked_Size": str(len(content)), "X_Linked_Etag": f'"{sha256(content)}"'}
            self.redirect(repository, name, **linked, **commit)
        else:
            self.send(200, content, ETag=f'"{hashlib.sha1(content).hexdigest()}"', **commit)

    # ModelScope ---------------------------------------------------------------------------------------

    def modelscope(self, kinds: str, repository: str, route: str) -> None:
        if repository not in self.state.repositories:
            return self.no(10010205001, "获取模型信息失败，信息：record not found")
        if repository in ("o/secret", "o/gated") and not self.authorized():
            return self.no(10010200001, "no access")
        if route == "revisions":
            names = [{"Revision": name} for name in self.state.revisions]
            return self.send_json(200, {"Code": 200, "Data": {"RevisionMap": {"Branches": names}}})
        if self.query["Revision"] not in (*self.state.revisions, self.state.commit):
            return self.no(10990101004, "获取模型目录树失败")
        files = self.state.repositories[repository]
        if route == "repo":
            name = self.query["FilePath"]
            if name.endswith(LARGE):
                return self.redirect(repository, name)
            return self.send(200, files[name])  # small files take no notice of ranges
        assert route == {"models": "repo/files", "datasets": "repo/tree"}[kinds]
        entries = self.modelscope_entries(files)
        if kinds == "datasets":
            size, page = int(self.query["PageSize"]), int(self.query["PageNumber"])
            entries = entries[size * (page - 1) : size * page]
        return self.send_json(
            200, {"Code": 200, "Data": {"Files": entries[:CUT] or None}, "Success": True}
        )

    def modelscope_entries(self, files: dict[str, bytes]) -> list[dict[str, object]]:
        root = self.query.get("Root", "").strip("/")
        inside = {
            n[len(root) :].lstrip("/"): n for n in files if not root or n.startswith(f"{root}/")
        }
        entries: dict[str, dict[str, object]] = {}
        for rest, name in inside.items():
            if "/" in rest:
                folder = f"{root}/{rest.partition('/')[0]}".lstrip("/")
                entries[folder] = {"Type": "tree", "Path": folder, "Size": 0, "Sha256": ""}
                if self.query["Recursive"] == "False":
                    continue
            content = files[name]
            entries[name] = {
                "Type": "blob",
                "Path": name,
                "Size": len(content),
                "Sha256": sha256(content),
                "Revision": self.state.commit,
                "CommittedDate": 1_700_000_000,
            }
        return list(entries.values())

    def no(self, code: int, message: str) -> None:
        self.send_json(404, {"Code": code, "Message": message, "Success": False})


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def entry(name: str, content: bytes) -> dict[str, object]:
    """Return a file as Hugging Face lists it."""
    size = len(content)
    found = {"type": "file", "path": name, "size": size, "oid": hashlib.sha1(content).hexdigest()}
    if name.endswith(LARGE):
        found["lfs"] = {"oid": sha256(content), "size": size, "pointerSize": 130}
    return found


class Server(ThreadingHTTPServer):
    """A server that doesn't mind when a client goes away, and keeps its own mistakes for the test."""

    daemon_threads = True
    faults: list[BaseException]

    def handle_error(self, *_: object) -> None:
        error = sys.exception()
        if error is not None and not isinstance(error, ConnectionError):
            self.faults.append(error)


@pytest.fixture
def hubs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StandIn]:
    """Start the stand-in and point both hubs and their empty caches at it."""
    state = StandIn()
    servers = [
        Server(("127.0.0.1", 0), type(kind.__name__, (kind,), {"state": state}))
        for kind in (Hubs, Cdn)
    ]
    faults: list[BaseException] = []
    for server in servers:
        server.faults = faults
    threads = [
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        for server in servers
    ]
    for thread in threads:
        thread.start()

    def stop() -> None:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()
        servers.clear()
        threads.clear()

    state.stop = stop
    state.hub = f"http://127.0.0.1:{servers[0].server_port}"
    state.cdn = f"http://localhost:{servers[1].server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", state.hub)
    template = state.hub + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", state.hub)
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "ms"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "MODELSCOPE_API_TOKEN", "USE_HF"):
        monkeypatch.delenv(name, raising=False)
    yield state
    state.stop()
    assert faults == []
