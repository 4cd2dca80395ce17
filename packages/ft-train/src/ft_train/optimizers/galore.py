"""AdamW whose moments live in a low-rank subspace of the gradients: GaLore, and Q-GaLore."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ft_core.errors import UsageError
from ft_train.optimizers.projection import (
    Projection,
    ProjectionKind,
    Quantized,
    find_projection,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GaLoreSettings:
    """How gradients are projected (Zhao et al. 2024, arXiv:2403.03507).

    Attributes:
        rank: of the subspace.
        update_proj_gap: optimizer steps between two projections.
        scale: factor of the projected updates.
        proj_type: which sides of a matrix are projected.
        lazy: update projections that stay alike less often (Q-GaLore, Zhang et al. 2024,
            arXiv:2407.08296).
        quantize_bits: bits of the stored projections; ``None`` stores them as they are.
        quantize_group: values that share a scale in stored projections.
        cos_threshold: mean similarity from which on projections count as alike.
        gamma_proj: factor of the gap between updates of projections that are alike.
        queue_size: how many similarities are averaged.
    """

    rank: int = 128
    update_proj_gap: int = 50
    scale: float = 1.0
    proj_type: ProjectionKind = "std"
    lazy: bool = False
    quantize_bits: int | None = None
    quantize_group: int = 256
    cos_threshold: float = 0.4
    gamma_proj: float = 2.0
    queue_size: int = 5

    def __post_init__(self) -> None:
        if self.quantize_bits is not None and not 1 <= self.quantize_bits <= 8:
            raise UsageError(
                f"--galore_proj_bits {self.quantize_bits}: projections are stored in 1 to 8 bits"
            )


class GaLoreAdamW(torch.optim.Optimizer):
    """AdamW (Loshchilov and Hutter 2019); groups with ``"galore"`` settings keep low-rank moments.

    Weight decay is decoupled and bias is corrected as in torch's AdamW. A matrix whose shorter side is no
    longer than the rank is not projected, since nothing would be saved.

    Args:
        groups: parameter groups; ``"galore"`` holds ``GaLoreSettings``.
        lr: learning rate.
        betas: decay of the running means.
        eps: keeps from dividing by zero.
        weight_decay: share by which weights shrink, times the learning rate.
        free_gradients: let go of each gradient as soon as its parameter is updated.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        free_gradients: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "galore": None,
        }
        super().__init__(list(groups), defaults)
        self._free_gradients = free_gradients

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
                    if self._free_gradients:
                        parameter.grad = None
        return loss

    def _update(self, parameter: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        gradient = parameter.grad
        assert gradient is not None
        state["step"] = step = int(state.get("step", 0)) + 1
        settings: GaLoreSettings | None = group["galore"]
        projection = None
        if settings is not None and parameter.dim() == 2 and min(parameter.shape) > settings.rank:
            projection = _projection(state, gradient, settings, step)
            gradient = projection.down(gradient.float())
        beta1, beta2 = group["betas"]
        if "exp_avg" not in state:
            state["exp_avg"] = torch.zeros_like(gradient)
            state["exp_avg_sq"] = torch.zeros_like(gradient)
        mean, square = state["exp_avg"], state["exp_avg_sq"]
        mean.lerp_(gradient.to(mean.dtype), 1 - beta1)
        square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        denominator = (square / (1 - beta2**step)).sqrt_().add_(group["eps"])
        update = mean / (1 - beta1**step) / denominator
        if projection is not None:
            assert settings is not None
            update = projection.up(update) * settings.scale
        if group["weight_decay"]:
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(update.to(parameter.dtype), alpha=-group["lr"])

    def state_dict(self) -> dict[str, Any]:
        """Return the state in plain values, which are read back without unpickling classes."""
        state: dict[str, Any] = super().state_dict()
        for group in state["param_groups"]:
            group["galore"] = None if group["galore"] is None else asdict(group["galore"])
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state as it was saved; torch would turn every tensor into its parameter's data type."""
        settings = [group["galore"] for group in self.param_groups]
        super().load_state_dict(state_dict)
        for group, own in zip(self.param_groups, settings, strict=True):
            group["galore"] = own
        parameters = [item for group in self.param_groups for item in group["params"]]
        for index, saved in state_dict["state"].items():
            parameter = parameters[index]
            for name, value in saved.items():
                if isinstance(value, torch.Tensor):
                    self.state[parameter][name] = value.to(parameter.device, copy=True)


def _projection(
    state: dict[str, Any], gradient: torch.Tensor, settings: GaLoreSettings, step: int
) -> Projection:
    """Return the projection of this step: a new one from the gradient when it is due."""
    known = _stored(state)
    if known is not None and step < int(state["next_projection"]):
        return known
    new = find_projection(gradient, settings.rank, settings.proj_type)
    gap = int(state.get("gap", settings.update_proj_gap))
    if settings.lazy and known is not None:
        queue = [*state.get("similarities", ()), new.similarity(known)][-settings.queue_size :]
        state["similarities"] = queue
        if (
            len(queue) == settings.queue_size
            and math.fsum(queue) / len(queue) >= settings.cos_threshold
        ):
            gap = max(gap + 1, int(gap * settings.gamma_proj))
    state["gap"], state["next_projection"] = gap, step + gap
    _store(state, new, settings)
    stored = _stored(state)
    assert stored is not None
    return stored


def _store(state: dict[str, Any], projection: Projection, settings: GaLoreSettings) -> None:
    for name, basis in (("left", projection.left), ("right", projection.right)):
        if basis is None:
            continue
        if settings.quantize_bits is None:
            state[name] = basis
            continue
        packed = Quantized.of(basis, settings.quantize_bits, settings.quantize_group)
        state[f"{name}_codes"], state[f"{name}_shape"] = packed.codes, packed.shape
        state[f"{name}_scale"], state[f"{name}_low"] = packed.scale, packed.low


def _stored(state: dict[str, Any]) -> Projection | None:
    bases: dict[str, torch.Tensor] = {}
    for name in ("left", "right"):
        if name in state:
            bases[name] = state[name].float()
        elif f"{name}_codes" in state:
            parts = (state[f"{name}_{part}"] for part in ("codes", "scale", "low", "shape"))
            bases[name] = Quantized(*parts).matrix()
    return Projection(bases.get("left"), bases.get("right")) if bases else None


def galore_groups(
    named: Iterable[tuple[str, torch.nn.Parameter]],
    targets: Iterable[str],
    settings: GaLoreSettings,
    *,
    weight_decay: float,
    decayed: Iterable[str],
    per_parameter: bool = False,
) -> list[dict[str, Any]]:
    """Sort trainable parameters into groups for ``GaLoreAdamW``.

    Args:
        named: all parameters with their names.
        targets: names of the matrices to project.
        settings: how.
        weight_decay: of the parameters in ``decayed``.
        decayed: names of parameters that shrink.
        per_parameter: give each projected matrix a group of its own.

    Raises:
        UsageError: no trainable matrix is among the targets.
    """
    wanted, shrinking = frozenset(targets), frozenset(decayed)
    projected: list[torch.nn.Parameter] = []
    rest: dict[bool, list[torch.nn.Parameter]] = {True: [], False: []}
    for name, parameter in named:
        if not parameter.requires_grad:
            continue
        if name in wanted and parameter.dim() == 2:
            projected.append(parameter)
        else:
            rest[name in shrinking].append(parameter)
    if not projected:
        raise UsageError(
            "--use_galore true finds no trainable matrix to project; check --galore_target_modules and --sft_type"
        )
    groups = [
        {"params": chunk, "galore": settings, "weight_decay": weight_decay}
        for chunk in _chunks(projected, 1 if per_parameter else len(projected))
    ]
    for shrinks, parameters in rest.items():
        if parameters:
            groups.append({"params": parameters, "weight_decay": weight_decay if shrinks else 0.0})
    return groups


def _chunks(items: list[torch.nn.Parameter], size: int) -> Iterator[list[torch.nn.Parameter]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
