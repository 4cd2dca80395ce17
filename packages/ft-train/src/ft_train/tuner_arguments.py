"""Flags of tuners: what of the model is trained, and how."""

from __future__ import annotations

from importlib.util import find_spec
from typing import ClassVar, Literal

from ft_core.command.group import ArgumentGroup, flag
from ft_core.errors import DependencyError, UsageError
from ft_core.tuner import SftType
from ft_core.tuners.adapter.settings import Activation
from ft_core.tuners.lora.settings import AdapterDtype, check_initialization
from ft_train.tower_arguments import TowerArguments


class TunerArguments(ArgumentGroup):
    """What of the model is trained."""

    title: ClassVar[str] = "tuner"

    sft_type: SftType = flag("lora", aliases=("train_type", "tuner_type"))
    """What is trained: low-rank adapters or one of their relatives, bottleneck adapters, new blocks (llamapro) or all weights (full)."""

    tuner_backend: Literal["peft", "swift", "unsloth"] = "peft"
    """Who makes adapters of lora and longlora: peft; swift for ft's own, saved in the layout of the older toolkit. unsloth is refused with what it lacks."""

    target_modules: list[str] = flag(["DEFAULT"], aliases=("lora_target_modules",))
    """Layers that get an adapter, by name. DEFAULT takes the model's own list, ALL every linear layer except the head, EMBEDDING the embeddings. Experts and routers are adapted where they are named."""

    target_regex: str | None = flag(None, aliases=("lora_target_regex",))
    """Layers that get an adapter, as a regular expression on their full name; replaces target_modules."""

    modules_to_save: list[str] = flag([], aliases=("lora_modules_to_save",))
    """Modules that are trained whole beside the adapters, by name. EMBEDDING takes the embeddings, LN all norms."""

    freeze_parameters: float = flag(0.0, ge=0, le=1)
    """With sft_type full, share of the parameters that is frozen, counted from the bottom of the model."""

    additional_trainable_parameters: list[str] = flag([])
    """With sft_type full, beginnings of parameters' names that are trained although freeze_parameters would freeze them."""

    def check(self, given: frozenset[str]) -> None:
        """Refuse a backend that isn't there."""
        if self.tuner_backend == "unsloth":
            _check_unsloth()


class LoraArguments(ArgumentGroup):
    """Low-rank adapters (Hu et al. 2021)."""

    title: ClassVar[str] = "LoRA"

    lora_rank: int = flag(8, ge=1)
    """Rank of the adapters."""

    lora_alpha: float = flag(32, gt=0)
    """Scale of the adapters; the update is multiplied by lora_alpha / lora_rank."""

    lora_dropout: float = flag(0.05, ge=0, lt=1, aliases=("lora_dropout_p",))
    """Share of an adapter's inputs that is dropped while training."""

    lora_bias_trainable: Literal["none", "all"] = "none"
    """Whether the model's biases are trained too."""

    lora_dtype: AdapterDtype = "AUTO"
    """Data type of the adapters. AUTO takes that of the model, and fp32 beside bf16 and fp16, where small steps would round away."""

    init_lora_weights: str = "true"
    """What adapters begin with: true, false, gaussian, pissa, pissa_niter_N or olora (parts of the weights), eva or corda (which look at rows of the data)."""

    use_dora: bool = False
    """Train lengths of weights apart from their directions (DoRA, Liu et al. 2024)."""

    use_rslora: bool = False
    """Scale by lora_alpha / sqrt(lora_rank), which suits high ranks (rsLoRA, Kalajdzievski 2023)."""

    lora_lr_ratio: float | None = flag(None, gt=0)
    """Let the matrices B learn this many times as fast as A (LoRA+, Hayou et al. 2024); 10 to 16 is usual."""

    def check(self, given: frozenset[str]) -> None:
        """Refuse an unknown beginning."""
        check_initialization(self.init_lora_weights.lower())


