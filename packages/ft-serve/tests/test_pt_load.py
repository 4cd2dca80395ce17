"""Many requests at once: nobody waits long for another's prompt, and nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import weakref
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, PreTrainedModel

from ft_core.engine import GenerationRequest, Sampling
from ft_core.errors import FtError
from ft_core.testing import VOCABULARY_SIZE, tiny_model
from ft_core.tokenizer import Tokenizer
from ft_serve import PtEngine
from ft_serve.engines.pt.answer import Answer
from ft_serve.testing import collect

END = 2
NAMES = (None, "a", "b", "c")
CHUNK = 256


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("m") / "base", "llama", max_position_embeddings=2048)


@pytest.fixture(scope="module")
def adapters(base: Path) -> dict[str, Path]:
    directories = {}
    with torch.random.fork_rng(devices=[]):
        for seed, name in enumerate(filter(None, NAMES)):
            torch.manual_seed(seed)
            config = LoraConfig(r=4, target_modules=["q_proj", "up_proj"], task_type="CAUSAL_LM")
            adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
            with torch.no_grad():
                for full, parameter in adapted.named_parameters():
                    if "lora_" in full:
                        parameter.normal_(std=0.3)
            directories[name] = base.parent / name
            adapted.save_pretrained(str(directories[name]))
    return directories


def load(base: Path) -> PreTrainedModel:
    model = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(6)
    return model.eval()


def prompt(source: random.Random, longest: int = 60) -> list[int]:
    return [source.randrange(3, VOCABULARY_SIZE) for _ in range(source.randrange(1, longest))]


class Steps:
    """Counts the forward passes of a model, and what they hold."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.shapes: list[tuple[int, int]] = []
        model.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, module: object, values: object, named: dict[str, torch.Tensor]) -> None:
        rows, columns = named["input_ids"].shape
        self.shapes.append((rows, columns))


async def test_a_long_prompt_holds_running_answers_for_one_piece_at_a_time(base: Path) -> None:
    model = load(base)
    steps = Steps(model)
    engine = PtEngine(
        model, Tokenizer.from_directory(base), stop_token_ids=[], prefill_tokens=CHUNK
    )
    started = asyncio.Event()

    async def stream() -> list[int]:
        passes = []
        async for _ in engine.generate(GenerationRequest([5, 6], Sampling(max_new_tokens=60))):
            passes.append(len(steps.shapes))
            started.set()
        return passes

    running = asyncio.create_task(stream())
    await started.wait()
    source = random.Random(0)
    long = [source.randrange(3, VOCABULARY_SIZE) for _ in range(1500)]
    await collect(engine, GenerationRequest(long, Sampling(max_new_tokens=2)))
    await running
    await engine.close()
    pieces = [index for index, (_, columns) in enumerate(steps.shapes) if columns > 1][1:]
    assert [steps.shapes[index][1] for index in pieces] == [CHUNK] * 5 + [1500 - 5 * CHUNK]
    # Between two pieces of the long prompt the running answer got its token.
    assert all(later - earlier == 2 for earlier, later in pairwise(pieces))


async def test_beams_and_scores_let_the_batch_go_on(base: Path) -> None:
    model = load(base)
    steps = Steps(model)
    engine = PtEngine(model, Tokenizer.from_directory(base), stop_token_ids=[])
    request = GenerationRequest([5, 6, 7], Sampling(max_new_tokens=40, num_beams=4))
    beams = asyncio.create_task(collect(engine, request))
    while not any(rows == 4 for rows, _ in steps.shapes):
        await asyncio.sleep(0.001)
    await collect(engine, GenerationRequest([8, 9], Sampling(max_new_tokens=5)))
    assert not beams.done()
    assert len((await beams)[-1].token_ids) > 0
    await engine.close()


@torch.inference_mode()
def solo(model: PreTrainedModel, text: list[int], count: int) -> tuple[list[int], list[float]]:
    """The answer of ``generate``, and how far apart its two best tokens were each time."""
    output = model.generate(
        input_ids=torch.tensor([text]),
        attention_mask=torch.ones((1, len(text)), dtype=torch.long),
        max_new_tokens=count,
        do_sample=False,
        eos_token_id=END,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_logits=True,
    )
    margins = [float(-logits[0].topk(2).values.diff()) for logits in output.logits]
    return output.sequences[0, len(text) :].tolist(), margins


