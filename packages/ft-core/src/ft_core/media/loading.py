"""Loading the processor that belongs to a model."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path
from typing import Any

from ft_core.errors import DependencyError, ModelError
from ft_core.tokenizer.files import read_json

PROCESSOR_FILES = (
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
)
"""What a model's directory says of its processor."""


def has_processor(directory: Path) -> bool:
    """Whether a model sees or hears, by the files of its directory."""
    if not any((directory / name).is_file() for name in PROCESSOR_FILES):
        return False
    config = read_json(directory / "config.json")
    parts = [
        key for key, value in config.items() if key.endswith("_config") and isinstance(value, dict)
    ]
    return any(key != "text_config" and key != "quantization_config" for key in parts) or (
        not config and read_processor_settings(directory) != {}
    )


def read_processor_settings(directory: Path) -> dict[str, Any]:
    """Return what the files say, by their names."""
    return {name: found for name in PROCESSOR_FILES if (found := read_json(directory / name))}


def copy_processor(source: Path, target: Path) -> None:
    """Put a processor's files into a checkpoint, so that it can be loaded alone."""
    for name in PROCESSOR_FILES:
        file = source / name
        if file.is_file() and not ((target / name).exists() and (target / name).samefile(file)):
            shutil.copyfile(file, target / name)


def load_processor(directory: Path) -> Any:
    """Return the processor of transformers that a model's directory names.

    Processors of video need torchvision. Where it isn't installed, or nothing was saved of a part for videos, one
    that also takes images is loaded without it.

    Raises:
        ModelError: it can't be loaded.
        DependencyError: a package that it needs is not installed.
    """
    from transformers import AutoProcessor, ProcessorMixin
    from transformers.utils import is_torchvision_available

    try:
        kind = _processor_class(directory)
        if kind is None:
            loaded = AutoProcessor.from_pretrained(directory, local_files_only=True)
        else:
            whole = is_torchvision_available() and _has_video(directory)
            chosen = kind if whole else without_video(kind)
            loaded = chosen.from_pretrained(directory, local_files_only=True)
    except ImportError as error:
        said = " ".join(str(error).split())
        raise DependencyError(
            f"the processor of {directory}", f"a package: {said}", "pip install 'ft-core[media]'"
        ) from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        # A few processors read the settings of their part for videos at once.
        lacks = isinstance(error, TypeError | AttributeError) and not is_torchvision_available()
        if lacks and _has_video(directory):
            raise DependencyError(
                f"the processor of {directory}", "torchvision", "pip install 'ft-core[video]'"
            ) from error
        raise ModelError(f"the processor in {directory} can't be loaded: {error}") from error
    if not isinstance(loaded, ProcessorMixin):
        raise ModelError(
            f"{directory} has a processor for {type(loaded).__name__} alone, none that joins text and media"
        )
    return loaded


def _has_video(directory: Path) -> bool:
    """Whether there is something that transformers makes a processor of videos from."""
    found = read_processor_settings(directory)
    whole = found.pop("processor_config.json", {})
    return bool(found) or "video_processor" in whole


def _processor_class(directory: Path) -> Any:
    """Return the class that the files name; ``None`` where they name none, or one that transformers doesn't have."""
    import transformers

    settings = read_processor_settings(directory)
    names = [found.get("processor_class") for found in settings.values()]
    names.append(read_json(directory / "tokenizer_config.json").get("processor_class"))
    name = next((item for item in names if isinstance(item, str)), None)
    if name is None:
        return None
    return getattr(transformers, name, None)


@functools.cache
def without_video(kind: Any) -> Any:
    """Return a processor's class that has no part for videos, if it has one; it takes ``None`` in its place."""
    every = kind.get_attributes()
    if "video_processor" not in every:
        return kind
    place = every.index("video_processor")

    def from_args_and_dict(
        _: Any, /, args: list[Any], settings: dict[str, Any], **more: Any
    ) -> Any:
        whole = [*args[:place], None, *args[place:]]
        return kind.from_args_and_dict.__func__(made, whole, settings, **more)

    made = type(
        kind.__name__,
        (kind,),
        {
            "lacks_video": True,
            "get_attributes": classmethod(lambda _: [n for n in every if n != "video_processor"]),
            "from_args_and_dict": classmethod(from_args_and_dict),
        },
    )
    return made
