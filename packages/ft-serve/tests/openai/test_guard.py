"""Who gets in, and what is refused before it costs anything."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from ft_core.errors import UsageError
from ft_serve.openai.guard import Access
from ft_serve.openai.keys import Keys, read_keys
from ft_serve.openai.limits import Limits
from ft_serve.testing import MockEngine

HOSTS = frozenset({"localhost", "127.0.0.1"})
QUESTION = {"messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture(scope="module")
def guarded(serve: Any) -> Iterator[Any]:
    access = Access(Keys(["first-key", "second-key"]), HOSTS)
    with serve(MockEngine("hello"), access=access, limits=Limits(body=10_000)) as running:
        yield running


def raw(port: int, request: bytes) -> tuple[int, str]:
    """Send bytes as they are and return status and body."""
    with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
        answer = b""
        try:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                answer += part
        except OSError:  # it was closed while this side still wrote
            if not answer:
                return 0, ""
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode()


def get(path: str, *headers: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: localhost", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def test_every_key_opens_it(guarded: Any) -> None:
    for key in ("first-key", "second-key"):
        assert guarded.client(api_key=key).models.list().data
    headers = {"X-Api-Key": "second-key"}
    assert httpx.get(f"{guarded.url}/v1/models", timeout=120, headers=headers).status_code == 200


@pytest.mark.parametrize("key", ["first-ke", "first-keyy", "First-key", "first-key,second-key"])
def test_other_keys_dont(guarded: Any, key: str) -> None:
    with pytest.raises(openai.AuthenticationError) as error:
        guarded.client(api_key=key).models.list()
    assert error.value.code == "invalid_api_key"
    assert error.value.response.headers["www-authenticate"].startswith("Bearer")
    assert key not in error.value.response.text


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models",
        "//v1/models",
        "/V1/models",
        "/%761/models",
        "/v1/../v1/models",
        "/health/../v1/models",
        "/health%2f..%2fv1/models",
        "/health/live/",
        "/health/live;/v1/models",
        "/metrics",
        "/openapi.json",
        "/version",
        "/docs",
        "/nothing",
        "/tokenizer_info",
        "http://localhost/v1/models",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "BREW"])
def test_nothing_but_health_is_open(guarded: Any, path: str, method: str) -> None:
    request = get(path).replace(b"GET", method.encode(), 1)
    status, body = raw(guarded.port, request)
    assert status in (400, 401)
    assert "tiny" not in body


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready"])
def test_health_is_open(guarded: Any, path: str) -> None:
    assert raw(guarded.port, get(path)) == (200, '{"status":"ok"}')


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8000", 401),
        ("LOCALHOST", 401),
        ("127.0.0.1", 401),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example:80", 403),
        ("", 403),
    ],
)
def test_only_its_own_names_are_answered(guarded: Any, host: str, status: int) -> None:
    request = get("/v1/models").replace(b"Host: localhost", f"Host: {host}".encode())
    assert raw(guarded.port, request)[0] == status


def test_two_hosts_are_none(guarded: Any) -> None:
    assert raw(guarded.port, get("/v1/models", "Host: localhost"))[0] in (400, 403)


def test_headers_without_end_are_refused(guarded: Any) -> None:
    many = [f"X-{number}: {number}" for number in range(10_000)]
    assert raw(guarded.port, get("/health/live", *many))[0] in (0, 400, 431)
    assert raw(guarded.port, get("/health/live"))[0] == 200


@pytest.fixture(scope="module")
def opened(guarded: Any) -> Iterator[httpx.Client]:
    headers = {"Authorization": "Bearer first-key"}
    with httpx.Client(base_url=guarded.url, headers=headers, timeout=120) as client:
        yield client


def test_a_large_body_is_refused_by_its_length_and_by_its_bytes(opened: httpx.Client) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "x" * 20_000}]}).encode()
    kind = {"content-type": "application/json"}
    told = opened.post("/v1/chat/completions", content=body, headers=kind)
    in_pieces = (body[at : at + 1000] for at in range(0, len(body), 1000))
    counted = opened.post("/v1/chat/completions", content=in_pieces, headers=kind)
    for answer in (told, counted):
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "request_too_large"


@pytest.mark.parametrize("kind", ["text/plain", "", "application/x-www-form-urlencoded"])
def test_pages_of_other_sites_cant_ask(opened: httpx.Client, kind: str) -> None:
    body = json.dumps(QUESTION).encode()
    headers = {"content-type": kind} if kind else {}
    answer = opened.post("/v1/chat/completions", content=body, headers=headers)
    assert answer.status_code == 415
    preflight = opened.options("/v1/chat/completions", headers={"origin": "http://evil.example"})
    assert preflight.status_code == 405
    assert not [name for name in preflight.headers if name.startswith("access-control")]


def test_packed_bodies_are_refused(opened: httpx.Client) -> None:
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    answer = opened.post("/v1/chat/completions", content=b"\x1f\x8b", headers=headers)
    assert answer.status_code == 415


def test_requests_keep_their_id(opened: httpx.Client) -> None:
    given = opened.get("/v1/models", headers={"x-request-id": "abc-1"})
    assert given.headers["x-request-id"] == "abc-1"
    bad = opened.get("/v1/models", headers={"x-request-id": "a b\t" + "c" * 200})
    assert len(bad.headers["x-request-id"]) == 32


def test_a_body_that_doesnt_come_is_given_up(serve: Any) -> None:
    with serve(MockEngine(), limits=Limits(body_seconds=0.2)) as running:
        head = "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        with socket.create_connection(("127.0.0.1", running.port), timeout=120) as connection:
            connection.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
            assert b" 408 " in connection.recv(1000)


def test_keys_come_from_a_list_or_a_file(tmp_path: Any) -> None:
    assert read_keys("one, two,") == ["one", "two"]
    file = tmp_path / "keys"
    file.write_text("# of the office\none\n\n two \n")
    assert read_keys(f"@{file}") == ["one", "two"]
    for bad in ("", ",", f"@{tmp_path}/missing", "a b", "schlüssel"):
        with pytest.raises(UsageError, match="--api_key"):
            read_keys(bad)
