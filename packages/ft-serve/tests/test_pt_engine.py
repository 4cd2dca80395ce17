"""The engine against transformers' ``generate`` for each request alone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, MambaConfig, MambaForCausalLM, PreTrainedModel

from ft_core.engine import GenerationRequest, Sampling
from ft_core.errors import ModelError, UsageError
from ft_core.testing import ARCHITECTURES, VOCABULARY_SIZE, tiny_model
from ft_core.tokenizer import Tokenizer
from ft_serve.engines.pt import PtEngine
from ft_serve.engines.pt.batch import can_batch
from ft_serve.testing import EngineConformance, collect, complete

END = 2
"""The tiny tokenizer's ``<|im_end|>``."""


@dataclass(frozen=True)
class Loaded:
    model: PreTrainedModel
    tokenizer: Tokenizer

    @asynccontextmanager
    async def engine(self, **settings: Any) -> AsyncIterator[PtEngine]:
        engine = PtEngine(self.model, self.tokenizer, stop_token_ids=[END], **settings)
        try:
            yield engine
        finally:
            await engine.close()

    def reference(self, prompt: list[int], new_tokens: int = 24, **settings: Any) -> list[int]:
        """What ``generate`` answers to this prompt alone."""
        with torch.inference_mode():
            output = self.model.generate(
                torch.tensor([prompt]),
                attention_mask=torch.ones((1, len(prompt)), dtype=torch.long),
                max_new_tokens=new_tokens,
                eos_token_id=END,
                pad_token_id=0,
                do_sample=False,
                **settings,
            )
        return output[0, len(prompt) :].tolist()


def load(
    directory: Path, architecture: str = "llama", attention: str = "sdpa", **config: Any
) -> Loaded:
    tiny_model(directory, architecture, **config)
    model = AutoModelForCausalLM.from_pretrained(directory, attn_implementation=attention)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(6)  # random answers that differ, with clear margins
    return Loaded(model, Tokenizer.from_directory(directory))


def make_prompts(count: int = 10, seed: int = 0) -> list[list[int]]:
    source = random.Random(seed)
    lengths = [1, 3, 40, 7, 20, 33, 70, 2, 5, 90]
    return [
        [source.randrange(3, VOCABULARY_SIZE) for _ in range(lengths[i % len(lengths)])]
        for i in range(count)
    ]


async def tokens(engine: PtEngine, prompt: list[int], sampling: Sampling) -> list[int]:
    events = await collect(engine, GenerationRequest(prompt, sampling))
    return [token for event in events for token in event.token_ids]


GREEDY = Sampling(max_new_tokens=24)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return load(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def mamba(llama: Loaded) -> Loaded:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = MambaConfig(
            vocab_size=VOCABULARY_SIZE, hidden_size=32, num_hidden_layers=2, state_size=4
        )
        model = MambaForCausalLM(config)
    return Loaded(model, llama.tokenizer)


class TestPtEngine(EngineConformance):
    @pytest.fixture
    async def engine(self, llama: Loaded) -> AsyncIterator[PtEngine]:
        async with llama.engine(max_rows=3) as engine:
            yield engine

    @pytest.fixture
    def prompts(self) -> list[list[int]]:
        return make_prompts(5)


class TestPtEngineAlone(EngineConformance):
    """A model whose rows can't share a cache."""

    @pytest.fixture
    async def engine(self, mamba: Loaded) -> AsyncIterator[PtEngine]:
        assert not can_batch(mamba.model)
        async with mamba.engine() as engine:
            yield engine

    @pytest.fixture
    def prompts(self) -> list[list[int]]:
        return make_prompts(5)


VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in ARCHITECTURES},
    "mistral with a window": ("mistral", {"sliding_window": 12}),
    "mixtral with a window": ("mixtral", {"sliding_window": 12}),
    "qwen2 with eager attention": ("qwen2", {"attention": "eager"}),
}


@pytest.mark.parametrize("variant", VARIANTS)
async def test_greedy_answers_equal_generate(variant: str, tmp_path: Path) -> None:
    architecture, config = VARIANTS[variant]
    loaded = load(tmp_path, architecture, **config)
    assert can_batch(loaded.model)
    prompts = make_prompts()
    want = [loaded.reference(prompt) for prompt in prompts]
    async with loaded.engine(max_rows=4, prefill_tokens=32) as engine:
        got = await asyncio.gather(*(tokens(engine, prompt, GREEDY) for prompt in prompts))
        assert got == want
        # Now what the engine kept of the prompts is used, each alone.
        assert [await tokens(engine, prompt, GREEDY) for prompt in prompts[-3:]] == want[-3:]
    async with loaded.engine(max_cached_tokens=200, reused_tokens=0) as engine:
        got = await asyncio.gather(*(tokens(engine, prompt, GREEDY) for prompt in prompts))
    assert got == want  # though answers were sent back for want of room
    assert len({tuple(answer) for answer in want}) > 5


