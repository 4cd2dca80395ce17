"""The layout of adapters that ``--tuner_backend swift`` writes and reads.

It is that of version 2 of the older toolkit: the adapter lies in ``default/``, its configuration names
``swift_type``, and the names of its tensors are those of the model, with the adapter's name in them. The
adapter itself is the same as peft's, so that one form turns into the other without loss.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from ft_core.checkpoints import ADAPTER_CONFIG, ADAPTER_WEIGHTS, OLDER_FOLDER
from ft_core.errors import ModelError

_PREFIX = "base_model.model."
_NAME = "default"
_EXTRA_STATES = "extra_states"


@contextmanager
def as_peft(directory: Path) -> Iterator[Path]:
    """Give a checkpoint's adapter in peft's form: the directory itself, or a copy that is converted.

    Raises:
        ModelError: it is in the older form and holds what peft has no form for.
    """
    if (directory / ADAPTER_CONFIG).is_file() or not (directory / OLDER_FOLDER).is_dir():
        yield directory
        return
    with tempfile.TemporaryDirectory(prefix="ft-adapter-") as temporary:
        to_peft(directory, Path(temporary))
        yield Path(temporary)


def to_peft(directory: Path, target: Path) -> None:
    """Write an adapter of the older layout as peft's.

    Args:
        directory: the checkpoint that has ``default/``.
        target: an existing directory.

    Raises:
        ModelError: it is no adapter of LoRA, or holds further weights beside it.
    """
    folder = directory / OLDER_FOLDER
    config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    kind = config.pop("swift_type", config.get("peft_type"))
    if kind not in ("LORA", "LONGLORA"):
        raise ModelError(f"{folder} holds an adapter of type {kind}; LORA and LONGLORA can be read")
    if (directory / _EXTRA_STATES).exists():
        raise ModelError(
            f"{directory / _EXTRA_STATES} holds weights beside the adapter, which peft has no place for"
        )
    if unknown := sorted(name for name in _OWN if config.pop(name, None)):
        raise ModelError(f"{folder}: peft's LoRA has nothing like {', '.join(unknown)}")
    weights = {_peft_name(name): value for name, value in _read(folder).items()}
    (target / ADAPTER_CONFIG).write_text(
        json.dumps({**config, "peft_type": "LORA"}, indent=2), encoding="utf-8"
    )
    save_file(weights, target / ADAPTER_WEIGHTS[0], metadata={"format": "pt"})


def from_peft(directory: Path, *, kind: str, safe_serialization: bool) -> None:
    """Turn a directory that peft wrote into the older layout, in place.

    Args:
        directory: holds an adapter of LoRA.
        kind: ``LORA`` or ``LONGLORA``.
        safe_serialization: write safetensors, else ``.bin``.
    """
    folder = directory / OLDER_FOLDER
    folder.mkdir()
    config = json.loads((directory / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    (folder / ADAPTER_CONFIG).write_text(
        json.dumps({**config, "swift_type": kind}, indent=2) + "\n", encoding="utf-8"
    )
    weights = {_older_name(name): value for name, value in _read(directory).items()}
    if safe_serialization:
        save_file(weights, folder / ADAPTER_WEIGHTS[0], metadata={"format": "pt"})
    else:
        torch.save(weights, folder / ADAPTER_WEIGHTS[1])
    for name in (ADAPTER_CONFIG, *ADAPTER_WEIGHTS):
        (directory / name).unlink(missing_ok=True)


_OWN = ("use_qa_lora", "use_merged_linear", "enable_lora", "lora_dtype")
"""Fields of the older configuration that peft's lacks; those that say something can't be converted."""


def _read(folder: Path) -> dict[str, Any]:
    for name in ADAPTER_WEIGHTS:
        if (folder / name).is_file():
            if name.endswith(".bin"):
                found: dict[str, Any] = torch.load(
                    folder / name, map_location="cpu", weights_only=True
                )
                return found
            return dict(load_file(folder / name))
    raise ModelError(f"{folder} has no {ADAPTER_WEIGHTS[0]}; the copy is incomplete")


def _peft_name(name: str) -> str:
    plain = name.replace(f".{_NAME}.", ".").removesuffix(f".{_NAME}")
    return plain if plain.startswith(_PREFIX) else _PREFIX + plain


def _older_name(name: str) -> str:
    plain = name.removeprefix(_PREFIX)
    for part in ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B"):
        plain = plain.replace(f".{part}.", f".{part}.{_NAME}.")
        if plain.endswith(f".{part}"):
            plain = f"{plain}.{_NAME}"
    return plain
