"""What is particular to a family of multimodal models, beyond what its processor says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from ft_core.media.grounding import PLAIN, GroundingStyle
from ft_core.samples import MediumKind


@dataclass(frozen=True, slots=True)
class MediaFamily:
    """A family of models.

    Attributes:
        marks: what stands for a medium in a conversation of a registered chat format; ``{n}`` is its number.
            A kind without one is written as the model's own chat template writes it.
        grounding: how names and boxes of things are written.
        tells_replacements: whether the processor says what it puts in place of each medium.
        depends_on_others: whether a medium's tokens depend on how many others the row has.
        types_always: whether training needs types of tokens for texts too.
        joined_along: the dimension along which features of several sequences are put together, where it isn't the
            first.
        video_rate: frames that are taken of a second of a video, by the processor's own rule, where the processor
            was not saved with what it takes; ``None`` takes ``video_frames``.
        video_frames: frames that are taken of a video where nothing else says how many.
    """

    marks: Mapping[MediumKind, str] = field(default_factory=dict)
    grounding: GroundingStyle = PLAIN
    tells_replacements: bool = True
    depends_on_others: bool = False
    types_always: bool = False
    joined_along: Mapping[str, int] = field(default_factory=dict)
    video_rate: float | None = None
    video_frames: int = 8


_QWEN_MARKS: Final[Mapping[MediumKind, str]] = {
    "image": "<|vision_start|><|image_pad|><|vision_end|>",
    "video": "<|vision_start|><|video_pad|><|vision_end|>",
}
_QWEN_RATE: Final = 2.0
"""That of the package qwen-vl-utils, which these models were trained with."""
_CORNERS = "[{x1}, {y1}, {x2}, {y2}]"

GENERIC = MediaFamily()
"""A family that nothing is known of: all is read off its processor."""

FAMILIES: Final[Mapping[str, MediaFamily]] = {
    "Qwen2VLProcessor": MediaFamily(
        _QWEN_MARKS,
        GroundingStyle(
            ("<|object_ref_start|>", "<|object_ref_end|>"),
            "<|box_start|>({x1},{y1}),({x2},{y2})<|box_end|>",
        ),
        video_rate=_QWEN_RATE,
    ),
    "Qwen2_5_VLProcessor": MediaFamily(
        _QWEN_MARKS, GroundingStyle(box=_CORNERS, scale=None), video_rate=_QWEN_RATE
    ),
    "Qwen3VLProcessor": MediaFamily(_QWEN_MARKS, GroundingStyle(box=_CORNERS)),
    "InternVLProcessor": MediaFamily(
        grounding=GroundingStyle(("<ref>", "</ref>"), "<box>[[{x1}, {y1}, {x2}, {y2}]]</box>")
    ),
    "LlavaOnevisionProcessor": MediaFamily(depends_on_others=True),
    "Gemma3Processor": MediaFamily(types_always=True),
    "Qwen2AudioProcessor": MediaFamily(
        {"audio": "Audio {n}: <|audio_bos|><|AUDIO|><|audio_eos|>\n"}
    ),
    "Phi4MultimodalProcessor": MediaFamily(tells_replacements=False),
    "MiniCPMV4_6Processor": MediaFamily(
        depends_on_others=True,  # images are numbered
        joined_along={"pixel_values": -1, "pixel_values_videos": -1},
    ),
    "PaliGemmaProcessor": MediaFamily(
        grounding=GroundingStyle(
            box="<loc{y1:0>4}><loc{x1:0>4}><loc{y2:0>4}><loc{x2:0>4}>", scale=1024
        )
    ),
}
"""By the name of the processor's class in transformers."""


def family_of(processor: str) -> MediaFamily:
    """Return what is known of the models that a processor is for."""
    return FAMILIES.get(processor, GENERIC)
