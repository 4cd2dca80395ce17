"""How long a run takes, roughly: what it computes, over how fast this machine multiplies matrices.

A trained token costs two operations per weight in the forward pass, two for the gradients of what goes in and, of
weights that are trained, two for their own gradients (Kaplan et al. 2020, https://arxiv.org/abs/2001.08361).
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from ft_train.plan import TrainingPlan

_SHARE = 0.55
"""Share of the rate of plain matrix products that training reaches; ``benchmarks/train.py`` shows it."""

_SIZE = {"cpu": 768, "cuda": 4096}
_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Duration:
    """What a run takes.

    Attributes:
        operations: floating-point operations of the whole run on each device.
        rate: those that this machine does in a second.
        at_most: the lengths of rows aren't known, so the longest were counted.
    """

    operations: float
    rate: float
    at_most: bool = False

    @property
    def seconds(self) -> float:
        """Seconds of the training steps."""
        return self.operations / (self.rate * _SHARE)

    def line(self) -> str:
        """Describe it in one line."""
        bound = "at most about" if self.at_most else "roughly"
        return (
            f"time       {bound} {_words(self.seconds)} ({self.operations:.1e} operations; this machine multiplies "
            f"{self.rate / 1e9:,.0f} GFLOP/s, of which training reaches about half)"
        )


def estimate_duration(
    model: PreTrainedModel,
    plan: TrainingPlan,
    *,
    tokens: float,
    trained: float,
    dtype: torch.dtype,
    at_most: bool = False,
) -> Duration:
    """Estimate the time of a run's training steps.

    Args:
        model: with its trainable part attached; may be on torch's meta device.
        plan: of the run.
        tokens: mean tokens of an item: a row, or a pack.
        trained: of those, the tokens that carry loss.
        dtype: of the computation.
        at_most: ``tokens`` is a bound, not a mean.
    """
    items = plan.steps * plan.batch_size * plan.gradient_accumulation_steps
    passes = items * token_operations(
        model, trained / max(tokens, 1), recomputes=plan.gradient_checkpointing
    )
    return Duration(passes * tokens, matrix_rate(plan.device, dtype), at_most)


def token_operations(
    model: PreTrainedModel, trained: float = 1.0, *, recomputes: bool = False
) -> float:
    """Return the operations of one token, forward and backward; attention's scores are left out.

    Args:
        model: with its trainable part attached.
        trained: share of the tokens that carry loss, for which alone logits are computed.
        recomputes: activations are computed again in the backward pass.
    """
    head = model.get_output_embeddings()
    head_weight = None if head is None else head.weight
    embedding = model.get_input_embeddings().weight
    total = 0.0
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2 or (parameter is embedding and parameter is not head_weight):
            continue
        used = trained if parameter is head_weight else _active(name, model.config)
        total += used * parameter.numel() * (6 if parameter.requires_grad else 4)
        if recomputes and parameter is not head_weight:
            total += used * parameter.numel() * 2
    return total


def _active(name: str, config: PreTrainedConfig) -> float:
    """Return the share of a weight that a token goes through: of experts, those that are chosen."""
    values = config.get_text_config().to_dict()
    chosen = values.get("num_experts_per_tok")
    count = (
        values.get("num_local_experts")
        or values.get("num_experts")
        or values.get("n_routed_experts")
    )
    if not chosen or not count or ".experts." not in f".{name}.":
        return 1.0
    return float(chosen) / float(count)


def matrix_rate(device: str, dtype: torch.dtype) -> float:
    """Measure how many operations a second plain matrix products do here."""
    size = _SIZE.get(device, _SIZE["cpu"])
    left = torch.ones(size, size, device=device, dtype=dtype)
    right = torch.ones(size, size, device=device, dtype=dtype)
    left @ right
    _wait(device)
    start, count = time.perf_counter(), 0
    while (spent := time.perf_counter() - start) < _SECONDS:
        left @ right
        _wait(device)
        count += 1
    return 2.0 * size**3 * count / spent


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _words(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
