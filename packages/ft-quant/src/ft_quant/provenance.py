"""What a result was made of: ``export.json``."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ft_core.checkpoints import ADAPTER_WEIGHTS, OLDER_FOLDER, SavedCheckpoint
from ft_core.models.resolution import ModelSource

EXPORT_FILE = "export.json"

_PACKAGES = (
    *("ft-core", "ft-quant", "torch", "transformers", "peft", "safetensors", "tokenizers"),
    *("gguf", "bitsandbytes", "compressed-tensors", "gptqmodel", "optimum"),
)
_OWN = frozenset({EXPORT_FILE, "README.md"})


def origin_of(source: ModelSource, checkpoint: SavedCheckpoint | None) -> dict[str, Any]:
    """Return what a result is made of: the base, and the adapter or checkpoint with the hash of its weights."""
    found: dict[str, Any] = {
        "model": source.name,
        "hub": source.hub,
        "location": source.name if source.hub == "local" else source.location,
        "revision": source.revision,
    }
    if checkpoint is not None:
        found["checkpoint"] = {
            "name": f"{checkpoint.path.parent.name}/{checkpoint.path.name}",
            "sft_type": checkpoint.kind,
            "sha256": weight_hashes(checkpoint.path),
            "dataset": checkpoint.arguments.get("dataset") or [],
        }
    return found


def weight_hashes(directory: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of weights in a checkpoint, by name."""
    files = [
        *sorted(directory.glob("*.safetensors")),
        *sorted(directory.glob("*.bin")),
        *(directory / OLDER_FOLDER / name for name in ADAPTER_WEIGHTS),
    ]
    return {
        str(file.relative_to(directory)): file_hash(file)
        for file in files
        if file.is_file() and file.name != "training_args.bin"
    }


def file_hash(file: Path) -> str:
    """Return the SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_record(directory: Path, record: Mapping[str, Any]) -> None:
    """Write ``export.json``: what is given, with versions, and size and hash of every other file."""
    files = {
        str(file.relative_to(directory)): {"bytes": file.stat().st_size, "sha256": file_hash(file)}
        for file in sorted(directory.rglob("*"))
        if file.is_file() and file.name not in _OWN
    }
    content = {
        **record,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "files": files,
    }
    text = json.dumps(content, indent=2, ensure_ascii=False, default=str, allow_nan=False)
    (directory / EXPORT_FILE).write_text(text + "\n", encoding="utf-8")


def versions() -> dict[str, str]:
    """Return the versions of what a result depends on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
