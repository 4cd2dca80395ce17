"""The data type that a model directory's weights are stored in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ft_core.errors import ModelError
from ft_core.models.dtype import TORCH_DTYPES

DTYPE_NAMES: Mapping[torch.dtype, str] = {dtype: name for name, dtype in TORCH_DTYPES.items()}
"""The data types that weights are written in, by torch's."""


def stored_dtype(directory: Path) -> torch.dtype:
    """Return the data type that a model directory's weights are stored in, as one that ft writes.

    The configuration says it; where it doesn't, the first floating-point tensor does. Anything but
    bf16 and fp16 is float32.

    Raises:
        ModelError: a file is damaged.
    """
    config = read_config(directory)
    for part in (config, config.get("text_config") or {}):
        for key in ("dtype", "torch_dtype"):
            if isinstance(part.get(key), str):
                return _writable(getattr(torch, part[key].removeprefix("torch."), torch.float32))
    for file in sorted(directory.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as tensors:
                names = {str(tensors.get_slice(name).get_dtype()) for name in tensors.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{file}: can't be read: {error}; fetch it again") from error
        for name, dtype in (("BF16", torch.bfloat16), ("F16", torch.float16)):
            if name in names:
                return dtype
    return torch.float32


def stored_dtype_name(directory: Path) -> str:
    """Return ``stored_dtype`` as flags name it: ``bf16``, ``fp16`` or ``fp32``."""
    return DTYPE_NAMES[stored_dtype(directory)]


def read_config(directory: Path) -> dict[str, Any]:
    """Return a model's ``config.json``.

    Raises:
        ModelError: it can't be read or holds no object.
    """
    file = directory / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file}: can't be read as JSON: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{file}: holds no JSON object")
    return config


def _writable(dtype: object) -> torch.dtype:
    return dtype if isinstance(dtype, torch.dtype) and dtype in DTYPE_NAMES else torch.float32
