"""Checkpoints whose weights lie in parts, as DeepSpeed and FSDP write them: put together once, a few tensors at a time.

The parts are pickled, so what they would import is looked at before anything of them is loaded.
"""

from __future__ import annotations

import json
import pickletools
import sys
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ft_core.errors import DependencyError, ModelError
from ft_core.whole_directories import atomic_directory

if TYPE_CHECKING:
    import torch

ENGINE_POINTER = "latest"
"""DeepSpeed's file that names the folder of its parts."""

FSDP_FOLDERS = ("pytorch_model_fsdp_0", "pytorch_model_fsdp")
"""Where accelerate has the parts of a model that FSDP divided."""

PARTS_METADATA = ".metadata"
SHARD_BYTES = 4 << 30

_METADATA = "torch.distributed.checkpoint.metadata"
_ALLOWED = frozenset(
    {
        "collections.OrderedDict",
        "collections.defaultdict",
        "builtins.set",
        "builtins.dict",
        "pathlib.PosixPath",
        "torch.Size",
        "torch.Tensor",
        "torch.device",
        "torch._tensor._rebuild_from_type_v2",
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_parameter",
        "torch.serialization._get_layout",
        "torch.distributed.checkpoint.filesystem._StorageInfo",
        "torch.distributed.checkpoint.filesystem._StoragePrefix",
        *(
            f"{_METADATA}.{name}"
            for name in (
                *("Metadata", "MetadataIndex", "StorageMeta", "ChunkStorageMetadata"),
                *("BytesStorageMetadata", "TensorStorageMetadata", "TensorProperties"),
                "_MEM_FORMAT_ENCODING",
            )
        ),
        "deepspeed.runtime.fp16.loss_scaler.LossScaler",
        "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler",
        "deepspeed.runtime.zero.config.ZeroStageEnum",
        "deepspeed.utils.tensor_fragment.fragment_address",
    }
)
"""What the parts may import, besides data types and storages of torch."""


def put_together(directory: Path) -> bool:
    """Write the weights of a checkpoint beside its parts, if it has parts and no weights.

    Args:
        directory: a checkpoint with ``config.json`` or ``adapter_config.json``.

    Returns:
        Whether there were parts.

    Raises:
        ModelError: the parts are incomplete, or hold more than tensors and settings.
        DependencyError: they are DeepSpeed's, and it is not installed.
    """
    parts = next((directory / name for name in FSDP_FOLDERS if (directory / name).is_dir()), None)
    if parts is not None:
        metadata = parts / PARTS_METADATA
        if not metadata.is_file():
            raise ModelError(f"{parts} lacks {PARTS_METADATA}: the copy is incomplete")
        _refuse_code(metadata, [metadata.read_bytes()])
        _say(directory, "FSDP")
        _write(directory, _of_fsdp(parts))
        return True
    if (directory / ENGINE_POINTER).is_file():
        check_engine_parts(directory)
        _say(directory, "DeepSpeed")
        _write(directory, _of_deepspeed(directory))
        return True
    return False


def check_engine_parts(directory: Path) -> None:
    """Refuse parts of DeepSpeed that hold more than tensors and settings.

    Raises:
        ModelError: naming the file and what it would import; or the parts are missing.
    """
    folder = directory / (directory / ENGINE_POINTER).read_text(encoding="utf-8").strip()
    files = sorted(folder.glob("*.pt"))
    if not files:
        raise ModelError(f"{folder} holds no parts of DeepSpeed: the copy is incomplete")
    for file in files:
        with zipfile.ZipFile(file) as archive:
            names = [name for name in archive.namelist() if name.endswith(".pkl")]
            _refuse_code(file, [archive.read(name) for name in names])


def _refuse_code(file: Path, pickles: Iterable[bytes]) -> None:
    for name in (name for content in pickles for name in _imports(content)):
        if name not in _ALLOWED and not _is_type_of_torch(name):
            raise ModelError(
                f"{file} would import {name} when it is read, which no checkpoint needs: it isn't loaded; take the "
                "weights from where they were trained, as safetensors"
            )


def _is_type_of_torch(name: str) -> bool:
    """Whether it is a data type or a kind of storage, such as ``torch.float32``."""
    import torch

    module, _, attribute = name.rpartition(".")
    if module != "torch":
        return False
    return attribute.endswith("Storage") or isinstance(getattr(torch, attribute, None), torch.dtype)


