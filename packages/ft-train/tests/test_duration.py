"""The rough time of a run: operations counted as torch counts them."""

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, PreTrainedModel

from ft_core.testing import tiny_model
from ft_train.duration import Duration, estimate_duration, matrix_rate, token_operations
from ft_train.plan import TrainingPlan


def tiny(directory: Path, architecture: str) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(tiny_model(directory, architecture))


@pytest.mark.parametrize("trains_all", [True, False])
@pytest.mark.parametrize("architecture", ["llama", "gemma", "phi3"])
def test_operations_are_those_that_torch_counts(
    architecture: str, trains_all: bool, tmp_path: Path
) -> None:
    model = tiny(tmp_path, architecture)
    if not trains_all:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("q_proj" in name or "qkv" in name)
    ids = torch.randint(1, model.config.vocab_size, (2, 4))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()

    counted = counter.get_total_flops()
    assert token_operations(model) * ids.numel() == pytest.approx(counted, rel=0.15)


def test_experts_that_are_not_chosen_cost_nothing(tmp_path: Path) -> None:
    model = tiny(tmp_path, "mixtral")
    values = model.config.to_dict()
    share = values["num_experts_per_tok"] / values["num_local_experts"]
    experts = sum(p.numel() for name, p in model.named_parameters() if ".experts." in name)
    rest = sum(
        p.numel()
        for name, p in model.named_parameters()
        if p.ndim > 1 and ".experts." not in name and "embed_tokens" not in name
    )
    assert share < 1
    assert token_operations(model) == pytest.approx(6 * (share * experts + rest))


def test_time_grows_with_steps_and_says_when_it_is_a_bound(tmp_path: Path) -> None:
    model = tiny(tmp_path, "llama")
    short, long = (
        estimate_duration(
            model, TrainingPlan(steps=steps), tokens=100, trained=50, dtype=torch.float32
        )
        for steps in (10, 20)
    )
    assert long.operations == pytest.approx(2 * short.operations)
    assert "roughly" in short.line()
    bound = Duration(1e13, 1e11, at_most=True).line()
    assert "at most about 3 min" in bound


def test_the_rate_is_that_of_this_machine() -> None:
    assert matrix_rate("cpu", torch.float32) > 1e8
