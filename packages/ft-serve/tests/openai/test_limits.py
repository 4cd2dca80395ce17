"""What many clients, slow ones and those that leave may take of the server."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI

from ft_core.engine import GenerationEvent, GenerationRequest
from ft_serve.openai.limits import Limits
from ft_serve.testing import MockEngine

QUESTION: list[Any] = [{"role": "user", "content": "hello"}]


class Patient(MockEngine):
    """Begins an answer and then waits until it is told to go on."""

    def __init__(self, *, begins: bool = True) -> None:
        super().__init__("hello")
        self.begins = begins
        self.go_on = threading.Event()

    async def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationEvent]:
        """Give one event, then nothing until ``go_on`` is set."""
        async with aclosing(super().generate(request)) as events:
            if self.begins:
                yield await anext(events)
            while not self.go_on.is_set():
                await asyncio.sleep(0.005)
            async for event in events:
                yield event


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that must come about."""
    async with asyncio.timeout(120):
        while not condition():
            await asyncio.sleep(0.005)


def ask(client: AsyncOpenAI, **settings: Any) -> Any:
    return client.chat.completions.create(model="tiny", messages=QUESTION, **settings)


def async_client(running: Any, **settings: Any) -> AsyncOpenAI:
    return AsyncOpenAI(
        base_url=f"{running.url}/v1", api_key="none", **{"max_retries": 0, **settings}
    )


async def test_more_than_it_takes_on_is_put_off(serve: Any) -> None:
    engine = Patient()
    with serve(engine, limits=Limits(requests=3)) as running:
        async with async_client(running) as client:
            first = [asyncio.create_task(ask(client)) for _ in range(3)]
            await until(lambda: running.front.answering.running == 3)
            with pytest.raises(openai.InternalServerError) as error:
                await ask(client)
            assert error.value.status_code == 503
            assert error.value.code == "overloaded"
            assert float(error.value.response.headers["retry-after"]) > 0
            with pytest.raises(openai.BadRequestError):
                await ask(client, n=4)
            engine.go_on.set()
            answers = await asyncio.gather(*first)
            assert {answer.choices[0].message.content for answer in answers} == {"hello"}
            assert (await ask(client)).choices[0].message.content == "hello"
        metrics = httpx.get(f"{running.url}/metrics", timeout=120).text
        assert 'ft:admission_rejections_total{reason="queue_full"} 1.0' in metrics
        assert "ft:num_requests_running 0.0" in metrics


async def test_prompts_that_wait_are_bounded_by_their_tokens(serve: Any) -> None:
    engine = Patient(begins=False)
    with serve(engine, limits=Limits(queued_tokens=60)) as running:
        async with async_client(running) as client:
            waiting = asyncio.create_task(ask(client))
            await until(lambda: running.front.answering.waiting == 1)
            with pytest.raises(openai.InternalServerError) as error:
                await client.completions.create(model="tiny", prompt=[5] * 60)
            assert error.value.status_code == 503
            engine.go_on.set()
            await waiting
            longer = await client.completions.create(model="tiny", prompt=[5] * 100)
            assert longer.choices[0].text == "hello"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("begins", [True, False])
