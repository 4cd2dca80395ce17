"""Batches of rows with media: features are made when a batch is, in the process that loads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ft_core.errors import DataError
from ft_core.media.processing import Features, MediaProcessor
from ft_core.samples import Medium, Sample
from ft_core.sequences.batch import to_padded

if TYPE_CHECKING:
    from ft_core.examples import Example
    from ft_core.recipe import Batch, LossOutput, Recipe, Totals
    from ft_core.samples import Dropped
    from ft_core.templates.template import Template


def media_features(processor: MediaProcessor, documents: Sequence[Sequence[Medium]]) -> Features:
    """Return what a model gets of the media of several sequences, in their order.

    Raises:
        DataError: a medium can't be used any more.
    """
    made = [processor.process(media).features for media in documents if media]
    names = {name: None for features in made for name in features}
    along = processor.family.joined_along
    return {
        name: _stacked([item[name] for item in made if name in item])
        if name not in along
        else torch.cat([item[name] for item in made if name in item], dim=along[name])
        for name in names
    }


def _stacked(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Join tensors along their first dimension; the others are filled up with zeros to the largest.

    That is how processors batch images of different sizes, and numbers of images.
    """
    shapes = [tensor.shape[1:] for tensor in tensors]
    if all(shape == shapes[0] for shape in shapes):
        return torch.cat(list(tensors))
    largest = [max(sizes) for sizes in zip(*shapes, strict=True)]
    return torch.cat([_filled(tensor, largest) for tensor in tensors])


def _filled(tensor: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    filled = tensor.new_zeros((len(tensor), *sizes))
    filled[tuple(slice(size) for size in tensor.shape)] = tensor
    return filled


def with_features(batch: Batch, processor: MediaProcessor) -> Batch:
    """Return a batch with the features of its media; it is padded, and the model works out its positions.

    Args:
        batch: as ``ft_core.sequences.join`` or ``pad`` makes it.
        processor: the model's.
    """
    media: Sequence[Sequence[Medium]] | None = batch.get("media")
    if media is None:
        if not processor.family.types_always:
            return batch
        types = processor.token_types(batch["input_ids"].tolist())
        return {**batch, "features": {name: torch.zeros_like(v) for name, v in types.items()}}
    padded = to_padded(batch)
    features = media_features(processor, media)
    mask: torch.Tensor = padded["attention_mask"]
    for name, kinds in processor.token_types(padded["input_ids"].tolist()).items():
        features[name] = kinds * mask
    ready: Batch = {**padded, "position_ids": None, "features": features}
    del ready["media"]
    return ready


def prompt_features(
    processor: MediaProcessor, token_ids: Sequence[int], media: Sequence[Medium]
) -> Features:
    """Return what a model gets of the media of one prompt beside its token ids [1, L].

    Raises:
        DataError: a medium can't be used any more.
    """
    features = dict(processor.process(media).features)
    return {**features, **processor.token_types([token_ids])}


@dataclass(frozen=True)
class MediaRecipe:
    """A training method whose batches hold what is to be seen and heard.

    Attributes:
        inner: the method.
        processor: the model's.
    """

    inner: Recipe
    processor: MediaProcessor

    @property
    def name(self) -> str:
        """The method's name."""
        return self.inner.name

    @property
    def fingerprint(self) -> str:
        """The method's; what media change is part of the chat format's."""
        return self.inner.fingerprint

    def encode(self, examples: Sequence[Example], template: Template) -> list[Sample | Dropped]:
        """Turn rows into samples."""
        items = self.inner.encode(examples, template)
        if not self.processor.family.depends_on_others:
            return items
        return [self._whole(item, examples) for item in items]

    def _whole(self, item: Sample | Dropped, examples: Sequence[Example]) -> Sample | Dropped:
        """Refuse a sample that truncation took media from, where that changes the tokens of the others."""
        if isinstance(item, Sample):
            example = examples[item.row]
            given = len(example.images) + len(example.videos) + len(example.audios)
            if any(0 < len(tokens.media) < given for tokens in item.sequences):
                raise DataError(
                    "--truncation_strategy cuts off some of the row's images, and this model writes the others "
                    "differently without them; raise --max_length, or use --truncation_strategy delete",
                    rule="cut_media",
                )
        return item

    def count(self, global_batch: Sequence[Sample]) -> Totals:
        """Count each unit of this rank's share of the global batch."""
        return self.inner.count(global_batch)

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Build the tensors of one micro-batch."""
        return with_features(self.inner.collate(samples), self.processor)

    def loss(
        self, model: torch.nn.Module, batch: Batch, reference: torch.nn.Module | None
    ) -> LossOutput:
        """Compute the loss."""
        return self.inner.loss(model, batch, reference)

    def __getattr__(self, name: str) -> Any:
        # What a method has beside the protocol (settings that callbacks look at) is its own business.
        if name.startswith("__") or name in ("inner", "processor"):
            raise AttributeError(name)
        return getattr(self.inner, name)


__all__ = ["MediaRecipe", "media_features", "prompt_features", "with_features"]
