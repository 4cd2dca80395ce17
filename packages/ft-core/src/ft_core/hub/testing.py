"""For tests: a stand-in for Hugging Face's hub that takes pushes, by the routes that its client calls."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Shelf:
    """What the stand-in holds.

    Attributes:
        token: that may write; it belongs to ``finch``.
        repositories: files by ``owner/name``.
        private: repositories that were made private.
        messages: of all commits.
        broken: whether it refuses commits.
    """

    token: str = "right"
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    messages: list[str] = field(default_factory=list)
    broken: bool = False


@contextmanager
def serve(shelf: Shelf) -> Iterator[str]:
    """Serve a shelf while entered, and give the address of the hub."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Hub", (_Handler,), {"shelf": shelf}))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    shelf: Shelf

    def do_GET(self) -> None:
        if not self._may():
            return
        known = self.path.startswith("/api/whoami")
        user = {"name": "finch", "type": "user", "orgs": []}
        self._answer(200 if known else 404, user if known else {"error": "not found"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not self._may():
            return
        repository = "/".join(self.path.split("/")[3:5])
        if self.path == "/api/repos/create":
            self._create(json.loads(body))
        elif self.path == "/api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = [
                {"path": item["path"], "uploadMode": "regular", "shouldIgnore": False}
                for item in json.loads(body)["files"]
            ]
            self._answer(200, {"files": files})
        elif "/commit/" in self.path and not self.shelf.broken:
            self._commit(repository, body)
        else:
            self._answer(403 if self.shelf.broken else 404, {"error": "no"})

    def _may(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {self.shelf.token}":
            return True
        self._answer(401, {"error": "Invalid user token."})
        return False

    def _create(self, asked: dict[str, Any]) -> None:
        identity = f"{asked.get('organization') or 'finch'}/{asked['name']}"
        url = f"http://{self.headers['Host']}/{identity}"
        if identity in self.shelf.repositories:
            self._answer(409, {"error": "You already created this model repo", "url": url})
            return
        self.shelf.repositories[identity] = {}
        if asked.get("private") or asked.get("visibility") == "private":
            self.shelf.private.add(identity)
        self._answer(200, {"url": url, "name": identity})

    def _commit(self, repository: str, body: bytes) -> None:
        for item in map(json.loads, body.splitlines()):
            if item["key"] == "header":
                self.shelf.messages.append(item["value"]["summary"])
            if item["key"] == "file":
                content = base64.b64decode(item["value"]["content"])
                self.shelf.repositories[repository][item["value"]["path"]] = content
        url = f"http://{self.headers['Host']}/{repository}/commit/{'a' * 40}"
        self._answer(
            200, {"commitUrl": url, "commitOid": "a" * 40, "success": True, "hookOutput": ""}
        )

    def _answer(self, status: int, content: object) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Log nothing."""
