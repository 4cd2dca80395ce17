"""Who a page answers: names, passwords, other sites, routes, sizes."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from ft_core.errors import UsageError
from ft_ui.web.access import Password, allowed_hosts, choose_password, host_name, is_loopback
from ft_ui.web.guard import Guard, Message, Receive, Scope, Send
from ft_ui.web.uploads import is_uploaded, names_other_files


async def page(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that reads its request and answers 200."""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        more = message.get("more_body", False)
    headers = [(b"access-control-allow-origin", b"*"), (b"x-own", b"1")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"page"})


async def ask(
    guard: Guard, path: str = "/", *, method: str = "GET", body: bytes = b"", **headers: str
) -> tuple[int | None, dict[str, str]]:
    """Send a request; return status and headers of the answer."""
    given = {"host": "127.0.0.1:7860", **{k.replace("_", "-"): v for k, v in headers.items()}}
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [(k.encode(), v.encode()) for k, v in given.items()],
    }
    sent: list[Message] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await guard(scope, receive, send)
    if not sent:
        return None, {}
    return sent[0]["status"], {k.decode(): v.decode() for k, v in sent[0]["headers"]}


LOCAL = Guard(page, allowed_hosts("127.0.0.1"))


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:7860", 200),
        ("localhost:7860", 200),
        ("LOCALHOST", 200),
        ("[::1]:7860", 200),
        ("10.1.2.3:7860", 200),  # a number can't be rebound
        ("attacker.example:7860", 421),
        ("localhost.attacker.example", 421),
        ("", 421),
    ],
)
async def test_only_names_of_this_server_are_answered(host: str, status: int) -> None:
    assert (await ask(LOCAL, host=host))[0] == status


@pytest.mark.parametrize(
    ("headers", "path", "method", "status"),
    [
        ({"origin": "http://127.0.0.1:7860"}, "/gradio_api/queue/join", "POST", 200),
        ({}, "/gradio_api/queue/join", "POST", 200),
        ({"origin": "http://attacker.example"}, "/gradio_api/queue/join", "POST", 403),
        ({"origin": "http://127.0.0.1:9999"}, "/gradio_api/queue/join", "POST", 403),
        ({"origin": "null"}, "/gradio_api/queue/join", "POST", 403),
        ({"sec_fetch_site": "cross-site"}, "/gradio_api/queue/data", "GET", 403),
        ({"sec_fetch_site": "cross-site"}, "/config", "GET", 403),
        ({"sec_fetch_site": "cross-site"}, "/", "GET", 200),  # a link to the page
    ],
)
async def test_other_sites_can_only_link_here(
    headers: dict[str, str], path: str, method: str, status: int
) -> None:
    assert (await ask(LOCAL, path, method=method, **headers))[0] == status


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/proxy=http://169.254.169.254/",
        "/gradio_api/vibe-edit",
        "/gradio_api/monitoring/summary",
        "/gradio_api/openapi.json",
        "/gradio_api/run-history/records",
        "/gradio_api/call/delete",
        "/gradio_api/run/predict",
        "/login",
        "/docs",
        "/assets/../config/../../etc/passwd",
        "//config/x",
        "/Gradio_api/proxy=x",
    ],
)
async def test_routes_a_page_does_not_need_are_not_there(path: str) -> None:
    assert (await ask(LOCAL, path))[0] == 404


@pytest.mark.parametrize(
    "path",
    ["/", "/config", "/theme.css", "/assets/index-1.js", "/gradio_api/heartbeat/ab12", "/health"],
)
async def test_routes_a_page_needs_are_there(path: str) -> None:
    assert (await ask(LOCAL, path))[0] == 200


async def test_answers_forbid_other_hosts_frames_and_sharing() -> None:
    _, headers = await ask(LOCAL)
    policy = headers["content-security-policy"]
    assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy
    assert "http:" not in policy and "https:" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in headers and headers["x-own"] == "1"


def basic(text: str) -> str:
    return f"Basic {b64encode(text.encode()).decode()}"


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (basic("me:se:cret"), 200),
        (basic("me:wrong"), 401),
        (basic("me"), 401),
        (basic(""), 401),
        ("Basic !!!", 401),
        ("Bearer se:cret", 401),
        ("", 401),
    ],
)
@pytest.mark.parametrize("path", ["/", "/config", "/health", "/assets/a.js", "/nothing"])
async def test_every_route_wants_the_password(header: str, status: int, path: str) -> None:
    guard = Guard(page, allowed_hosts("127.0.0.1"), Password("me", "se:cret"))
    found, headers = await ask(guard, path, authorization=header)
    assert found == (404 if status == 200 and path == "/nothing" else status)
    assert ("www-authenticate" in headers) is (status == 401)


