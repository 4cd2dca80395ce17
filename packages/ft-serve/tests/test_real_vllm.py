"""A real vLLM as the engine: the suite of all engines, the tokens of transformers, adapters, a crash."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, PreTrainedModel

from ft_core.arguments import ModelArguments, TemplateArguments
from ft_core.engine import GenerationRequest, Sampling
from ft_core.models.loading import load_model
from ft_core.prepare import prepare
from ft_core.tokenizer import Tokenizer
from ft_serve.arguments import VllmArguments
from ft_serve.console import main
from ft_serve.engines.child.process import ChildServer, State
from ft_serve.engines.child.vllm import Model, vllm_launch
from ft_serve.engines.remote.completions import Vllm
from ft_serve.engines.remote.engine import RemoteEngine, Served
from ft_serve.testing import EngineConformance, collect

PYTHON = os.environ.get("FT_VLLM_PYTHON")

pytestmark = [
    pytest.mark.accept,
    pytest.mark.skipif(PYTHON is None, reason="needs vLLM: make test-vllm"),
]

LENGTH = 1024
KEY = "secret"
ARGUMENTS = VllmArguments(max_model_len=LENGTH, max_num_seqs=32, enforce_eager=True)
NEAR = 1e-3
"""Scores of two tokens this close may change places between two ways of computing them."""


@dataclass(frozen=True)
class Real:
    directory: Path
    tokenizer: Tokenizer
    stop: frozenset[int]

    def load(self) -> PreTrainedModel:
        return AutoModelForCausalLM.from_pretrained(self.directory, dtype=torch.float32)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Real:
    prepared = prepare(ModelArguments(model_type="smollm2-135m-instruct"), TemplateArguments())
    directory = tmp_path_factory.mktemp("model") / "smollm2"
    load_model(prepared.directory, dtype=torch.float32).save_pretrained(directory)
    prepared.tokenizer.save(directory)
    return Real(directory, prepared.tokenizer, frozenset(prepared.chosen.template.stop_token_ids))


@pytest.fixture(scope="module")
def adapters(real: Real) -> dict[str, Path]:
    found = {}
    for number, name in enumerate(("one", "two")):
        torch.manual_seed(number)
        config = LoraConfig(r=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
        adapted = get_peft_model(real.load(), config)
        with torch.no_grad():
            for weight_name, weight in adapted.named_parameters():
                if "lora_B" in weight_name:
                    weight.normal_(std=0.05)
        found[name] = real.directory.parent / name
        adapted.save_pretrained(str(found[name]))
    return found


class Borrowed:
    """A server that other tests use as well, so it isn't closed with an engine."""

    def __init__(self, server: ChildServer) -> None:
        self._server = server
        self.reason = ""

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def state(self) -> State:
        return self._server.state

    def close(self) -> None:
        pass


@contextmanager
def running(real: Real, name: str, adapters: dict[str, Path]) -> Iterator[ChildServer]:
    launch = vllm_launch(
        str(PYTHON),
        Model(real.directory, "smol", "float32", adapters),
        ARGUMENTS,
        key=KEY,
        log=real.directory.parent / name / "server.log",
        environment={"VLLM_CPU_KVCACHE_SPACE": "1"},
    )
    server = ChildServer(launch)
    try:
        server.wait_ready()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="module")
def plain(real: Real) -> Iterator[ChildServer]:
    with running(real, "plain", {}) as server:
        yield server


@pytest.fixture(scope="module")
def adapted(real: Real, adapters: dict[str, Path]) -> Iterator[ChildServer]:
    with running(real, "adapted", adapters) as server:
        yield server


def over(server: ChildServer, real: Real, adapters: tuple[str, ...] = ()) -> RemoteEngine:
    dialect = Vllm.beside_adapters() if adapters else Vllm()
    served = Served("smol", adapters, LENGTH)
    return RemoteEngine(Borrowed(server), dialect, served, stop_token_ids=real.stop, key=KEY)


QUESTIONS = (
    "What is the capital of France?",
    "Who are you?",
    "Name three colours.",
    "Write a line about the sea.",
)


def prompt(real: Real, question: str) -> list[int]:
    text = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    return list(real.tokenizer.encode(text))


class TestVllm(EngineConformance):
    @pytest.fixture
    def prompts(self, real: Real) -> list[list[int]]:
        return [prompt(real, question) for question in QUESTIONS]

    @pytest.fixture
    async def engine(self, plain: ChildServer, real: Real) -> AsyncIterator[RemoteEngine]:
        engine = over(plain, real)
        yield engine
        await engine.close()


def assert_greedy(model: PreTrainedModel, asked: list[int], answer: list[int]) -> None:
    """Check that every token is the model's likeliest, or as good as."""
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([[*asked, *answer]])).logits[0, len(asked) - 1 : -1]
    lost = logits.amax(-1) - logits.gather(1, torch.tensor(answer)[:, None])[:, 0]
    assert float(lost.max()) < NEAR


@pytest.mark.parametrize("adapter", [None, "one", "two"])
async def test_answers_are_those_of_transformers(
    adapter: str | None, adapted: ChildServer, real: Real, adapters: dict[str, Path]
) -> None:
    model = real.load()
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapters[adapter]))
    engine = over(adapted, real, ("one", "two"))
    prompts = [prompt(real, question) for question in QUESTIONS]
    greedy = Sampling(max_new_tokens=24)
    answered = await asyncio.gather(
        *(collect(engine, GenerationRequest(ids, greedy, adapter)) for ids in prompts)
    )
    for ids, events in zip(prompts, answered, strict=True):
        answer = [token for event in events for token in event.token_ids]
        assert len(answer) == 24 or answer[-1] in real.stop
        assert_greedy(model, ids, answer)


def test_rows_are_answered_by_name(
    real: Real, adapters: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FT_CACHE", str(tmp_path / "cache"))
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps({"query": q}) + "\n" for q in QUESTIONS))
    answers = {}
    for backend in ("pt", "vllm"):
        file = tmp_path / f"{backend}.jsonl"
        words = [
            *("infer", "--model_id_or_path", real.directory, "--template_type", "chatml"),
            *("--lora_modules", f"one={adapters['one']}", "--vllm_enable_lora", "true"),
            *("--prompts", questions, "--result_file", file, "--infer_backend", backend),
            *("--engine_python", PYTHON, "--dtype", "fp32", "--enforce_eager", "true"),
            *("--max_model_len", LENGTH, "--temperature", 0, "--max_new_tokens", 16),
        ]
        assert main([str(word) for word in words]) == 0
        answers[backend] = [
            json.loads(line)["response"] for line in file.read_text(encoding="utf-8").splitlines()
        ]
    assert answers["vllm"] == answers["pt"]


def test_after_a_crash_of_its_core_it_answers_again(plain: ChildServer, real: Real) -> None:
    engine = over(plain, real)
    request = GenerationRequest(prompt(real, QUESTIONS[0]), Sampling(max_new_tokens=8))
    want = asyncio.run(collect(engine, request))
    log = plain.launch.log.read_text()
    core = int(log.rpartition("(EngineCore pid=")[2].partition(")")[0])
    os.kill(core, signal.SIGKILL)
    plain.wait_started(2, 120)
    plain.wait_ready(600)
    got = asyncio.run(collect(engine, request))
    first, second = ([t for event in events for t in event.token_ids] for events in (want, got))
    assert first == second
