"""Requests that can't be answered: the status, the form, and that the next one is answered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from ft_core.engine import GenerationRequest
from ft_core.errors import DependencyError, ModelError, UsageError
from ft_serve.testing import MockEngine

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
QUESTION = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def http(running: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=running.url, timeout=60) as client:
        yield client


def post(http: httpx.Client, path: str, body: Any) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return http.post(path, content=content, headers={"content-type": "application/json"})


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """Check an error's form and return it."""
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert list(body) == ["error"]
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert isinstance(body["error"]["message"], str)
    assert isinstance(body["error"]["code"], str)
    assert len(answer.content) < 2000
    return dict(body["error"])


def chat(**fields: Any) -> dict[str, Any]:
    return {"messages": QUESTION, "max_tokens": 2, **fields}


DEEP = "[" * 100_000 + "]" * 100_000
SURROGATE = b'{"prompt": "\\ud800"}'

BAD_JSON = [
    b"",
    b"{",
    b"null",
    b"[]",
    b'"text"',
    b"\xff\xfe{}",
    b'{"prompt": NaN}',
    b'{"prompt": "a", "temperature": Infinity}',
    b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}",
    DEEP.encode(),
    b'{"prompt": "a", "x": ' + DEEP.encode() + b"}",
    SURROGATE,
]


