"""GaLore, Q-GaLore and LoRA+ against their definitions and torch's AdamW."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from ft_core import UsageError
from ft_train.optimizers import GaLoreAdamW, GaLoreSettings, galore_groups, lora_plus_groups
from ft_train.optimizers.projection import Quantized, find_projection

KINDS = ["std", "reverse_std", "left", "right", "full"]


def network(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Linear(24, 16), torch.nn.Tanh(), torch.nn.Linear(16, 32), torch.nn.LayerNorm(32)
    )


def groups(
    model: torch.nn.Module, settings: GaLoreSettings, **options: Any
) -> list[dict[str, Any]]:
    matrices = [name for name, weight in model.named_parameters() if weight.dim() == 2]
    return galore_groups(
        *(model.named_parameters(), matrices, settings),
        weight_decay=0.1,
        decayed=matrices,
        **options,
    )


def learn(model: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> list[float]:
    generator = torch.Generator().manual_seed(1)
    inputs, target = (
        torch.randn(64, 24, generator=generator),
        torch.randn(64, 32, generator=generator),
    )
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(inputs), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [None, 4])
def test_the_loss_falls_with_every_projection(kind: Any, bits: int | None) -> None:
    model = network()
    settings = GaLoreSettings(
        rank=4, update_proj_gap=5, proj_type=kind, lazy=bits is not None, quantize_bits=bits
    )
    losses = learn(model, GaLoreAdamW(groups(model, settings), lr=0.01), 60)
    assert losses[-1] < 0.9 * losses[0]


def test_without_projection_it_is_adamw() -> None:
    ours, theirs = network(), network()
    settings = GaLoreSettings(rank=1000)
    learn(ours, GaLoreAdamW(groups(ours, settings), lr=0.01), 10)
    matrices = [weight for weight in theirs.parameters() if weight.dim() == 2]
    rest = [weight for weight in theirs.parameters() if weight.dim() != 2]
    adamw = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}], lr=0.01
    )
    learn(theirs, adamw, 10)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(12, 20), (20, 12)])
def test_a_step_follows_the_papers_definition(kind: Any, shape: tuple[int, int]) -> None:
    torch.manual_seed(3)
    weight = torch.nn.Parameter(torch.randn(shape))
    before, gradient = weight.detach().clone(), torch.randn(shape)
    weight.grad = gradient
    settings = GaLoreSettings(rank=3, scale=0.5, proj_type=kind)
    # Projected from both sides a gradient is diagonal but for rounding errors, which must not count.
    eps = 1e-2
    optimizer = GaLoreAdamW([{"params": [weight], "galore": settings}], lr=0.1, eps=eps)
    optimizer.step()
    u, _, vh = torch.linalg.svd(gradient, full_matrices=False)
    rows = {"left": True, "right": False, "full": True}.get(
        kind, (shape[0] < shape[1]) == (kind == "std")
    )
    columns = kind == "full" or not rows
    low = u[:, :3].T @ gradient if rows else gradient
    low = low @ vh[:3].T if columns else low
    # Adam's first step is the sign of what it sees, up to eps.
    update = low / (low.abs() + eps)
    update = u[:, :3] @ update if rows else update
    update = update @ vh[:3] if columns else update
    torch.testing.assert_close(weight.detach(), before - 0.1 * 0.5 * update, rtol=1e-3, atol=3e-4)
    state = optimizer.state[weight]
    assert state["exp_avg"].shape == low.shape


@pytest.mark.parametrize("bits", [None, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_loaded_state_goes_on_exactly(bits: int | None, dtype: torch.dtype) -> None:
    settings = GaLoreSettings(rank=4, update_proj_gap=3, lazy=bits is not None, quantize_bits=bits)

    def steps(model: torch.nn.Module, optimizer: torch.optim.Optimizer, seeds: range) -> None:
        for seed in seeds:
            torch.manual_seed(seed)
            for weight in model.parameters():
                weight.grad = torch.randn_like(weight)
            optimizer.step()

    model = network().to(dtype)
    optimizer = GaLoreAdamW(groups(model, settings), lr=0.01)
    steps(model, optimizer, range(5))
    resumed = copy.deepcopy(model)
    saved = copy.deepcopy(optimizer.state_dict())
    again = GaLoreAdamW(groups(resumed, settings), lr=0.01)
    again.load_state_dict(saved)
    steps(model, optimizer, range(5, 9))
    steps(resumed, again, range(5, 9))
    for one, other in zip(model.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_projections_that_stay_alike_are_made_less_often() -> None:
    weight = torch.nn.Parameter(torch.zeros(12, 20))
    gradient = torch.randn(12, 20)
    settings = GaLoreSettings(rank=3, update_proj_gap=2, lazy=True, queue_size=2)
    optimizer = GaLoreAdamW([{"params": [weight], "galore": settings}], lr=0.1)
    gaps = []
    for _ in range(20):
        weight.grad = gradient.clone()
        optimizer.step()
        gaps.append(optimizer.state[weight]["gap"])
    assert gaps[:4] == [2, 2, 2, 2] and gaps[-1] >= 8
    eager = GaLoreAdamW(
        [{"params": [weight], "galore": GaLoreSettings(rank=3, update_proj_gap=2)}], lr=0.1
    )
    for _ in range(20):
        weight.grad = gradient.clone()
        eager.step()
    assert eager.state[weight]["gap"] == 2


@pytest.mark.parametrize(("bits", "group"), [(8, 64), (4, 256), (2, 7)])
def test_quantized_projections_are_the_nearest_values(bits: int, group: int) -> None:
    basis = find_projection(torch.randn(30, 17), 5, "left").left
    assert basis is not None
    packed = Quantized.of(basis, bits, group)
    assert packed.codes.dtype == torch.uint8 and int(packed.codes.max()) < 2**bits
    assert packed.matrix().shape == basis.shape
    assert (packed.matrix() - basis).abs().max() <= packed.scale.max() / 2 + 1e-6


def test_each_matrix_can_have_a_group_of_its_own() -> None:
    model = network()
    both = groups(model, GaLoreSettings(rank=4), per_parameter=True)
    assert [len(group["params"]) for group in both[:2]] == [1, 1]
    optimizer = GaLoreAdamW(both, lr=0.01, free_gradients=True)
    learn(model, optimizer, 1)
    assert all(weight.grad is None for weight in model.parameters())


def test_what_can_not_be_projected_is_refused() -> None:
    model = network()
    with pytest.raises(UsageError, match="no trainable matrix"):
        galore_groups(
            model.named_parameters(), ["head"], GaLoreSettings(), weight_decay=0.0, decayed=[]
        )
    with pytest.raises(UsageError, match="--galore_proj_bits 16"):
        GaLoreSettings(quantize_bits=16)


def test_lora_plus_lets_b_learn_faster() -> None:
    model = torch.nn.ModuleDict(
        {name: torch.nn.Linear(4, 4, bias=False) for name in ("lora_A", "lora_B", "norm")}
    )
    model["norm"].weight.requires_grad_(False)
    made = lora_plus_groups(
        model.named_parameters(),
        learning_rate=1e-4,
        ratio=16,
        weight_decay=0.1,
        decayed=["lora_A.weight", "lora_B.weight"],
    )
    rates = {id(group["params"][0]): group["lr"] for group in made}
    assert rates == {
        id(model["lora_A"].weight): pytest.approx(1e-4),
        id(model["lora_B"].weight): pytest.approx(1.6e-3),
    }
    with pytest.raises(UsageError, match="--lora_lr_ratio needs LoRA"):
        lora_plus_groups(
            network().named_parameters(), learning_rate=1.0, ratio=2, weight_decay=0.0, decayed=[]
        )
