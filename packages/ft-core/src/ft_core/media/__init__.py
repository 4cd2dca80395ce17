"""Images, videos and audios: read within limits, checked, made smaller, and turned into what a model gets.

``MediaTemplate`` puts the tokens of a model's own processor into a chat format; ``MediaProcessor`` makes their
features when a batch is built, so that rows hold paths and tokens only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ft_core.lazy import lazy_names
from ft_core.media.faults import MediaError
from ft_core.media.limits import MediaLimits, RemoteRules

if TYPE_CHECKING:
    from ft_core.media.batches import MediaRecipe, media_features
    from ft_core.media.loading import copy_processor, has_processor
    from ft_core.media.marks import has_media
    from ft_core.media.processing import MediaProcessor
    from ft_core.media.template import MediaTemplate, encode_question, question_segments

__all__ = [
    "MediaError",
    "MediaLimits",
    "MediaProcessor",
    "MediaRecipe",
    "MediaTemplate",
    "RemoteRules",
    "copy_processor",
    "encode_question",
    "has_media",
    "has_processor",
    "media_features",
    "question_segments",
]

_HOMES = {
    "MediaProcessor": "processing",
    "MediaRecipe": "batches",
    "MediaTemplate": "template",
    "copy_processor": "loading",
    "encode_question": "template",
    "has_media": "marks",
    "has_processor": "loading",
    "media_features": "batches",
    "question_segments": "template",
}

__getattr__ = lazy_names(__name__, _HOMES)
