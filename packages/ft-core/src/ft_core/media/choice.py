"""Which processor a model or checkpoint has, and what it reads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ft_core.arguments import MediaArguments
from ft_core.media.limits import MediaLimits
from ft_core.media.loading import has_processor
from ft_core.media.processing import MediaProcessor

if TYPE_CHECKING:
    from ft_core.checkpoints import SavedCheckpoint
    from ft_core.recipe import Recipe


def processor_of(
    own: Path,
    directory: Path,
    checkpoint: SavedCheckpoint | None,
    media: MediaArguments | MediaLimits | None,
) -> MediaProcessor | None:
    """Return the processor of a model that sees or hears: the checkpoint's, else the model's.

    Images are as large as those that a checkpoint was trained on, unless something else is said.
    """
    if media is None:
        media = MediaArguments()
    limits = media.limits() if isinstance(media, MediaArguments) else media
    trained = None if checkpoint is None else checkpoint.arguments.get("rescale_image")
    if limits.rescale is None and isinstance(trained, int):
        limits = replace(limits, rescale=trained)
    for folder in dict.fromkeys((own, directory)):
        if has_processor(folder):
            return MediaProcessor(folder, limits)
    return None


def seeing(recipe: Recipe, processor: MediaProcessor | None) -> Recipe:
    """Return a training method whose batches hold what a model sees and hears, if it does."""
    if processor is None:
        return recipe
    from ft_core.media.batches import MediaRecipe

    return MediaRecipe(recipe, processor)
