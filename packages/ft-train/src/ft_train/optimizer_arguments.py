"""Flags of methods that change how weights are optimized: GaLore, LISA, NEFTune."""

from __future__ import annotations

from typing import ClassVar, Literal

from ft_core.command.group import ArgumentGroup, flag


class GaLoreArguments(ArgumentGroup):
    """Adam in a low-rank subspace of the gradients (Zhao et al. 2024)."""

    title: ClassVar[str] = "GaLore"

    use_galore: bool = False
    """Keep Adam's running means of matrices in a subspace of their gradients, which needs less memory."""

    galore_target_modules: list[str] | None = None
    """Modules whose matrices are projected, by name; none takes attention and feed-forward layers."""

    galore_rank: int = flag(128, ge=1)
    """Rank of the subspace."""

    galore_update_proj_gap: int = flag(50, ge=1)
    """Steps between two choices of the subspace."""

    galore_scale: float = flag(1.0, gt=0)
    """Factor of the projected updates."""

    galore_proj_type: Literal["std", "reverse_std", "left", "right", "full"] = "std"
    """Which side of a matrix is projected: std the shorter, reverse_std the longer, left the rows, right the columns, full both."""

    galore_optim_per_parameter: bool = False
    """Give each projected matrix an optimizer state group of its own, and let go of its gradient once it is used."""

    galore_with_embedding: bool = False
    """Project embeddings and the head too."""

    galore_quantization: bool = False
    """Q-GaLore (Zhang et al. 2024): choose subspaces that stay alike less often."""

    galore_proj_quant: bool = False
    """With galore_quantization, store projections in few bits."""

    galore_proj_bits: int = flag(4, ge=1, le=8)
    """Bits of a stored projection's values."""

    galore_proj_group_size: int = flag(256, ge=1)
    """Values of a stored projection that share a scale."""

    galore_cos_threshold: float = flag(0.4, ge=0, le=1)
    """With galore_quantization, mean similarity from which on subspaces count as alike."""

    galore_gamma_proj: float = flag(2, gt=1)
    """With galore_quantization, factor of the gap between choices once subspaces are alike."""

    galore_queue_size: int = flag(5, ge=1)
    """With galore_quantization, how many similarities are averaged."""


class LisaArguments(ArgumentGroup):
    """Few layers at a time, drawn at random (Pan et al. 2024)."""

    title: ClassVar[str] = "LISA"

    lisa_activated_layers: int = flag(0, ge=0)
    """Layers that are trained at a time, with embeddings and head; 0 trains all. 2 or 8 is usual."""

    lisa_step_interval: int = flag(20, ge=1)
    """Steps after which other layers are drawn."""


class NeftuneArguments(ArgumentGroup):
    """Noise on embeddings (Jain et al. 2023)."""

    title: ClassVar[str] = "NEFTune"

    neftune_noise_alpha: float | None = flag(None, gt=0, aliases=("neftune_alpha",))
    """Add noise of this strength to embeddings while training; 5, 10 or 15 is usual."""

    neftune_backend: Literal["transformers", "swift"] = "transformers"
    """Who makes the noise: transformers, whose strength counts padding as text; or swift for ft's own, which goes by the length of each document."""


OPTIMIZER_GROUPS: tuple[type[ArgumentGroup], ...] = (
    GaLoreArguments,
    LisaArguments,
    NeftuneArguments,
)
"""All groups of flags about how what is trained is optimized."""
