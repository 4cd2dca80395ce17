"""Engines over HTTP: the suite of all engines through servers that speak as vLLM, LMDeploy and others do."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from ft_core.engine import Capability, Constraint, Engine, GenerationRequest, Sampling
from ft_core.errors import FtError, ModelError, UsageError
from ft_core.testing import tiny_model
from ft_core.tokenizer import Tokenizer
from ft_serve.engines.pt import PtEngine
from ft_serve.engines.remote.completions import OpenAi, Vllm
from ft_serve.engines.remote.dialect import Dialect
from ft_serve.engines.remote.engine import Elsewhere, RemoteEngine, Served, read_served
from ft_serve.engines.remote.lmdeploy import LmDeploy
from ft_serve.testing import EngineConformance, collect, complete
from ft_serve.testing_server import Event, Spelled, StandIn

END = 2
PROMPTS = [[5, 6, 7, 8], [40, 41, 9], [100, 3, 77, 12, 13], [21, 22]]
LENGTH = 512


class FromEngine:
    """Answers of ft's own engine, for a server that speaks as another."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def close(self) -> None:
        self.run(self._engine.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def events(self, body: Mapping[str, Any]) -> Iterator[Event]:
        adapter = body["model"] if body.get("model") in self._engine.adapters else None
        ids = body.get("prompt") or body.get("input_ids") or []
        stream = self._engine.generate(GenerationRequest(ids, sampling_of(body), adapter))
        try:
            while True:
                event = self.run(anext(stream))
                yield {
                    "text": event.text,
                    "token_ids": list(event.token_ids),
                    "finish_reason": event.finish_reason,
                    "stop_reason": event.stop_reason,
                    "logprobs": [
                        (x.token_id, x.logprob, list(x.top) or [(x.token_id, x.logprob)])
                        for x in event.logprobs
                    ],
                }
                if event.finish_reason is not None:
                    return
        except FtError as error:
            raise ValueError(str(error)) from error
        finally:
            self.run(stream.aclose())  # type: ignore[attr-defined]

    def scores(self, token_ids: Sequence[int], top: int) -> list[dict[int, float] | None]:
        (scores,) = self.run(self._engine.score([token_ids], top=top))
        rest = enumerate(zip(token_ids[1:], scores.logprobs[1:], strict=True), 1)
        return [None, *({**dict(scores.top[i] if top else ()), t: v} for i, (t, v) in rest)]


def sampling_of(body: Mapping[str, Any]) -> Sampling:
    """Read what the server was asked for; a server without stop tokens of a template has its own."""
    own = () if body.get("ignore_eos") or "stop_token_ids" in body else (END,)
    structured = body.get("structured_outputs")
    constraint = None
    if structured is not None:
        ((kind, value),) = structured.items()
        named = {"regex": "regex", "json_object": "json", "json": "json_schema"}[kind]
        text = value if kind == "regex" else json.dumps(value) if kind == "json" else ""
        constraint = Constraint(named, text)  # type: ignore[arg-type]
    logprobs = body.get("logprobs")
    return Sampling(
        max_new_tokens=body["max_tokens"],
        temperature=body["temperature"],
        top_k=body.get("top_k", 0),
        top_p=body["top_p"],
        repetition_penalty=body.get("repetition_penalty", 1.0),
        seed=body.get("seed"),
        stop=tuple(body.get("stop") or ()),
        stop_token_ids=(*(body.get("stop_token_ids") or ()), *own),
        logprobs=body.get("top_logprobs_num") if body.get("return_logprob") else logprobs,
        constraint=constraint,
    )


@dataclass(frozen=True)
class Tiny:
    directory: Path
    tokenizer: Tokenizer

    def engine(self) -> PtEngine:
        model = AutoModelForCausalLM.from_pretrained(self.directory)
        with torch.no_grad():
            for weight in model.parameters():
                if weight.dim() > 1:
                    weight.mul_(6)  # random answers that differ, with clear margins
        return PtEngine(model, self.tokenizer, stop_token_ids=[])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    directory = tiny_model(tmp_path_factory.mktemp("tiny"), "llama")
    return Tiny(directory, Tokenizer.from_directory(directory))


@pytest.fixture(scope="module")
def answers(tiny: Tiny) -> Iterator[FromEngine]:
    behind = FromEngine(tiny.engine())
    yield behind
    behind.close()


@contextmanager
def served(server: StandIn) -> Iterator[StandIn]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def remote(
    server: StandIn, dialect: Dialect, *, adapters: tuple[str, ...] = (), key: str | None = None
) -> RemoteEngine:
    offered = Served("model", adapters, LENGTH)
    return RemoteEngine(Elsewhere(server.url), dialect, offered, stop_token_ids=[END], key=key)


class OverHttp(EngineConformance):
    """The suite with a server of this module."""

    @pytest.fixture
    def prompts(self) -> list[list[int]]:
        return PROMPTS

    @pytest.fixture
    async def engine(self, answers: FromEngine, tiny: Tiny) -> AsyncIterator[RemoteEngine]:
        with served(StandIn(answers)) as server:
            engine = remote(server, self.dialect(tiny))
            yield engine
            await engine.close()

    def dialect(self, tiny: Tiny) -> Dialect:
        raise NotImplementedError


class TestVllm(OverHttp):
    def dialect(self, tiny: Tiny) -> Dialect:
        return Vllm()


class TestLmdeploy(OverHttp):
    # Its requests have no seed.
    test_a_seed_repeats_an_answer_whatever_else_runs = None  # type: ignore[assignment]

    def dialect(self, tiny: Tiny) -> Dialect:
        return LmDeploy()


class TestOthers(OverHttp):
    def dialect(self, tiny: Tiny) -> Dialect:
        return OpenAi()


GREEDY = Sampling(max_new_tokens=12)


@pytest.fixture
def spelling() -> Iterator[StandIn]:
    with served(StandIn(Spelled(), adapters=["one", "two"], key="secret")) as server:
        yield server


async def test_answers_are_those_of_the_engine_behind(answers: FromEngine, tiny: Tiny) -> None:
    behind = tiny.engine()
    want = [await collect(behind, GenerationRequest(p, GREEDY)) for p in PROMPTS]
    await behind.close()
    with served(StandIn(answers)) as server:
        for dialect in (Vllm(), LmDeploy()):
            engine = remote(server, dialect)
            for prompt, events in zip(PROMPTS, want, strict=True):
                got = await collect(engine, GenerationRequest(prompt, GREEDY))
                ids = [token for event in got for token in event.token_ids]
                wanted = [token for event in events for token in event.token_ids]
                wanted = wanted[: wanted.index(END) + 1] if END in wanted else wanted
                assert ids == wanted
            await engine.close()


async def test_nothing_of_the_servers_own_defaults_is_left(spelling: StandIn) -> None:
    engine = remote(spelling, Vllm(), adapters=("one",), key="secret")
    sampling = replace(
        GREEDY, seed=3, stop=("x",), stop_token_ids=(9,), logit_bias={4: -1.0}, min_p=0.1
    )
    await collect(engine, GenerationRequest([1, 2], sampling, "one"))
    (body,) = spelling.requests
    expected = {
        "model": "one",
        "prompt": [1, 2],
        "max_tokens": 12,
        "temperature": 0.0,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.1,
        "min_tokens": 0,
        "repetition_penalty": 1.0,
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "seed": 3,
        "stop": ["x"],
        "stop_token_ids": [END, 9],
        "ignore_eos": True,
        "logit_bias": {"4": -1.0},
        "skip_special_tokens": True,
        "return_token_ids": True,
        "stream": True,
    }
    assert body == expected


async def test_an_answer_fits_the_models_length(spelling: StandIn) -> None:
    engine = remote(spelling, Vllm(), key="secret")
    prompt = [1] * (LENGTH - 3)
    events = await collect(engine, GenerationRequest(prompt, Sampling(max_new_tokens=None)))
    assert (events[-1].generated_tokens, events[-1].finish_reason) == (3, "length")
    with pytest.raises(UsageError, match=f"{LENGTH} tokens and the model takes {LENGTH}"):
        await collect(engine, GenerationRequest([1] * LENGTH))


@pytest.mark.parametrize(
    ("dialect", "sampling", "part"),
    [
        (Vllm(), Sampling(num_beams=2), "num_beams 2: vLLM can't"),
        (LmDeploy(), Sampling(constraint=Constraint("json")), "LMDeploy can't"),
        (LmDeploy(), Sampling(frequency_penalty=1.0), "frequency_penalty 1.0"),
        (LmDeploy(), Sampling(ignore_eos=True, stop_token_ids=(7,)), "stop_token_ids"),
        (OpenAi(), Sampling(logprobs=2), "logprobs 2"),
        (Vllm(), Sampling(top_p=0.0), "top_p 0.0: give a value above 0"),
    ],
)
async def test_what_a_server_cannot_do_is_refused(
    spelling: StandIn, dialect: Dialect, sampling: Sampling, part: str
) -> None:
    engine = remote(spelling, dialect, key="secret")
    with pytest.raises(UsageError, match=part):
        await collect(engine, GenerationRequest([1, 2], sampling))
    assert not spelling.requests


async def test_a_wrong_key_and_a_missing_server_are_named(spelling: StandIn) -> None:
    with pytest.raises(UsageError, match="FT_ENGINE_KEY"):
        await complete(remote(spelling, Vllm(), key="wrong"), [1], GREEDY)
    gone = RemoteEngine(
        Elsewhere("http://127.0.0.1:9"), Vllm(), Served("model"), stop_token_ids=[END]
    )
    with pytest.raises(ModelError, match=r"127\.0\.0\.1:9.*doesn't answer"):
        await complete(gone, [1], GREEDY)
    with pytest.raises(ModelError, match="embeddings"):
        await gone.embed([[1]])


class Breaking(Spelled):
    """Ends the connection after three letters, or says that there is an error."""

    def __init__(self, error: object = None) -> None:
        self._error = error

    def events(self, body: Mapping[str, Any]) -> Iterator[Event]:
        for number, event in enumerate(super().events(body)):
            if number == 3 and self._error is None:
                raise BrokenPipeError
            yield {**event, "error": self._error} if number == 3 else event


async def test_an_answer_that_breaks_off_is_an_error() -> None:
    with served(StandIn(Breaking())) as server:
        engine = remote(server, Vllm())
        texts = []
        with pytest.raises(ModelError, match="doesn't answer"):
            async for event in engine.generate(GenerationRequest([1], GREEDY)):
                texts.append(event.text)
        assert len(texts) == 3
        assert engine.ready


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": "a wrong schema", "code": 400}, UsageError),
        ({"message": "out of memory", "code": 500}, ModelError),
        ("it stopped", ModelError),
    ],
)
async def test_an_error_in_the_middle_of_an_answer_is_told(
    error: object, kind: type[FtError]
) -> None:
    with served(StandIn(Breaking(error))) as server:
        said = error["message"] if isinstance(error, dict) else str(error)
        with pytest.raises(kind, match=said):
            await complete(remote(server, Vllm()), [1], GREEDY)