@pytest.mark.parametrize("body", BAD_JSON, ids=range(len(BAD_JSON)))
@pytest.mark.parametrize("path", [CHAT, TEXT, "/v1/embeddings", "/tokenize", "/detokenize"])
def test_bodies_that_are_no_requests(http: httpx.Client, path: str, body: bytes) -> None:
    answer = post(http, path, body)
    assert answer.status_code == 400
    error_of(answer)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": -1}, "temperature"),
        ({"temperature": 1e400}, None),
        ({"temperature": "0"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_k": -2}, "top_k"),
        ({"top_k": 10**30}, "top_k"),
        ({"n": 0}, "n"),
        ({"n": 33}, "n"),
        ({"n": 10**9}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": 10**9}, "max_tokens"),
        ({"seed": 2**63}, "seed"),
        ({"frequency_penalty": 3}, "frequency_penalty"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"logit_bias": {"a": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias"),
        ({"logit_bias": {"1000000": 1}}, None),
        ({"top_logprobs": 1}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"stop": ["x"] * 65}, "stop"),
        ({"stop": ["x" * 1001]}, "stop"),
        ({"stop": [1]}, "stop"),
        ({"stop_token_ids": [10**6]}, None),
        ({"min_p": 2}, "min_p"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": [{"role": "wizard", "content": "a"}]}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "smell"}]}]}, "messages"),
        ({"messages": [{"role": "assistant", "content": "done"}]}, "messages"),
        ({"messages": [{"role": "system", "content": "alone"}]}, "messages"),
        ({"chat_template_kwargs": {"messages": "x"}}, "messages"),
        ({"chat_template_kwargs": {"a": [1]}}, "messages"),
        ({"add_generation_prompt": False}, "messages"),
        ({"continue_final_message": True}, "messages"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_values_that_make_no_sense(
    http: httpx.Client, fields: dict[str, Any], param: str | None, stream: bool
) -> None:
    if "stream_options" in fields and stream:
        return
    answer = post(http, CHAT, chat(**fields, stream=stream))
    assert answer.status_code == 400
    error = error_of(answer)
    if param not in (None, "messages"):
        assert error["param"] == param
        assert param in error["message"]


def test_a_picture_is_refused_by_its_place(http: httpx.Client) -> None:
    picture = {"type": "image_url", "image_url": {"url": "http://169.254.169.254/latest"}}
    content = [{"type": "text", "text": "what is it?"}, picture]
    error = error_of(post(http, CHAT, chat(messages=[{"role": "user", "content": content}])))
    assert error["code"] == "media_not_supported"
    assert "messages[0].content[1]" in error["message"]


def test_a_long_prompt_is_refused_by_its_code(http: httpx.Client, running: Any) -> None:
    long = [{"role": "user", "content": "hello " * 2000}]
    with pytest.raises(openai.BadRequestError) as error:
        running.client().chat.completions.create(model="tiny", messages=long)
    assert error.value.code == "context_length_exceeded"
    for body in ({"prompt": [5] * 513}, {"prompt": [5] * 500, "max_tokens": 13}):
        assert error_of(post(http, TEXT, body))["code"] == "context_length_exceeded"
    assert post(http, TEXT, {"prompt": [5] * 500, "max_tokens": 12}).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": ""},
        {"prompt": []},
        {"prompt": [[]]},
        {"prompt": [[1], []]},
        {"prompt": ["a", ""]},
        {"prompt": [1, "a"]},
        {"prompt": [10**6]},
        {"prompt": [-1]},
        {"prompt": [2**40]},
        {"prompt": [1.5]},
        {"prompt": [True]},
        {"prompt": ["a"] * 257},
        {"prompt": "a", "suffix": "b"},
        {"prompt": "a", "max_tokens": 0},
        {"prompt": "a", "logprobs": 21},
        {"prompt": "a", "logprobs": True},
        {},
    ],
)
def test_prompts_that_are_none(http: httpx.Client, body: dict[str, Any]) -> None:
    answer = post(http, TEXT, body)
    assert answer.status_code == 400
    error_of(answer)


def test_what_isnt_done_here_is_said_so(http: httpx.Client) -> None:
    for field in ({"best_of": 3}, {"suffix": "b"}):
        error = error_of(post(http, TEXT, {"prompt": "a", **field}))
        assert error["param"] == next(iter(field))
    assert post(http, "/v1/embeddings", {"input": "a", "dimensions": 2}).status_code == 400


def test_what_the_engine_cant_do_is_not_worth_another_try(serve: Any) -> None:
    with (
        serve(MockEngine("hello")) as running,
        httpx.Client(base_url=running.url, timeout=120) as http,
    ):
        answer = post(http, CHAT, chat(logprobs=True))
        assert answer.status_code == 501
        assert answer.headers["x-should-retry"] == "false"
        assert error_of(answer)["code"] == "not_supported"


def test_unknown_models_addresses_and_methods(http: httpx.Client) -> None:
    assert error_of(post(http, CHAT, chat(model="gpt-5")))["code"] == "model_not_found"
    nowhere = http.get("/v2/models")
    assert (nowhere.status_code, error_of(nowhere)["code"]) == (404, "not_found")
    method = http.get(CHAT)
    assert (method.status_code, error_of(method)["code"]) == (405, "method_not_allowed")
    assert method.headers["allow"] == "POST"


def test_a_fault_in_a_long_list_is_told_once_and_shortly(http: httpx.Client) -> None:
    answer = post(http, CHAT, chat(messages=[{"role": 1}] * 10_000))
    assert answer.status_code == 400
    error_of(answer)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (UsageError("the prompt is odd"), 400),
        (ModelError("CUDA error at 0x7ffe in /home/me/model.py"), 500),
        (DependencyError("that", "this", "pip install this"), 501),
    ],
)
def test_what_an_engine_says_before_the_first_token(
    serve: Any, stream: bool, failure: Exception, status: int
) -> None:
    def fails(_request: GenerationRequest) -> str:
        raise failure

    with (
        serve(MockEngine(fails)) as running,
        httpx.Client(base_url=running.url, timeout=120) as http,
    ):
        for path, body in ((CHAT, chat()), (TEXT, {"prompt": "a"})):
            answer = post(http, path, {**body, "stream": stream})
            assert answer.status_code == status
            error = error_of(answer)
            assert ("0x7ffe" in error["message"]) is False
        assert running.front.in_flight == 0


def test_what_an_engine_says_later_ends_the_stream(serve: Any) -> None:
    with serve(MockEngine("hello", crash_after=3)) as running, running.client() as client:
        got = ""
        with pytest.raises(openai.APIError) as error:
            for chunk in client.chat.completions.create(
                model="tiny", messages=QUESTION, stream=True
            ):
                got += chunk.choices[0].delta.content or ""
        assert got == "hel"
        assert error.value.code == "engine_failed"
        with pytest.raises(openai.InternalServerError) as later:
            client.chat.completions.create(model="tiny", messages=QUESTION)
        assert later.value.status_code == 503
        assert later.value.response.headers["retry-after"]
        assert httpx.get(f"{running.url}/health/ready", timeout=120).status_code == 503
        assert httpx.get(f"{running.url}/health/live", timeout=120).status_code == 200


def test_a_fault_of_the_server_tells_no_more_than_an_id(serve: Any, caplog: Any) -> None:
    def fails(_request: GenerationRequest) -> str:
        raise RuntimeError("secret of the server")

    with (
        serve(MockEngine(fails)) as running,
        httpx.Client(base_url=running.url, timeout=120) as http,
    ):
        answer = post(http, CHAT, chat())
        assert answer.status_code == 500
        assert "secret" not in answer.text
        assert answer.headers["x-request-id"] in error_of(answer)["message"]
        assert "secret of the server" in caplog.text


def test_a_server_without_its_model_says_when_to_come_back(serve: Any) -> None:
    with serve(None) as running, httpx.Client(base_url=running.url, timeout=120) as http:
        for answer in (post(http, CHAT, chat()), http.get("/v1/models")):
            assert answer.status_code == 503
            assert answer.headers["retry-after"]
            assert error_of(answer)["code"] == "loading"
        assert http.get("/health/ready").json() == {"status": "loading"}
        assert http.get("/health/live").status_code == 200
