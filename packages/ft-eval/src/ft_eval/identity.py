"""What a model is, in hashes: what its answers depend on, and what a reader needs to repeat them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ft_core.errors import ModelError

WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt", ".pth")
SETTINGS = ("config.json", "adapter_config.json")
PACKAGES = (
    "ft-core",
    "ft-eval",
    "ft-serve",
    "torch",
    "transformers",
    "peft",
    "tokenizers",
    "lm-eval",
    "sacrebleu",
    "rouge-score",
    "numpy",
)

_SHA256 = re.compile(r"[0-9a-f]{64}")


def weights_digest(directory: Path) -> str:
    """Return a hash of a directory's weights and of the settings that give them their meaning.

    Files of the Hugging Face cache carry their hash in the name of what they point to; all others are read,
    several at a time.

    Raises:
        ModelError: there are no weights.
    """
    names = sorted(
        path
        for path in directory.iterdir()
        if path.suffix in WEIGHTS and path.name not in ("training_args.bin", "optimizer.pt")
    )
    if not names:
        raise ModelError(f"{directory}: holds no weights ({', '.join(WEIGHTS)})")
    names += [directory / name for name in SETTINGS if (directory / name).is_file()]
    with ThreadPoolExecutor(4) as pool:
        hashes = list(pool.map(_hash, names))
    whole = hashlib.sha256()
    for path, found in zip(names, hashes, strict=True):
        whole.update(f"{path.name} {found}\n".encode())
    return whole.hexdigest()[:32]


def _hash(file: Path) -> str:
    if file.is_symlink() and _SHA256.fullmatch(target := file.readlink().name):
        return target
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def versions() -> Mapping[str, str]:
    """Return the versions of what computes the numbers, as far as it is installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
