"""Longer contexts by stretching rotary positions (RoPE, Su et al. 2021, https://arxiv.org/abs/2104.09864).

``linear`` divides positions (Chen et al. 2023, https://arxiv.org/abs/2306.15595); ``dynamic`` raises the
base of the frequencies once a text is longer than the model's own length (NTK-aware scaling).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from ft_core.errors import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from ft_core.checkpoints import SavedCheckpoint

Kind = Literal["linear", "dynamic"]

_SLIDING = "sliding_attention"


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How positions are stretched.

    Attributes:
        kind: transformers' name of the method.
        factor: how many times longer texts may be; 1 leaves the model as it is.
        reason: why, as a sentence part for the person.
    """

    kind: Kind
    factor: float
    reason: str

    def __str__(self) -> str:
        """As a run prints it."""
        if self.factor == 1:
            return f"not scaled ({self.reason})"
        return f"{self.kind}, factor {self.factor:g} ({self.reason})"


def choose_rope(
    kind: Kind | None,
    config: PreTrainedConfig,
    max_length: int,
    *,
    trained_length: int | None = None,
) -> RopeScaling | None:
    """Settle how positions are stretched.

    Args:
        kind: as asked for; ``None`` leaves the model as it is.
        config: the model's own.
        max_length: longest text in tokens; -1 where it isn't given.
        trained_length: ``max_length`` of the training that the checkpoint comes from, if it has one.

    Returns:
        The scaling with the factor ``max_length`` over the model's own length; ``None`` where none is
        asked for.

    Raises:
        UsageError: the length isn't known, or the model can't be stretched this way.
    """
    if kind is None:
        return None
    text = config.get_text_config()
    if not getattr(text, "max_position_embeddings", None) or not getattr(
        text, "rope_parameters", None
    ):
        raise UsageError(
            f"--rope_scaling {kind}: {config.model_type} has no rotary positions that could be stretched; leave it out"
        )
    present, factor, reach = _present(text)
    if present not in ("default", kind):
        raise UsageError(
            f"--rope_scaling {kind}: this model stretches its positions already ({present}, factor {factor:g}); "
            "leave it out"
        )
    own = round(reach / factor)
    length = max_length if max_length != -1 else trained_length or -1
    if present == kind and length <= reach:
        return RopeScaling(kind, factor, "as the model's configuration says")
    if length == -1:
        raise UsageError(
            f"--rope_scaling {kind} needs --max_length: positions are stretched to it from the model's own {own:,}"
        )
    if length <= own:
        return RopeScaling(kind, 1.0, f"max_length {length:,} is within the model's own {own:,}")
    whose = "" if max_length != -1 else " of the training"
    return RopeScaling(
        kind, length / own, f"max_length {length:,}{whose} over the model's own {own:,}"
    )


def scale(config: PreTrainedConfig, rope: RopeScaling) -> None:
    """Write a scaling into a model's configuration, as transformers reads and saves it.

    Where layers have different positions, those that only look at their neighbourhood are left alone.
    """
    if rope.factor == 1:
        return
    text = config.get_text_config()
    parameters = cast("dict[str, Any]", text.rope_parameters)
    change = {"rope_type": rope.kind, "factor": rope.factor}
    if not _is_nested(parameters):
        text.rope_parameters = {**parameters, **change}
        return
    _, before, reach = _present(text)
    if (
        rope.kind == "linear"
    ):  # such models name the length that they reach, not the one they began with
        text.max_position_embeddings = round(reach / before * rope.factor)
    text.rope_parameters = {
        layers: values if layers == _SLIDING else {**values, **change}
        for layers, values in parameters.items()
    }


def rope_of_checkpoint(
    checkpoint: SavedCheckpoint, directory: Path, *, trust_remote_code: bool = False
) -> RopeScaling | None:
    """Return the scaling that an adapter was trained with, for the base in ``directory``."""
    kind = checkpoint.arguments.get("rope_scaling")
    if checkpoint.whole or kind is None:
        return None
    return choose_rope(
        kind,
        read_config(directory, trust_remote_code=trust_remote_code),
        -1,
        trained_length=trained_length(checkpoint),
    )


def trained_length(checkpoint: SavedCheckpoint | None) -> int | None:
    """Return the ``max_length`` that a checkpoint was trained with, where it has one."""
    value = None if checkpoint is None else checkpoint.arguments.get("max_length")
    return value if isinstance(value, int) and value > 0 else None


def read_config(directory: Path, *, trust_remote_code: bool = False) -> PreTrainedConfig:
    """Read a model's configuration.

    Raises:
        ModelError: it can't be read.
    """
    from transformers import AutoConfig

    from ft_core.errors import ModelError

    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            directory, local_files_only=True, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"the model in {directory} can't be loaded: {error}") from error
    return config


def longest(config: PreTrainedConfig) -> int | None:
    """Return how many tokens a model takes with its scaling; ``None`` where it sets no bound."""
    text = config.get_text_config()
    own = getattr(text, "max_position_embeddings", None)
    if own is None or not getattr(text, "rope_parameters", None):
        return own
    return _present(text)[2]


def _present(text: PreTrainedConfig) -> tuple[str, float, int]:
    """Return the kind of scaling a configuration has, its factor, and the length it reaches.

    ``max_position_embeddings`` is the length before scaling in most models; in those whose layers have
    different positions and scale them linearly (Gemma 3), and with other kinds, it is the length after.
    """
    parameters = cast("Mapping[str, Any]", text.rope_parameters)
    nested = _is_nested(parameters)
    if nested:
        far = [values for layers, values in parameters.items() if layers != _SLIDING]
        parameters = far[0] if far else {}
    kind = str(parameters.get("rope_type") or "default")
    factor = float(parameters.get("factor") or 1.0)
    own = int(text.max_position_embeddings)
    if kind == "dynamic" or (kind == "linear" and not nested):
        return kind, factor, int(own * factor)
    return kind, factor, own


def _is_nested(parameters: Mapping[str, Any]) -> bool:
    return bool(parameters) and all(isinstance(values, Mapping) for values in parameters.values())