def _imports(content: bytes) -> Iterator[str]:
    """Return what a pickle imports, as ``module.name``."""
    texts: list[str] = []
    memo: dict[int, str] = {}
    for operation, argument, _ in pickletools.genops(content):
        if operation.name in ("GLOBAL", "INST"):
            yield str(argument).replace(" ", ".")
        elif operation.name == "STACK_GLOBAL":
            yield ".".join(texts[-2:])
        elif operation.name == "MEMOIZE":
            memo[len(memo)] = texts[-1] if texts else ""
        elif operation.name in ("BINGET", "LONG_BINGET") and argument in memo:
            texts.append(memo[argument])
        elif isinstance(argument, str):
            texts.append(argument)


def _of_deepspeed(directory: Path) -> Iterator[tuple[str, torch.Tensor]]:
    try:
        from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint
    except ImportError as error:
        raise DependencyError(
            f"{directory} (parts of DeepSpeed)", "DeepSpeed", "pip install 'ft-train[deepspeed]'"
        ) from error
    lazy: dict[str, Any] = get_fp32_state_dict_from_zero_checkpoint(str(directory), lazy_mode=True)
    seen: set[int] = set()
    for name in _wanted(directory, lazy):
        item = lazy[name]
        if id(item) not in seen:  # tied weights are one item by two names
            seen.add(id(item))
            yield name, item.contiguous()


def _wanted(directory: Path, names: Iterable[str]) -> list[str]:
    """Return the names of what a checkpoint holds: of an adapter's model the adapter, which peft calls ``default``.

    Parts of an adapter alone (accelerate's ``adapter_only``) have no such mark, and no layers under it.
    """
    found = list(names)
    if not (directory / "adapter_config.json").is_file():
        return found
    marked = [name for name in found if ".default" in name]
    whole = any(".base_layer." in name for name in found)
    return marked if marked or whole else found


def _of_fsdp(parts: Path) -> Iterator[tuple[str, torch.Tensor]]:
    import torch
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata
    from torch.distributed.checkpoint.state_dict_loader import load

    found = FileSystemReader(parts).read_metadata().state_dict_metadata
    for name in _wanted(parts.parent, found):
        item = found[name]
        if isinstance(item, TensorStorageMetadata):
            state = {name: torch.empty(item.size, dtype=item.properties.dtype)}
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
                load(state, storage_reader=FileSystemReader(parts), no_dist=True)
            yield name.removeprefix("model.") if name.startswith(_NESTED) else name, state[name]


_NESTED = ("model.model.", "model.lm_head.", "model.base_model.", "model.transformer.")
"""How names begin where a whole state dict lies under ``model``."""


def _write(directory: Path, tensors: Iterator[tuple[str, torch.Tensor]]) -> None:
    """Write tensors as safetensors, in files of about ``SHARD_BYTES``, and make them appear together."""
    from safetensors.torch import save_file

    adapter = (directory / "adapter_config.json").is_file()
    stem = "adapter_model" if adapter else "model"
    target = directory / ".together"
    places: dict[str, int] = {}
    with atomic_directory(target, replace=True) as scratch:
        held: dict[str, torch.Tensor] = {}
        size = number = 0
        for name, tensor in tensors:
            key = name.replace(".modules_to_save.default", "").replace(".default", "")
            if held and size + tensor.nbytes > SHARD_BYTES and not adapter:
                save_file(held, scratch / f"{number}", metadata={"format": "pt"})
                held, size, number = {}, 0, number + 1
            held[key], places[key] = tensor, number
            size += tensor.nbytes
        if not places:
            raise ModelError(f"{directory}: its parts hold no weights")
        save_file(held, scratch / f"{number}", metadata={"format": "pt"})
    _name(directory, target, stem, places)


def _name(directory: Path, scratch: Path, stem: str, places: dict[str, int]) -> None:
    """Give the files the names that transformers and peft look for; the index comes last."""
    count = max(places.values()) + 1
    if count == 1:
        (scratch / "0").replace(directory / f"{stem}.safetensors")
    else:
        names = [f"{stem}-{n + 1:05d}-of-{count:05d}.safetensors" for n in range(count)]
        for number, name in enumerate(names):
            (scratch / f"{number}").replace(directory / name)
        index = {"metadata": {}, "weight_map": {key: names[n] for key, n in places.items()}}
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        (directory / f"{stem}.safetensors.index.json").write_text(text, encoding="utf-8")
    scratch.rmdir()


def _say(directory: Path, whose: str) -> None:
    print(f"{directory}: putting together the parts that {whose} wrote (once)", file=sys.stderr)