def test_engines_work_in_one_event_loop_after_another(spelling: StandIn) -> None:
    engine = remote(spelling, Vllm(), key="secret")
    first, second = (asyncio.run(complete(engine, [1, 2], GREEDY)) for _ in range(2))
    assert first == second
    asyncio.run(engine.close())


CARDS = [
    {"id": "base", "owned_by": "vllm", "max_model_len": 2048},
    {"id": "one", "owned_by": "vllm", "parent": "base"},
]


def test_what_a_server_offers_is_read() -> None:
    assert read_served({"data": CARDS}, None) == (Served("base", ("one",), 2048), "vllm")
    assert read_served({"data": CARDS}, "one") == (Served("one", (), None), "vllm")
    with pytest.raises(UsageError, match="no such model, but: base, one"):
        read_served({"data": CARDS}, "other")
    two = [{"id": "a"}, {"id": "b"}]
    with pytest.raises(UsageError, match=r"--engine_model: say which .*: a, b"):
        read_served({"data": two}, None)


async def test_capabilities_are_the_servers(spelling: StandIn) -> None:
    assert Capability.ADAPTERS in remote(spelling, Vllm(), adapters=("one",)).capabilities
    assert Capability.SCORE not in remote(spelling, LmDeploy()).capabilities
    with pytest.raises(ModelError, match="can't score"):
        await remote(spelling, OpenAi()).score([[1, 2]])