async def test_what_is_sent_is_bounded() -> None:
    guard = Guard(page, allowed_hosts("127.0.0.1"), largest=10)
    assert (await ask(guard, "/gradio_api/upload", method="POST", content_length="11"))[0] == 413
    assert (await ask(guard, "/gradio_api/upload", method="POST", content_length="x"))[0] == 413
    assert (await ask(guard, "/gradio_api/upload", method="POST", body=b"x" * 10))[0] == 200
    # A length that isn't told: the page sees the sender leave, nothing is answered.
    assert (await ask(guard, "/gradio_api/upload", method="POST", body=b"x" * 11))[0] is None


async def test_a_tunnels_name_is_allowed_once_it_is_known() -> None:
    guard = Guard(page, allowed_hosts("127.0.0.1"))
    assert (await ask(guard, host="abc.tunnel.example"))[0] == 421
    guard.also_allow("abc.tunnel.example")
    assert (await ask(guard, host="abc.tunnel.example"))[0] == 200


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("localhost", True),
        ("::1", True),
        ("[::1]", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("node7", False),
        ("", False),
    ],
)
def test_loopback_addresses(host: str, local: bool) -> None:
    assert is_loopback(host) is local


def test_a_page_others_reach_has_a_password() -> None:
    assert choose_password(None, "127.0.0.1", share=False) == (None, False)
    for host, share in (("0.0.0.0", False), ("127.0.0.1", True)):
        password, generated = choose_password(None, host, share=share)
        assert generated and password is not None and len(password.word) >= 16
    first, second = (choose_password(None, "0.0.0.0", share=False)[0] for _ in range(2))
    assert first != second
    assert choose_password("a:b:c", "127.0.0.1", share=False) == (Password("a", "b:c"), False)


@pytest.mark.parametrize("given", ["a", "a:", ":b", ""])
def test_half_a_password_is_refused(given: str) -> None:
    with pytest.raises(UsageError, match="user:password"):
        choose_password(given, "127.0.0.1", share=False)


@pytest.mark.parametrize(
    ("header", "name"),
    [("a.example:80", "a.example"), ("[::1]:80", "::1"), ("A", "a"), ("[::1", "::1")],
)
def test_host_headers_are_read(header: str, name: str) -> None:
    assert host_name(header) == name


def event(path: str) -> bytes:
    """The body of an event with a file in a field."""
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    return json.dumps({"data": ["hello", None, [file]], "fn_index": 1}).encode()


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "{folder}/../secret.png",
        "{folder}-else/a.png",
        "{folder}/link/secret.png",
        "{folder}",
        "a.png",
        "http://127.0.0.1:1/a.png",
        "https://example.org/a.png",
        "file:///etc/passwd",
        "a\0b",
    ],
)
async def test_an_event_names_only_files_that_were_uploaded(path: str, tmp_path: Path) -> None:
    folder = tmp_path / "uploads"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    guard = Guard(page, allowed_hosts("127.0.0.1"), uploads=folder)
    join = "/gradio_api/queue/join"
    named = path.replace("{folder}", str(folder))
    assert (await ask(guard, join, method="POST", body=event(named)))[0] == 403
    uploaded = event(str(folder / "0a1b" / "a.png"))
    assert (await ask(guard, join, method="POST", body=uploaded))[0] == 200
    assert (await ask(LOCAL, join, method="POST", body=uploaded))[0] == 403  # takes no files


def test_files_are_found_wherever_a_request_names_them(tmp_path: Path) -> None:
    other = {"path": "/etc/passwd", "meta": None}
    for body in (other, [[other]], {"event_data": {"value": other}}, {"data": [{"a": other}]}):
        assert names_other_files(json.dumps(body).encode(), tmp_path)
        assert names_other_files(json.dumps(body).encode("utf-16"), tmp_path)
    assert names_other_files(b"[" * 100_000, tmp_path)
    for harmless in (b"", b"{", b'{"data": ["path", {"path": "/etc/passwd"}]}', b'{"path": 1}'):
        assert not names_other_files(harmless, tmp_path)
    assert is_uploaded(str(tmp_path / "a"), tmp_path) and not is_uploaded("a", tmp_path)
