"""Checkpoint directories: written whole or not at all, read back, listed, and thinned out.

A checkpoint holds what plain peft or plain transformers loads, the tokenizer with its chat template, and
``sft_args.json`` with the arguments it was made with.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ft_core.divided_checkpoints import put_together
from ft_core.errors import FtError, ModelError
from ft_core.hub.files import missing_weights
from ft_core.tuner import WHOLE_MODEL, SftType
from ft_core.whole_directories import atomic_directory as atomic_directory

if TYPE_CHECKING:
    from transformers import GenerationConfig

    from ft_core.tokenizer import Tokenizer

ARGUMENTS_FILE = "sft_args.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
OLDER_FOLDER = "default"
"""Where ``--tuner_backend swift`` puts an adapter inside a checkpoint."""

SAVED_ARGUMENTS = (
    "model_type",
    "model_id_or_path",
    "model_revision",
    "template_type",
    "dtype",
    "quant_method",
    "quantization_bit",
    "bnb_4bit_comp_dtype",
    "bnb_4bit_quant_type",
    "bnb_4bit_use_double_quant",
    "bnb_4bit_quant_storage",
    "hqq_axis",
    "hqq_dynamic_config_path",
    "custom_register_path",
    "custom_dataset_info",
    "sft_type",
    "rope_scaling",
    "system",
    "enable_thinking",
    "chat_template_kwargs",
    "template_date",
    "tools_prompt",
)
"""Arguments that a command which is given a checkpoint takes from it."""

SAVED_DATASET_ARGUMENTS = (
    "dataset",
    "val_dataset",
    "dataset_seed",
    "dataset_test_ratio",
    "check_dataset_strategy",
    "self_cognition_sample",
    "model_name",
    "model_author",
    "train_dataset_sample",
    "val_dataset_sample",
)
"""Further ones that it takes with ``--load_dataset_config true``."""

_STEP = re.compile(r"checkpoint-(\d+)")
_PATHS = (
    "model_id_or_path",
    "custom_register_path",
    "custom_dataset_info",
    "hqq_dynamic_config_path",
)

_ON_PEFT = frozenset({"lora", "adalora", "ia3", "vera", "boft", "fourierft"})
_NATIVE = frozenset({"adapter"})


@dataclass(frozen=True, slots=True)
class SavedCheckpoint:
    """A checkpoint on disk.

    Attributes:
        path: its directory, absolute.
        kind: the tuner that made it.
        arguments: all of its ``sft_args.json``; empty for a checkpoint that ft didn't write.
        base: what an adapter's configuration names as its base model; ``None`` for a whole model.
        base_revision: the revision of ``base`` on its hub, where the adapter names one.
        scores: whether it is the adapter of a model that gives scores in place of next tokens.
    """

    path: Path
    kind: SftType
    arguments: Mapping[str, Any]
    base: str | None = None
    base_revision: str | None = None
    scores: bool = False

    @property
    def whole(self) -> bool:
        """Whether it is a whole model; an adapter needs its base."""
        return self.kind in WHOLE_MODEL


def open_checkpoint(path: str | Path) -> SavedCheckpoint:
    """Read what a checkpoint directory is; parts that DeepSpeed or FSDP wrote are put together first.

    Raises:
        ModelError: it is no checkpoint; the message says what is missing, and for a run directory which
            checkpoints it holds.
    """
    directory = Path(path).expanduser().resolve()
    if not directory.is_dir():
        what = "is a file" if directory.exists() else "does not exist"
        raise ModelError(
            f"--ckpt_dir {path}: {what}; give the directory of a checkpoint{_nearby(directory)}"
        )
    arguments = (
        _read_json(directory / ARGUMENTS_FILE) if (directory / ARGUMENTS_FILE).is_file() else {}
    )
    for folder in (directory, directory / OLDER_FOLDER):
        if (folder / ADAPTER_CONFIG).is_file():
            return _open_adapter(directory, folder, arguments)
    if (directory / "config.json").is_file():
        if (missing := missing_weights(directory)) and not put_together(directory):
            raise ModelError(
                f"--ckpt_dir {path}: has config.json but no {missing[0]}; the copy is incomplete"
            )
        trained: SftType = "llamapro" if arguments.get("sft_type") == "llamapro" else "full"
        return SavedCheckpoint(directory, trained, arguments)
    checkpoints = list_checkpoints(directory)
    if checkpoints:
        names = ", ".join(item.name for item in checkpoints)
        raise ModelError(
            f"--ckpt_dir {path}: is a run directory; give one of its checkpoints: {names} "
            f"(the last is {checkpoints[-1]})"
        )
    raise ModelError(
        f"--ckpt_dir {path}: is no checkpoint: it has neither {ADAPTER_CONFIG} (an adapter) nor config.json "
        "(a whole model)"
    )


def saved_arguments(path: str | Path, *, datasets: bool = False) -> dict[str, Any]:
    """Return the arguments that a command takes over from a checkpoint.

    Args:
        path: the checkpoint.
        datasets: include those that say which rows it was trained on.

    Returns:
        The arguments that are saved and not ``None``; for a checkpoint that ft didn't write, what its
        kind tells (``sft_type``, and for an adapter its base).

    Raises:
        ModelError: as ``open_checkpoint``.
    """
    checkpoint = open_checkpoint(path)
    wanted = SAVED_ARGUMENTS + (SAVED_DATASET_ARGUMENTS if datasets else ())
    found = {
        name: checkpoint.arguments[name]
        for name in wanted
        if checkpoint.arguments.get(name) is not None
    }
    found.setdefault("sft_type", checkpoint.kind)
    if checkpoint.base and "model_type" not in found:
        found.setdefault("model_id_or_path", checkpoint.base)
        if checkpoint.base_revision:
            found.setdefault("model_revision", checkpoint.base_revision)
    return found


def write_sidecars(
    directory: Path,
    *,
    tokenizer: Tokenizer | None = None,
    chat_template: str | None = None,
    generation_config: GenerationConfig | None = None,
    arguments: Mapping[str, Any] | None = None,
    processor: Path | None = None,
) -> None:
    """Write what belongs beside the weights of a checkpoint.

    Args:
        directory: the checkpoint that is being written.
        tokenizer: is saved so that transformers' ``AutoTokenizer`` loads it.
        chat_template: the Jinja form of the format that was trained; replaces the tokenizer's own.
        generation_config: with the stop tokens of that format.
        arguments: name → value, written as ``sft_args.json``. Paths that exist are made absolute, so that
            the checkpoint works from any directory.
        processor: the directory whose processor of images, videos and audios is the model's.
    """
    if processor is not None:
        from ft_core.media.loading import copy_processor

        copy_processor(processor, directory)
    if tokenizer is not None:
        tokenizer.save(directory, chat_template=chat_template)
    if generation_config is not None:
        generation_config.save_pretrained(directory)
    if arguments is not None:
        values = {name: _absolute(name, value) for name, value in arguments.items()}
        text = json.dumps(values, indent=2, ensure_ascii=False, default=str)
        (directory / ARGUMENTS_FILE).write_text(text + "\n", encoding="utf-8")


def list_checkpoints(run_directory: Path) -> list[Path]:
    """Return the ``checkpoint-<step>`` directories of a run, by step."""
    if not run_directory.is_dir():
        return []
    found = [
        (int(match[1]), item)
        for item in run_directory.iterdir()
        if (match := _STEP.fullmatch(item.name)) and item.is_dir()
    ]
    return [item for _, item in sorted(found)]


def prune(
    run_directory: Path, keep: int | None, *, best: Path | None = None, last: Path | None = None
) -> list[Path]:
    """Delete the oldest checkpoints of a run until ``keep`` are left; never the best or the last.

    Args:
        run_directory: holds ``checkpoint-<step>`` directories.
        keep: how many may stay; ``None`` or a negative number keeps all. Best and last count, and stay
            even where that makes more than ``keep``.
        best: the best checkpoint so far.
        last: the last one; ``None`` takes the one with the highest step.

    Returns:
        The deleted directories.

    Raises:
        FtError: one can't be deleted.
    """
    checkpoints = list_checkpoints(run_directory)
    if keep is None or keep < 0 or not checkpoints:
        return []
    safe = {item.resolve() for item in (best, last or checkpoints[-1]) if item is not None}
    candidates = [item for item in checkpoints if item.resolve() not in safe]
    surplus = candidates[: max(len(checkpoints) - keep, 0)]
    for item in surplus:
        _delete(item)
    return surplus


def _open_adapter(directory: Path, folder: Path, arguments: Mapping[str, Any]) -> SavedCheckpoint:
    config = _read_json(folder / ADAPTER_CONFIG)
    there = any((folder / name).is_file() for name in ADAPTER_WEIGHTS)
    if not there and not put_together(folder):
        raise ModelError(
            f"--ckpt_dir {directory}: has {ADAPTER_CONFIG} but no adapter weights ({ADAPTER_WEIGHTS[0]}); "
            "the copy is incomplete"
        )
    return SavedCheckpoint(
        directory,
        _adapter_kind(directory, config, arguments),
        arguments,
        config.get("base_model_name_or_path"),
        config.get("revision"),
        config.get("task_type") == "SEQ_CLS",
    )


def _adapter_kind(
    directory: Path, config: Mapping[str, Any], arguments: Mapping[str, Any]
) -> SftType:
    """Return the tuner of an adapter; LongLoRA's is one of LoRA, so what was saved with it tells."""
    native = config.get("ft_tuner")
    kind = str(native or config.get("swift_type") or config.get("peft_type") or "unknown").lower()
    if kind not in (_NATIVE if native else _ON_PEFT | {"longlora"}):
        known = ", ".join(sorted(_ON_PEFT | _NATIVE))
        raise ModelError(
            f"--ckpt_dir {directory}: is an adapter of type {kind}; {known} can be loaded"
        )
    if kind == "lora" and arguments.get("sft_type") == "longlora":
        return "longlora"
    return cast(SftType, kind)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file}: can't be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{file}: holds no JSON object")
    return content


def _nearby(directory: Path) -> str:
    checkpoints = list_checkpoints(directory.parent)
    return f" (there are {', '.join(item.name for item in checkpoints)})" if checkpoints else ""


def _absolute(name: str, value: Any) -> Any:
    if name in _PATHS and isinstance(value, str) and (path := Path(value).expanduser()).exists():
        return str(path.resolve())
    return value


def _delete(directory: Path) -> None:
    """Remove a checkpoint; what a reader could see of it disappears at once."""
    try:
        hidden = directory.with_name(f".{directory.name}.deleted")
        directory.rename(hidden)
        shutil.rmtree(hidden)
    except OSError as error:
        raise FtError(f"the old checkpoint {directory} can't be deleted: {error}") from error
