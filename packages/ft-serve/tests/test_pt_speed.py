"""What makes steps faster gives the same numbers: attention without copies, arranged weights."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from ft_core.engine import GenerationRequest, Sampling
from ft_core.testing import tiny_model
from ft_core.tokenizer import Tokenizer
from ft_serve.engines.pt import PtEngine
from ft_serve.engines.pt.batch.attention import rows_attention
from ft_serve.engines.pt.packed import pack_linears
from ft_serve.engines.pt.teams import end_team
from ft_serve.testing import collect


class Grouped(nn.Module):
    """What the reference reads off an attention layer."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.num_key_value_groups = groups
        self.is_causal = True


@pytest.mark.parametrize("new", [1, 3])
@pytest.mark.parametrize(("heads", "key_heads"), [(6, 2), (4, 4), (3, 1)])
@pytest.mark.parametrize("masked", [True, False])
def test_rows_attend_as_sdpa_does(new: int, heads: int, key_heads: int, masked: bool) -> None:
    torch.manual_seed(0)
    rows, columns, size = 5, 11, 8
    query = torch.randn(rows, heads, new, size)
    key, value = (torch.randn(rows, key_heads, 20, size)[:, :, :columns] for _ in range(2))
    mask = None
    if masked:
        mask = torch.rand(rows, 1, new, columns) > 0.4
        mask[..., 0] = True
    layer = Grouped(heads // key_heads)
    want, _ = sdpa_attention_forward(layer, query, key, value, mask, scaling=0.3)
    got, _ = rows_attention(layer, query, key, value, mask, scaling=0.3)
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_arranged_weights_give_the_same_products(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(80, 160), nn.Linear(160, 70, bias=False), nn.Linear(70, 8))
    model.to(dtype)
    states = [torch.randn(*shape, 80, dtype=dtype) for shape in ((1,), (7,), (3, 5), (2, 1))]
    want = [model(item) for item in states]
    packed = pack_linears(model)
    assert packed.layers == (model[0], model[1])
    tolerance = 1e-5 if dtype is torch.float32 else 2e-2
    for item, expected in zip(states, want, strict=True):
        torch.testing.assert_close(model(item), expected, rtol=tolerance, atol=tolerance)
    packed.undo()
    assert all("forward" not in vars(layer) for layer in model)


def tasks() -> int:
    """Return how many threads this process has."""
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def test_the_threads_of_the_loading_thread_end() -> None:
    if not list((Path(torch.__file__).parent / "lib").glob("libgomp*.so*")):
        pytest.skip("torch brings another OpenMP")
    found = []

    def compute() -> None:
        torch.set_num_threads(3)
        left, right = torch.ones(512, 512), torch.ones(512, 512)
        left.mul_(right)
        before = tasks()
        assert end_team()
        # The kernel takes an ended thread off the list a moment later.
        for _ in range(1000):
            if tasks() == before - 2:
                break
            os.sched_yield()
        found.append(before - tasks())
        assert left.mul_(right).sum() == 512 * 512

    threads = torch.get_num_threads()
    thread = threading.Thread(target=compute)
    thread.start()
    thread.join()
    torch.set_num_threads(threads)
    assert found == [2]


def test_weights_that_change_are_multiplied_as_they_are() -> None:
    model = nn.Sequential(nn.Linear(80, 80))
    pack_linears(model)
    states = torch.randn(4, 80)
    with torch.no_grad():
        model[0].weight.zero_()
        assert torch.equal(model(states), model[0].bias.expand(4, -1))
    assert model(states).requires_grad


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedModel:
    directory = tiny_model(tmp_path_factory.mktemp("tiny"), "llama")
    return AutoModelForCausalLM.from_pretrained(directory, attn_implementation="sdpa")


async def test_a_closed_engine_leaves_the_model_as_it_was(model: PreTrainedModel) -> None:
    tokenizer = Tokenizer.from_directory(Path(model.config._name_or_path))
    before = [type(layer).forward for layer in model.modules()]
    engine = PtEngine(model, tokenizer, stop_token_ids=[2])
    assert model.config._attn_implementation == "ft_rows"
    await engine.close()
    assert model.config._attn_implementation == "sdpa"
    assert [layer.forward.__func__ for layer in model.modules()] == before


async def test_an_engine_with_arranged_weights_answers_as_generate_does(tmp_path: Path) -> None:
    sizes = {"hidden_size": 64, "intermediate_size": 128}
    directory = tiny_model(tmp_path / "wide", "llama", **sizes)
    model = AutoModelForCausalLM.from_pretrained(directory, attn_implementation="sdpa")
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(6)  # random answers that differ, with clear margins
    prompts = [[5, 6, 7], [40, 41, 9, 12, 77], [100], [3, 8]]
    want = []
    for prompt in prompts:
        settings = {"max_new_tokens": 16, "do_sample": False, "eos_token_id": 2, "pad_token_id": 0}
        ids = torch.tensor([prompt])
        output = model.generate(ids, attention_mask=torch.ones_like(ids), **settings)
        want.append(output[0, len(prompt) :].tolist())
    engine = PtEngine(model, Tokenizer.from_directory(directory), stop_token_ids=[2])
    assert any("forward" in vars(layer) for layer in model.modules())
    sampling = Sampling(max_new_tokens=16)
    answered = await asyncio.gather(
        *(collect(engine, GenerationRequest(prompt, sampling)) for prompt in prompts)
    )
    await engine.close()
    assert [[token for event in events for token in event.token_ids] for events in answered] == want
