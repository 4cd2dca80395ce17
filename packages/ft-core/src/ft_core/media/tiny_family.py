"""What a tiny model of a family that sees or hears is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class TinyFamily:
    """How to make a tiny model of a family.

    Attributes:
        config_class: name in transformers.
        tokens: special tokens of its tokenizer, by the name that its processor knows them by.
        template: its chat template.
        settings: of its configuration, made from the ids of its special tokens.
        processor: makes its processor from a tokenizer of transformers.
        text: of the configuration of its language model.
    """

    config_class: str
    tokens: Mapping[str, str]
    template: str
    settings: Callable[[Mapping[str, int]], dict[str, Any]]
    processor: Callable[[Any, str], Any]
    text: Mapping[str, Any] = field(default_factory=dict)


def joined(name: str, videos: str, settings: Mapping[str, Any], **parts: Any) -> Any:
    """Return a processor of the class of a name, with a part for videos where transformers can make one."""
    import transformers
    from transformers.utils import is_torchvision_available

    from ft_core.media.loading import without_video

    kind = getattr(transformers, name)
    if "video_processor" not in kind.get_attributes():
        return kind(**parts)
    if is_torchvision_available():
        return kind(**parts, video_processor=getattr(transformers, videos)(**settings))
    if name == "SmolVLMProcessor":  # which takes none, but by a parameter without a default
        parts["video_processor"] = None
    return without_video(kind)(**parts)