async def test_answers_survive_being_sent_back_for_want_of_room(llama: Loaded) -> None:
    prompts = make_prompts()
    async with llama.engine(max_cached_tokens=200) as engine:
        got = await asyncio.gather(*(tokens(engine, prompt, GREEDY) for prompt in prompts))
    assert got == [llama.reference(prompt) for prompt in prompts]


async def test_late_arrivals_and_leavers_change_no_answer(llama: Loaded) -> None:
    prompts = make_prompts(20)
    source = random.Random(1)
    readers = [source.choice([None, 1, 5]) for _ in prompts]
    waits = [source.randrange(12) for _ in prompts]

    async def read(engine: PtEngine, index: int) -> list[int] | None:
        for _ in range(waits[index]):
            await asyncio.sleep(0)
        stream = engine.generate(GenerationRequest(prompts[index], GREEDY))
        answer: list[int] = []
        count = 0
        async for event in stream:
            answer += event.token_ids
            count += 1
            if count == readers[index]:
                await stream.aclose()
                return None
        return answer

    async with llama.engine(max_rows=6, prefill_tokens=40) as engine:
        got = await asyncio.gather(*(read(engine, index) for index in range(len(prompts))))
        for answer, prompt in zip(got, prompts, strict=True):
            assert answer is None or answer == llama.reference(prompt)
        assert sum(answer is not None for answer in got) > 3
        assert await tokens(engine, prompts[0], GREEDY) == llama.reference(prompts[0])


async def test_repetition_penalty_equals_generate(llama: Loaded) -> None:
    prompts = make_prompts(4)
    sampling = replace(GREEDY, repetition_penalty=1.4)
    async with llama.engine() as engine:
        got = await asyncio.gather(*(tokens(engine, prompt, sampling) for prompt in prompts))
    want = [llama.reference(prompt, repetition_penalty=1.4) for prompt in prompts]
    assert got == want
    assert want != [llama.reference(prompt) for prompt in prompts]


async def test_beams_equal_generate(llama: Loaded) -> None:
    prompts = make_prompts(3)
    sampling = replace(GREEDY, num_beams=3)
    async with llama.engine() as engine:
        got, plain = await asyncio.gather(
            asyncio.gather(*(tokens(engine, prompt, sampling) for prompt in prompts)),
            tokens(engine, prompts[0], GREEDY),
        )
    assert got == [llama.reference(prompt, num_beams=3) for prompt in prompts]
    assert plain == llama.reference(prompts[0])


async def test_sampled_beams_repeat_with_their_seed(llama: Loaded) -> None:
    sampling = replace(GREEDY, num_beams=2, temperature=1.0, seed=3)
    async with llama.engine() as engine:
        first = await tokens(engine, make_prompts(1)[0], sampling)
        assert await tokens(engine, make_prompts(1)[0], sampling) == first


async def test_seeds_decide_sampled_answers(llama: Loaded) -> None:
    prompt = make_prompts(1)[0]
    sampling = Sampling(max_new_tokens=24, temperature=1.0, top_k=50, top_p=0.9)
    async with llama.engine() as engine:
        seeded = [replace(sampling, seed=seed) for seed in (1, 1, 2, 3)]
        got = await asyncio.gather(*(tokens(engine, prompt, item) for item in seeded))
        unseeded = await asyncio.gather(*(tokens(engine, prompt, sampling) for _ in range(3)))
    assert got[0] == got[1]
    assert len({tuple(answer) for answer in got}) == 3
    assert len({tuple(answer) for answer in unseeded}) == 3


async def test_a_stop_token_ends_the_answer_and_is_no_text(llama: Loaded) -> None:
    prompt = make_prompts(1)[0]
    free = llama.reference(prompt)
    place = next(i for i in range(3, len(free)) if free[i] not in free[:i])
    engine = PtEngine(llama.model, llama.tokenizer, stop_token_ids=[free[place], END])
    events = await collect(engine, GenerationRequest(prompt, GREEDY))
    await engine.close()
    assert [t for event in events for t in event.token_ids] == free[: place + 1]
    assert events[-1].finish_reason == "stop"
    text = "".join(event.text for event in events)
    assert text == llama.tokenizer.decode(free[:place], skip_special_tokens=True)


