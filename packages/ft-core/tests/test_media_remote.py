"""Addresses: only public ones of allowed hosts, connected to as they were checked."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from ft_core.media import MediaError, RemoteRules
from ft_core.media import remote as remote_module
from ft_core.media.remote import fetch

RULES = RemoteRules(timeout=2.0)


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1/a.png",
        "http://localhost:8000/a.png",
        "http://[::1]/a.png",
        "http://169.254.169.254/latest/meta-data",
        "http://10.0.0.1/a.png",
        "http://192.168.1.1/a.png",
        "http://0.0.0.0/a.png",
        "http://[::ffff:127.0.0.1]/a.png",
        "http://2130706433/a.png",
        "http://0x7f000001/a.png",
        "http://224.0.0.1/a.png",
    ],
)
def test_addresses_of_private_networks_are_refused(address: str) -> None:
    with pytest.raises(MediaError, match=r"address that is not public|can't be fetched"):
        fetch(address, RULES, 1000)


@pytest.mark.parametrize(
    "address",
    [
        "http://user:secret@example.org/a.png",
        "http:///a.png",
        "http://example.org\\@evil.org/a.png",
        "http://example.org:99999/a.png",
    ],
)
def test_addresses_that_readers_disagree_about_are_refused(address: str) -> None:
    with pytest.raises(MediaError, match=r"no plain address|is no address"):
        fetch(address, RULES, 1000)


@pytest.mark.parametrize("host", ["evil.org", "example.org.evil.org", "notexample.org"])
def test_only_allowed_hosts_are_asked(host: str) -> None:
    with pytest.raises(MediaError, match="not among those allowed"):
        fetch(f"https://{host}/a.png", RemoteRules(hosts=("example.org",)), 1000)


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/picture")
            self.end_headers()
            return
        self.send_response(200 if self.path == "/picture" else 404)
        self.end_headers()
        self.wfile.write(b"x" * 500)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server whose name stands for a public address, for all that the check is told."""
    httpd = HTTPServer(("127.0.0.1", 0), _Answers)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    port = httpd.server_address[1]
    checked = remote_module._CheckedBackend

    class ToServer(checked):  # type: ignore[valid-type, misc]
        def connect_tcp(self, host: str, port: int, *more: Any, **named: Any) -> Any:
            return super(checked, self).connect_tcp("127.0.0.1", port, *more, **named)

    monkeypatch.setattr(remote_module, "_CheckedBackend", ToServer)
    yield f"http://example.org:{port}"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_content_is_fetched_up_to_a_size_and_redirects_are_not_followed(server: str) -> None:
    assert fetch(f"{server}/picture", RULES, 1000) == b"x" * 500
    with pytest.raises(MediaError, match="more than 100 bytes"):
        fetch(f"{server}/picture", RULES, 100)
    with pytest.raises(MediaError, match="redirects are not followed"):
        fetch(f"{server}/moved", RULES, 1000)
    with pytest.raises(MediaError, match="answers 404"):
        fetch(f"{server}/nothing", RULES, 1000)


def test_every_address_of_a_name_must_be_public(monkeypatch: pytest.MonkeyPatch) -> None:
    def both(host: str, port: int, **_: Any) -> list[Any]:
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in ("93.184.216.34", "127.0.0.1")
        ]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    with pytest.raises(MediaError, match="address that is not public"):
        fetch("http://example.org/a.png", RULES, 1000)
