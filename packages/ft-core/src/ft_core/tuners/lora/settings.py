"""Settings of LoRA."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ft_core.errors import UsageError
from ft_core.tuners.targets import TargetSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

AdapterDtype = Literal["AUTO", "fp16", "bf16", "fp32"]

_PISSA = re.compile(r"pissa(_niter_[1-9]\d*)?")
_PLAIN = frozenset({"true", "false", "gaussian"})
_BY_DATA = frozenset({"eva", "corda"})
INITIALIZATIONS = "true, false, gaussian, pissa, pissa_niter_[number], olora, eva, corda"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraSettings(TargetSettings):
    """How low-rank adapters are made.

    Attributes:
        rank: width r of the two matrices.
        alpha: the product is scaled by alpha / rank.
        dropout: probability that an input of the adapter is zeroed in training.
        bias: ``all`` also trains every bias of the model.
        use_dora: train the length of each row apart from its direction (Liu et al. 2024,
            https://arxiv.org/abs/2402.09353).
        use_rslora: scale by alpha / sqrt(rank) (Kalajdzievski 2023, https://arxiv.org/abs/2312.03732).
        init: what the matrices begin with: ``true`` (A random, B zero), ``false`` (both random),
            ``gaussian``; ``pissa`` and ``pissa_niter_N`` the largest singular vectors of the weights (Meng et
            al. 2024, https://arxiv.org/abs/2404.02948); ``olora`` their orthonormal basis (Büyükakyüz 2024,
            https://arxiv.org/abs/2406.01775); ``eva`` the directions of what goes in (Paischer et al. 2024,
            https://arxiv.org/abs/2410.07170); ``corda`` those of the weights as the inputs see them (Yang et
            al. 2024, https://arxiv.org/abs/2406.05223).
        dtype: of the matrices; ``AUTO`` is that of the model, and float32 where that is shorter, since small
            steps would round away.
        run: runs the model on rows of the training data, for ``eva`` and ``corda``.

    Raises:
        UsageError: a value that can't work, with its flag.
    """

    rank: int = 8
    alpha: float = 32
    dropout: float = 0.05
    bias: Literal["none", "all"] = "none"
    use_dora: bool = False
    use_rslora: bool = False
    init: str = "true"
    dtype: AdapterDtype = "AUTO"
    run: Callable[[PreTrainedModel], None] | None = None

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UsageError(f"--lora_rank {self.rank}: the rank must be at least 1; 8 is usual")
        if not math.isfinite(self.alpha) or self.alpha <= 0:
            raise UsageError(f"--lora_alpha {self.alpha}: must be greater than 0; 32 is usual")
        if not 0 <= self.dropout < 1:
            raise UsageError(
                f"--lora_dropout {self.dropout}: is a probability: at least 0, below 1"
            )
        if self.bias not in ("none", "all"):
            raise UsageError(f"--lora_bias_trainable {self.bias}: use none or all")
        check_initialization(self.init)

    @property
    def takes_from_weights(self) -> bool:
        """Whether the matrices begin with a part of the weights, which is taken out of them."""
        return takes_from_weights(self.init)


def takes_from_weights(init: str) -> bool:
    """Whether an initialization takes a part of the weights for the adapter and leaves the rest to them."""
    return init == "olora" or init == "corda" or _PISSA.fullmatch(init) is not None


def needs_rows(init: str) -> bool:
    """Whether an initialization looks at what goes through the layers."""
    return init in _BY_DATA


def check_initialization(init: str) -> None:
    """Refuse a name that is no initialization.

    Raises:
        UsageError: with those there are.
    """
    if init in _PLAIN or init in _BY_DATA or takes_from_weights(init):
        return
    if init == "loftq":
        raise UsageError(
            "--init_lora_weights loftq puts quantized values in place of the weights, so that its adapter only fits "
            "those and no plain model; use pissa, or --quantization_bit 4 with true"
        )
    raise UsageError(f"--init_lora_weights {init}: allowed are {INITIALIZATIONS}")