async def test_the_models_length_bounds_the_answer(tmp_path: Path) -> None:
    loaded = load(tmp_path, max_position_embeddings=32)
    async with loaded.engine() as engine:
        events = await collect(engine, GenerationRequest(list(range(3, 33)), Sampling()))
        assert (events[-1].generated_tokens, events[-1].finish_reason) == (2, "length")
        with pytest.raises(UsageError, match="32 tokens and the model takes 32"):
            await complete(engine, list(range(3, 35)), GREEDY)
        unlimited = Sampling(max_new_tokens=None)
        events = await collect(engine, GenerationRequest([5], unlimited))
        assert events[-1].generated_tokens <= 31
        with pytest.raises(UsageError, match="takes 32"):
            await engine.score([list(range(34))])
        (scores,) = await engine.score([list(range(33))])  # the last token is not read
        assert len(scores.logprobs) == 33


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens 0"),
        ({"temperature": -1.0}, "temperature -1.0"),
        ({"temperature": float("nan")}, "temperature nan"),
        ({"top_p": 0.0}, "top_p 0.0"),
        ({"top_k": -1}, "top_k -1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty 0.0"),
        ({"num_beams": 0}, "num_beams 0"),
    ],
)
async def test_senseless_sampling_is_refused(
    llama: Loaded, change: dict[str, Any], name: str
) -> None:
    async with llama.engine() as engine:
        with pytest.raises(UsageError, match=name):
            await complete(engine, [5], replace(GREEDY, **change))


async def test_unknown_ids_and_adapters_are_refused(llama: Loaded) -> None:
    async with llama.engine() as engine:
        with pytest.raises(UsageError, match=f"token id {VOCABULARY_SIZE} is not in"):
            await complete(engine, [VOCABULARY_SIZE], GREEDY)
        with pytest.raises(UsageError, match="adapter 'other'"):
            await collect(engine, GenerationRequest([5], GREEDY, adapter="other"))


