"""Settings of AdaLoRA."""

from __future__ import annotations

from dataclasses import dataclass

from ft_core.errors import UsageError
from ft_core.tuners.targets import TargetSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaLoraSettings(TargetSettings):
    """How ranks are shared out.

    Attributes:
        target_r: average rank in the end.
        init_r: rank of each adapter in the beginning.
        tinit: steps before ranks are taken away.
        tfinal: steps at the end in which ranks stay.
        delta_t: steps between two decisions.
        beta1: decay of the running mean of importance.
        beta2: decay of the running mean of its uncertainty.
        orth_reg_weight: weight of the penalty that keeps the matrices orthogonal.
        alpha: the product is scaled by alpha / rank.
        dropout: probability that an input of the adapter is zeroed in training.
        total_steps: optimizer steps of the run; ``None`` where they aren't known yet.

    Raises:
        UsageError: a value that can't work, with its flag.
    """

    target_r: int = 8
    init_r: int = 12
    tinit: int = 0
    tfinal: int = 0
    delta_t: int = 1
    beta1: float = 0.85
    beta2: float = 0.85
    orth_reg_weight: float = 0.5
    alpha: float = 32
    dropout: float = 0.05
    total_steps: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.target_r <= self.init_r:
            raise UsageError(
                f"--adalora_target_r {self.target_r} and --adalora_init_r {self.init_r}: ranks begin with init_r and are "
                "taken away down to target_r, which must be at least 1 and at most init_r"
            )
        steps = self.total_steps
        if steps is not None and self.tinit + self.tfinal >= steps:
            raise UsageError(
                f"--adalora_tinit {self.tinit} and --adalora_tfinal {self.tfinal} leave none of the {steps} steps to share "
                "ranks out in; make them smaller, or train longer"
            )
