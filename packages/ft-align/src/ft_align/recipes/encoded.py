"""What all recipes of preferences do alike: their rows are encoded by an encoder that needs no model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ft_core.examples import Example
from ft_core.samples import Dropped, Sample
from ft_core.templates.template import Template

if TYPE_CHECKING:
    from ft_core.recipe import Encoder


class EncodedRecipe:
    """Encodes by ``encoder``, which a recipe has as a field."""

    if TYPE_CHECKING:

        @property
        def encoder(self) -> Encoder:
            """What turns rows into samples."""
            ...

    @property
    def name(self) -> str:
        """Of the method: ``dpo``, ``kto``, ``rm``, …."""
        return self.encoder.name

    @property
    def fingerprint(self) -> str:
        """Part of the cache key of encoded rows."""
        return self.encoder.fingerprint

    def encode(self, examples: Sequence[Example], template: Template) -> list[Sample | Dropped]:
        """Turn rows into samples; each row that gives none comes back with its reason."""
        return self.encoder.encode(examples, template)
