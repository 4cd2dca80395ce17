"""DeepSpeed's configuration: presets by name, files, JSON."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ft_core.errors import UsageError, suggest

_BUCKET = 200_000_000
"""Elements that are reduced or gathered at once: 400 MB in half precision, on every GPU there is."""


def _preset(stage: int, *, offload: bool = False) -> dict[str, Any]:
    """Return a configuration in which everything that the flags say is left to them (``auto``)."""
    zero: dict[str, Any] = {
        "stage": stage,
        "overlap_comm": stage > 0,
        "contiguous_gradients": True,
        "reduce_bucket_size": "auto" if stage == 3 else _BUCKET,
    }
    if stage in (1, 2):
        zero |= {
            "allgather_partitions": True,
            "allgather_bucket_size": _BUCKET,
            "reduce_scatter": True,
        }
    if stage == 3:
        zero |= {
            "sub_group_size": 1_000_000_000,
            "stage3_prefetch_bucket_size": "auto",
            "stage3_param_persistence_threshold": "auto",
            "stage3_max_live_parameters": 1_000_000_000,
            "stage3_max_reuse_distance": 1_000_000_000,
            "stage3_gather_16bit_weights_on_model_save": True,
        }
    if offload:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
        if stage == 3:
            zero["offload_param"] = {"device": "cpu", "pin_memory": True}
    return {
        "bf16": {"enabled": "auto"},
        "fp16": {"enabled": "auto", "loss_scale": 0, "initial_scale_power": 16},
        "zero_optimization": zero,
        # The optimizer is the run's own, so that its settings mean the same with and without DeepSpeed.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "steps_per_print": 1_000_000_000,
        "wall_clock_breakdown": False,
    }


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "zero0": _preset(0),
    "zero1": _preset(1),
    "default-zero2": _preset(2),
    "default-zero3": _preset(3),
    "zero2-offload": _preset(2, offload=True),
    "zero3-offload": _preset(3, offload=True),
}
"""Configurations by the name that ``--deepspeed`` takes."""

_OTHER_NAMES = {"zero2": "default-zero2", "zero3": "default-zero3"}


def read_deepspeed(value: str | Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration that ``--deepspeed`` means.

    Args:
        value: a preset's name, a JSON file, or JSON.

    Raises:
        UsageError: it is none of these, or no JSON object.
    """
    if not isinstance(value, str):
        return copy.deepcopy(dict(value))
    name = value.strip().replace("_", "-")
    if (preset := PRESETS.get(_OTHER_NAMES.get(name, name))) is not None:
        return copy.deepcopy(dict(preset))
    text = value
    if not value.lstrip().startswith("{"):
        file = Path(value).expanduser()
        if not file.is_file():
            raise UsageError(
                f"--deepspeed {value}: is no file, and the presets are {', '.join(PRESETS)}."
                f"{suggest(name, PRESETS)}"
            )
        text = file.read_text(encoding="utf-8")
    try:
        config = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--deepspeed {value}: can't be read as JSON: {error}") from error
    if not isinstance(config, dict):
        raise UsageError(f"--deepspeed {value}: holds no JSON object")
    return config


def stage_of(config: Mapping[str, Any]) -> int:
    """Return which parts are divided: 0 none, 1 the optimizer, 2 gradients too, 3 weights too."""
    return int(config.get("zero_optimization", {}).get("stage", 0))


def for_device(config: Mapping[str, Any], device: str) -> dict[str, Any]:
    """Return the configuration without what only works on GPUs, where the run is on CPUs."""
    result = copy.deepcopy(dict(config))
    if device != "cpu":
        return result
    zero = result.get("zero_optimization", {})
    for part in ("offload_optimizer", "offload_param"):
        if part in zero:
            zero[part]["pin_memory"] = False
    if "overlap_comm" in zero:
        zero["overlap_comm"] = False
    return result