async def test_scores_equal_a_plain_forward(llama: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ft_serve.engines.pt.scoring.FORWARD_TOKENS", 64)
    monkeypatch.setattr("ft_serve.engines.pt.scoring.SOFTMAX_TOKENS", 5)
    sequences = make_prompts()
    # Of these only the last token differs, so they go through the model once.
    sequences += [[*sequences[0][:-1], end] for end in (7, 9, 7)] + [[5]]
    async with llama.engine() as engine:
        got = await engine.score(sequences)
    for sequence, scores in zip(sequences, got, strict=True):
        ids = torch.tensor([sequence])
        with torch.inference_mode():
            table = llama.model(ids).logits[0].log_softmax(-1)
        want = [0.0] + [table[i - 1, sequence[i]].item() for i in range(1, len(sequence))]
        assert scores.logprobs == pytest.approx(want, abs=1e-4)


class _Failing:
    """Makes forward passes fail whose input ids fulfil a condition."""

    def __init__(self, model: PreTrainedModel, condition: Any) -> None:
        self.calls = 0
        self._condition = condition
        self._handle = model.register_forward_pre_hook(self._check, with_kwargs=True)

    def _check(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        self.calls += 1
        if self._condition(kwargs["input_ids"]):
            raise RuntimeError("out of luck")

    def remove(self) -> None:
        self._handle.remove()


@pytest.fixture
def fail_when(llama: Loaded) -> Iterator[Any]:
    installed: list[_Failing] = []

    def install(condition: Any) -> _Failing:
        installed.append(_Failing(llama.model, condition))
        return installed[-1]

    yield install
    for item in installed:
        item.remove()


async def test_a_prompt_that_breaks_the_model_fails_alone(llama: Loaded, fail_when: Any) -> None:
    poison = 383
    prompts = [[3 if t == poison else t for t in prompt] for prompt in make_prompts(6)]
    want = [llama.reference(prompt) for prompt in prompts]
    fail_when(lambda ids: ids.shape[1] > 1 and bool((ids == poison).any()))
    async with llama.engine() as engine:
        results = await asyncio.gather(
            *(tokens(engine, prompt, GREEDY) for prompt in prompts[:3]),
            tokens(engine, [5, poison, 6], GREEDY),
            *(tokens(engine, prompt, GREEDY) for prompt in prompts[3:]),
            return_exceptions=True,
        )
    assert isinstance(failure := results.pop(3), ModelError)
    assert "out of luck" in str(failure)
    assert results == want


async def test_a_failing_step_is_run_again_with_fewer_rows(llama: Loaded, fail_when: Any) -> None:
    prompts = make_prompts(6)
    want = [llama.reference(prompt) for prompt in prompts]
    failing = fail_when(lambda ids: ids.shape[1] == 1 and ids.shape[0] > 2)
    async with llama.engine() as engine:
        got = await asyncio.gather(*(tokens(engine, prompt, GREEDY) for prompt in prompts))
    assert got == want
    assert failing.calls


async def test_numbers_that_are_not_finite_fail_that_request_only(llama: Loaded) -> None:
    embedding = llama.model.get_input_embeddings()
    prompts = [[t for t in prompt if t != 300] for prompt in make_prompts(4)]
    want = [llama.reference(prompt) for prompt in prompts]
    assert not any(300 in answer for answer in want)
    kept = embedding.weight[300].clone()
    with torch.no_grad():
        embedding.weight[300] = float("nan")
    try:
        async with llama.engine() as engine:
            results = await asyncio.gather(
                tokens(engine, [300, 5], GREEDY),
                *(tokens(engine, prompt, GREEDY) for prompt in prompts),
                return_exceptions=True,
            )
            again = await tokens(engine, prompts[0], GREEDY)
    finally:
        with torch.no_grad():
            embedding.weight[300] = kept
    assert isinstance(results[0], ModelError)
    assert "not finite" in str(results[0])
    assert results[1:] == want
    assert again == want[0]


async def test_a_crash_of_the_loop_fails_what_is_under_way_and_the_engine_goes_on(
    llama: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: Any) -> None:
        raise MemoryError("no more")

    prompts = make_prompts(3)
    async with llama.engine() as engine:
        with monkeypatch.context() as patch:
            patch.setattr("ft_serve.engines.pt.scheduler.pick", crash)
            results = await asyncio.gather(
                *(complete(engine, prompt, GREEDY) for prompt in prompts), return_exceptions=True
            )
        assert all(isinstance(item, ModelError) and "no more" in str(item) for item in results)
        assert await tokens(engine, prompts[0], GREEDY) == llama.reference(prompts[0])
        assert engine.ready
        assert engine.active == 0


async def test_an_engine_whose_model_no_longer_runs_says_it_is_not_ready(
    llama: Loaded, fail_when: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: Any) -> None:
        raise MemoryError("no more")

    monkeypatch.setattr("ft_serve.engines.pt.scheduler.pick", crash)
    async with llama.engine() as engine:
        assert engine.ready
        fail_when(lambda ids: ids.tolist() == [[0]])  # what the engine tries the model with
        with pytest.raises(ModelError, match="no more"):
            await complete(engine, [5], GREEDY)
        with pytest.raises(ModelError, match="the engine stopped"):
            await complete(engine, [5], GREEDY)
        with pytest.raises(ModelError, match="the engine stopped"):
            await engine.score([[5, 6]])
        assert not engine.ready


async def test_closing_fails_what_is_under_way(llama: Loaded) -> None:
    engine = PtEngine(llama.model, llama.tokenizer, stop_token_ids=[])
    stream = engine.generate(GenerationRequest([5], Sampling(max_new_tokens=400)))
    await anext(stream)
    await engine.close()
    with pytest.raises(ModelError, match="closed"):
        async for _ in stream:
            pass
    await engine.close()


def test_answers_work_from_several_event_loops(llama: Loaded) -> None:
    engine = PtEngine(llama.model, llama.tokenizer, stop_token_ids=[END])
    prompt = make_prompts(1)[0]
    want = llama.reference(prompt)
    for _ in range(2):
        assert asyncio.run(tokens(engine, prompt, GREEDY)) == want

    async def leave() -> None:
        await anext(engine.generate(GenerationRequest(prompt, replace(GREEDY, max_new_tokens=300))))

    asyncio.run(leave())
    assert asyncio.run(tokens(engine, prompt, GREEDY)) == want
    asyncio.run(engine.close())


async def test_many_requests_leave_nothing_behind(llama: Loaded) -> None:
    source = random.Random(5)
    prompts = make_prompts(60, seed=5)

    async def one(engine: PtEngine, prompt: list[int], kind: int) -> None:
        if kind == 0:
            stream = engine.generate(GenerationRequest(prompt, GREEDY))
            await anext(stream)
            await stream.aclose()
        elif kind == 1:
            with pytest.raises(UsageError):
                await complete(engine, [], GREEDY)
        else:
            await complete(engine, prompt, Sampling(max_new_tokens=source.randrange(1, 9)))

    async with llama.engine(max_rows=8) as engine:
        await asyncio.gather(*(one(engine, p, source.randrange(4)) for p in prompts))
        await complete(engine, prompts[0], GREEDY)  # by now the leavers' places were cleared
        assert engine.active == 0