async def test_staggered_arrivals_with_adapters_and_cancels_answer_as_alone(
    base: Path, adapters: dict[str, Path]
) -> None:
    source = random.Random(7)
    plan = [(prompt(source), NAMES[i % 4], source.choice([None, None, 1, 6])) for i in range(32)]
    plan[9] = ([source.randrange(3, VOCABULARY_SIZE) for _ in range(1500)], "b", None)
    engine = PtEngine(
        load(base),
        Tokenizer.from_directory(base),
        stop_token_ids=[END],
        adapters=adapters,
        max_rows=8,
        prefill_tokens=CHUNK,
    )
    count = 16

    async def ask(place: int) -> list[int] | None:
        text, name, leaves_after = plan[place]
        await asyncio.sleep(0.002 * place)
        stream = engine.generate(GenerationRequest(text, Sampling(max_new_tokens=count), name))
        answer: list[int] = []
        events = 0
        async for event in stream:
            answer += event.token_ids
            events += 1
            if events == leaves_after:
                await stream.aclose()  # type: ignore[attr-defined]
                return None
        return answer

    got = await asyncio.gather(*(ask(place) for place in range(len(plan))))
    await engine.close()
    models = {None: load(base)}
    for name, directory in adapters.items():
        models[name] = AutoModelForCausalLM.from_pretrained(base)
        models[name] = _with(load(base), directory)
    compared = 0
    for (text, name, _), answer in zip(plan, got, strict=True):
        if answer is None:
            continue
        want, margins = solo(models[name], text, count)
        close = next((i for i, margin in enumerate(margins) if margin < 1e-4), len(want))
        assert answer[:close] == want[:close]
        compared += close
    assert compared > 150


def _with(model: PreTrainedModel, directory: Path) -> PreTrainedModel:
    from peft import PeftModel

    return PeftModel.from_pretrained(model, directory).eval()


async def test_two_hundred_requests_with_cancels_and_failures_leave_nothing_behind(
    base: Path,
) -> None:
    model = load(base)
    poison = 200

    def fail(module: object, values: object, named: dict[str, torch.Tensor]) -> None:
        if named["input_ids"].shape[1] > 1 and bool((named["input_ids"] == poison).any()):
            raise RuntimeError("out of luck")

    model.register_forward_pre_hook(fail, with_kwargs=True)
    source = random.Random(11)
    engine = PtEngine(model, Tokenizer.from_directory(base), stop_token_ids=[END], max_rows=8)
    answers: weakref.WeakSet[Answer] = weakref.WeakSet()
    kept: Callable[..., None] = Answer.__init__

    def watch(self: Answer, *values: object, **named: object) -> None:
        kept(self, *values, **named)
        answers.add(self)

    async def ask(index: int) -> str:
        text = [token for token in prompt(source, 40) if token != poison] or [5]
        kind = source.choice(["plain", "leaves", "poisoned", "senseless", "timeout"])
        await asyncio.sleep(0.0005 * index)
        sampling = Sampling(max_new_tokens=12)
        if kind == "leaves":
            stream = engine.generate(GenerationRequest(text, sampling))
            await anext(stream)
            await stream.aclose()  # type: ignore[attr-defined]
        elif kind == "timeout":
            try:
                async with asyncio.timeout(0.001):
                    await collect(engine, GenerationRequest(text, sampling))
            except TimeoutError:
                pass
        elif kind == "plain":
            await collect(engine, GenerationRequest(text, sampling))
        else:
            bad = [*text, poison] if kind == "poisoned" else [10_000]
            with pytest.raises(FtError):
                await collect(engine, GenerationRequest(bad, sampling))
        return kind

    threads = threading.active_count()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Answer, "__init__", watch)
        kinds = await asyncio.gather(*(ask(index) for index in range(200)))
    assert len(set(kinds)) == 5
    await collect(engine, GenerationRequest([5], Sampling(max_new_tokens=2)))
    gc.collect()
    assert engine.active == 0
    assert engine.ready
    assert len(answers) == 0
    assert threading.active_count() <= threads + 1
    await engine.close()