class AdaLoraArguments(ArgumentGroup):
    """Adapters whose ranks are shared out by importance (Zhang et al. 2023)."""

    title: ClassVar[str] = "AdaLoRA"

    adalora_target_r: int = flag(8, ge=1)
    """Average rank in the end."""

    adalora_init_r: int = flag(12, ge=1)
    """Rank of each adapter in the beginning."""

    adalora_tinit: int = flag(0, ge=0)
    """Steps before ranks are taken away."""

    adalora_tfinal: int = flag(0, ge=0)
    """Steps at the end in which ranks stay as they are."""

    adalora_deltaT: int = flag(1, ge=1)  # noqa: N815 - the specification's name
    """Steps between two decisions about ranks."""

    adalora_beta1: float = flag(0.85, gt=0, lt=1)
    """Decay of the running mean of importance."""

    adalora_beta2: float = flag(0.85, gt=0, lt=1)
    """Decay of the running mean of its uncertainty."""

    adalora_orth_reg_weight: float = flag(0.5, ge=0)
    """Weight of the penalty that keeps the matrices orthogonal."""


class AdapterArguments(ArgumentGroup):
    """The other adapters."""

    title: ClassVar[str] = "other adapters"

    ia3_feedforward_modules: list[str] = flag([])
    """With ia3, names among the targets whose inputs get the factors instead of their outputs."""

    vera_rank: int = flag(256, ge=1)
    """With vera, rank of the shared random matrices (Kopiczko et al. 2023)."""

    vera_projection_prng_key: bool = True
    """With vera, keep the random matrices in checkpoints; without, they are drawn again from a seed."""

    vera_dropout: float = flag(0.0, ge=0, lt=1)
    """With vera, share of an adapter's inputs that is dropped while training."""

    vera_d_initial: float = 0.1
    """With vera, what the vector d begins with."""

    boft_block_size: int = flag(4, ge=0)
    """With boft, rows of a block (Liu et al. 2023)."""

    boft_block_num: int = flag(0, ge=0)
    """With boft, blocks of a matrix; instead of boft_block_size."""

    boft_dropout: float = flag(0.0, ge=0, lt=1)
    """With boft, share of the blocks that leave the weights as they are while training."""

    fourier_n_frequency: int = flag(2000, ge=1)
    """With fourierft, frequencies that are trained of each matrix (Gao et al. 2024)."""

    fourier_scaling: float = 300.0
    """With fourierft, factor of the change they make."""

    adapter_length: int = flag(128, ge=1)
    """With adapter, width of the bottlenecks (Houlsby et al. 2019)."""

    adapter_act: Activation = "gelu"
    """With adapter, activation inside the bottlenecks."""

    llamapro_num_new_blocks: int = flag(4, ge=1)
    """With llamapro, blocks that are put between those of the model (Wu et al. 2024)."""

    llamapro_num_groups: int | None = flag(None, ge=1)
    """With llamapro, groups the model's blocks are cut into, each of which gets new ones at its end; none makes one for each new block."""


def _check_unsloth() -> None:
    """Refuse unsloth where it isn't installed or has no GPU to run on, and elsewhere while ft doesn't drive it.

    Raises:
        DependencyError: it or its GPU is not there.
        UsageError: both are.
    """
    import torch

    if find_spec("unsloth") is None or not torch.cuda.is_available():
        raise DependencyError(
            "--tuner_backend unsloth", "unsloth and a GPU of NVIDIA", "pip install unsloth"
        )
    raise UsageError(
        "--tuner_backend unsloth: unsloth loads models in a way of its own, which this version of ft doesn't drive; use "
        "--tuner_backend peft"
    )


TUNER_GROUPS: tuple[type[ArgumentGroup], ...] = (
    TunerArguments,
    LoraArguments,
    AdaLoraArguments,
    AdapterArguments,
    TowerArguments,
)
"""All groups of flags about what is trained."""
