"""Weights of a model directory, read tensor by tensor and written shard by shard."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ft_core.errors import ModelError

_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class Weights:
    """The tensors of a model on disk.

    Attributes:
        directory: of the model.
        shards: file → names of its tensors, in their order there.
    """

    directory: Path
    shards: Mapping[str, tuple[str, ...]]

    @property
    def names(self) -> tuple[str, ...]:
        """All tensors."""
        return tuple(name for names in self.shards.values() for name in names)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum((self.directory / file).stat().st_size for file in self.shards)

    @property
    def largest_shard(self) -> int:
        """Bytes of the largest file."""
        return max((self.directory / file).stat().st_size for file in self.shards)

    def read(self, name: str) -> torch.Tensor:
        """Return one tensor, on the CPU.

        Raises:
            ModelError: there is none of that name, or the file is damaged.
        """
        for file, names in self.shards.items():
            if name in names:
                return _read(self.directory / file, name)
        raise ModelError(f"{self.directory} has no tensor {name}")

    def shape(self, name: str) -> torch.Size:
        """Return a tensor's shape, which is read from the file's head."""
        file = next(file for file, names in self.shards.items() if name in names)
        with safe_open(self.directory / file, framework="pt") as tensors:
            return torch.Size(tensors.get_slice(name).get_shape())


def open_weights(directory: Path) -> Weights:
    """Find the tensors of a model directory; nothing is loaded.

    Raises:
        ModelError: it has no safetensors, or a file is missing or damaged.
    """
    index = directory / _INDEX
    if index.is_file():
        names: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = tuple(dict.fromkeys(names.values()))
    else:
        files = tuple(sorted(item.name for item in directory.glob("*.safetensors")))
    if not files:
        raise ModelError(
            f"{directory} has no safetensors; load it and save it again (ft export reads no pickled weights)"
        )
    return Weights(directory, {file: _names(directory / file) for file in files})


Change = Callable[[str], Mapping[str, torch.Tensor]]
"""What becomes of the tensor of a name: any number of tensors by name."""


def rewrite(weights: Weights, target: Path, change: Change) -> int:
    """Write a model's weights anew, one shard after another, so that no more than one is held.

    Args:
        weights: the source.
        target: an existing directory.
        change: is called with the name of each tensor; what it returns is written.

    Returns:
        The bytes written.

    Raises:
        ModelError: a file of the source is damaged.
    """
    files = _file_names(len(weights.shards))
    where: dict[str, str] = {}
    size = 0
    for file, names in zip(files, weights.shards.values(), strict=True):
        tensors: dict[str, torch.Tensor] = {}
        for name in names:
            for written, tensor in change(name).items():
                tensors[written] = tensor.detach().contiguous()
        save_file(tensors, target / file, metadata={"format": "pt"})
        where.update(dict.fromkeys(tensors, file))
        size += sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if len(files) > 1:
        content = {"metadata": {"total_size": size}, "weight_map": dict(sorted(where.items()))}
        (target / _INDEX).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return size


def _file_names(count: int) -> list[str]:
    if count == 1:
        return ["model.safetensors"]
    return [f"model-{n:05d}-of-{count:05d}.safetensors" for n in range(1, count + 1)]


def _names(file: Path) -> tuple[str, ...]:
    try:
        with safe_open(file, framework="pt") as tensors:
            return tuple(tensors.keys())
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file}: can't be read: {error}; fetch it again") from error


def _read(file: Path, name: str) -> torch.Tensor:
    try:
        with safe_open(file, framework="pt") as tensors:
            found: torch.Tensor = tensors.get_tensor(name)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file}: {name} can't be read: {error}; fetch it again") from error
    return found
