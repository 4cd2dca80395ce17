"""What lies beside the weights of a whole model: tokenizer, chat format, stops, and the arguments it was made with."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from ft_core.checkpoints import SavedCheckpoint, write_sidecars
from ft_core.prepare import Prepared
from ft_quant.compat import make_readable_by_v4
from ft_quant.dtypes import stored_dtype_name

# What a checkpoint keeps beside its weights; all but the first group belong to the base where the
# checkpoint has none of its own.
_TOKENIZER_FILES = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
    "*.tiktoken",
    "chat_template.*",
    "chat_templates",
)
_OTHER_FILES = (
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "*.py",
)
_UNQUANTIZED: Mapping[str, Any] = {"quant_method": None, "quantization_bit": 0}


def copy_sidecars(checkpoint: Path, base: Path, directory: Path) -> None:
    """Copy what a checkpoint has beside its weights, and what it lacks of its base's."""
    has_tokenizer = any(
        (checkpoint / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")
    )
    for pattern in _TOKENIZER_FILES:
        _copy((checkpoint if has_tokenizer else base).glob(pattern), directory)
    for pattern in _OTHER_FILES:
        _copy(base.glob(pattern), directory)
        _copy(checkpoint.glob(pattern), directory)


def whole_arguments(arguments: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """Return a checkpoint's arguments as they are true of the whole model."""
    plain = {name: value for name, value in _UNQUANTIZED.items() if name in arguments}
    return {**arguments, **plain, "sft_type": "full", "dtype": dtype}


def write_around(
    prepared: Prepared,
    directory: Path,
    *,
    compat: Literal["v5", "v4"],
    source: Path | None = None,
    weights: bool = True,
) -> None:
    """Write what belongs beside the weights of a result, so that others ask it as ft does.

    Args:
        prepared: the model, its tokenizer and the chat format in use.
        directory: holds weights and configuration.
        compat: the oldest transformers that must read it.
        source: a directory whose other files come along.
        weights: whether the directory holds weights that transformers loads by itself.
    """
    if source is not None:
        copy_sidecars(source, source, directory)
    write_sidecars(
        directory,
        tokenizer=prepared.tokenizer,
        chat_template=prepared.chosen.template.to_jinja(),
        generation_config=prepared.generation_config(),
        arguments=whole_arguments(
            _saved(prepared, prepared.checkpoint),
            stored_dtype_name(directory if source is None else source),
        )
        if weights
        else None,
    )
    if compat == "v4":
        make_readable_by_v4(directory)


def _saved(prepared: Prepared, checkpoint: SavedCheckpoint | None) -> Mapping[str, Any]:
    if checkpoint is not None and checkpoint.arguments:
        return checkpoint.arguments
    spec = prepared.source.spec
    return {
        "model_type": None if spec is None else spec.model_type,
        "template_type": prepared.chosen.template.name,
    }


def _copy(files: Iterable[Path], directory: Path) -> None:
    for file in files:
        if file.is_dir():
            shutil.copytree(file, directory / file.name, dirs_exist_ok=True)
        else:
            shutil.copyfile(file, directory / file.name)