async def test_answers_end_once_nobody_waits(
    serve: Any, stream: bool, n: int, begins: bool
) -> None:
    engine = Patient(begins=begins)
    body = json.dumps({"messages": QUESTION, "stream": stream, "n": n}).encode()
    with serve(engine) as running:
        with socket.create_connection(("127.0.0.1", running.port)) as connection:
            head = "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json"
            connection.sendall(f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            answering = running.front.answering
            await until(lambda: answering.running + answering.waiting == n)
            if stream and begins:
                assert b"200 OK" in connection.recv(65536)
        await until(lambda: answering.running + answering.waiting == running.front.in_flight == 0)
        assert answering.queued_tokens == 0
        await until(lambda: engine.active == 0)
        if begins:
            assert engine.cancelled == n


@pytest.mark.parametrize("stream", [True, False])
async def test_a_deadline_ends_an_answer(serve: Any, stream: bool) -> None:
    with serve(Patient(), limits=Limits(seconds=0.3)) as running:
        async with async_client(running) as client:
            with pytest.raises(openai.APIError) as error:
                answer = await ask(client, stream=stream)
                if stream:
                    [chunk async for chunk in answer]
            assert error.value.code == "deadline_exceeded"
            if not stream:
                assert error.value.response.status_code == 504  # type: ignore[attr-defined]
                assert error.value.response.headers["x-should-retry"] == "false"  # type: ignore[attr-defined]
        await until(lambda: running.front.in_flight == 0)


async def test_a_reader_that_doesnt_read_is_left(serve: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("ft_serve.openai.streaming.SLOW_READER_SECONDS", 0.1)
    engine = MockEngine("x" * 40_000)
    body = json.dumps({"messages": QUESTION, "stream": True, "max_tokens": 40_000}).encode()
    with serve(engine, limits=Limits(seconds=3)) as running:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", running.port))
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json"
        connection.sendall(f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        await until(lambda: engine.active == 1)
        async with async_client(running) as client:  # others aren't kept waiting
            assert (await ask(client, max_tokens=5)).choices[0].message.content == "xxxxx"
        await until(lambda: engine.active == running.front.in_flight == 0)
        connection.close()


async def test_stopping_waits_for_answers_and_takes_no_more(serve: Any) -> None:
    engine = Patient()
    with serve(engine, limits=Limits(drain_seconds=60)) as running:
        async with async_client(running) as client:
            under_way = asyncio.create_task(ask(client))
            await until(lambda: running.front.answering.running == 1)
            drained = threading.Thread(target=drain, args=(running,))
            drained.start()
            await until(lambda: running.front.state == "draining")
            assert (
                await asyncio.to_thread(httpx.get, f"{running.url}/health/ready", timeout=120)
            ).json() == {"status": "draining"}
            with pytest.raises(openai.InternalServerError) as error:
                await ask(client)
            assert (error.value.status_code, error.value.code) == (503, "draining")
            engine.go_on.set()
            assert (await under_way).choices[0].message.content == "hello"
            await asyncio.to_thread(drained.join)


async def test_stopping_ends_what_takes_too_long(serve: Any) -> None:
    with serve(Patient(), limits=Limits(drain_seconds=0.1)) as running:
        async with async_client(running) as client:
            stream = await ask(client, stream=True)
            drained = threading.Thread(target=drain, args=(running,))
            drained.start()
            with pytest.raises(openai.APIError) as error:
                [chunk async for chunk in stream]
            assert error.value.code == "draining"
            await asyncio.to_thread(drained.join)
        assert running.front.in_flight == 0


def drain(running: Any) -> None:
    running.server.drain()


async def test_a_silent_stream_shows_that_it_lives(serve: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("ft_serve.openai.streaming.KEEP_ALIVE_SECONDS", 0.05)
    engine = Patient()
    with serve(engine) as running:
        lines = []
        body = {"messages": QUESTION, "stream": True}
        async with (
            httpx.AsyncClient(base_url=running.url, timeout=120) as http,
            http.stream("POST", "/v1/chat/completions", json=body) as answer,
        ):
            async for line in answer.aiter_lines():
                lines.append(line)
                if line.startswith(":"):
                    engine.go_on.set()
        assert ": keep-alive" in lines
        assert lines[-2:] == ["data: [DONE]", ""]


async def test_measurements_add_up(serve: Any) -> None:
    with serve(MockEngine("hello")) as running:
        async with async_client(running) as client:
            await asyncio.gather(*(ask(client, n=2) for _ in range(5)))
        text = httpx.get(f"{running.url}/metrics", timeout=120).text
        model = 'model_name="tiny"'
        assert f"ft:generation_tokens_total{{{model}}} 50.0" in text
        assert f'ft:request_success_total{{finished_reason="stop",{model}}} 10.0' in text
        assert f"ft:time_to_first_token_seconds_count{{{model}}} 10.0" in text
        assert f"ft:inter_token_latency_seconds_count{{{model}}} 40.0" in text
        assert 'route="/v1/chat/completions",status="200"' in text
        assert "ft:num_requests_waiting 0.0" in text
