"""The model that answers are compared with: where it comes from, and what it gives answers before training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, cast

from ft_align.arguments import AlignArguments
from ft_core.arguments import (
    LoadingArguments,
    ModelArguments,
    QuantizationArguments,
    TemplateArguments,
    VocabularyArguments,
)
from ft_core.command import Invocation
from ft_core.errors import UsageError
from ft_core.hub import cache_directory
from ft_core.launch import is_main
from ft_core.models.how import How
from ft_core.prepare import Prepared, prepare, to_stderr

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from ft_core.samples import Sample
    from ft_train import TrainData


@dataclass(frozen=True, slots=True)
class ReferenceSource:
    """Where the reference of a run comes from.

    Attributes:
        invocation: the command.
        prepared: the model that is trained.
        how: how its weights were loaded.
        model: with its trainable part attached.
    """

    invocation: Invocation
    prepared: Prepared
    how: How
    model: PreTrainedModel

    def load(self) -> torch.nn.Module:
        """Return the reference: the adapter switched off where that is exact, else a model of its own.

        Raises:
            UsageError: it reads other tokens.
        """
        from ft_align.reference import Frozen, adapter_off

        off = None if self._named else adapter_off(self.model)
        if off is not None:
            say_once("reference  the model without its adapter")
            return off
        other, how = self.settle()
        frozen = Frozen(other.load(how))
        what = other.name if self._named else "a frozen copy: weights of the base are trained"
        say_once(f"reference  {what} ({frozen.gib:.2f} GiB)")
        return frozen

    def settle(self) -> tuple[Prepared, How]:
        """Return the model that answers are compared with, and how it is loaded.

        Raises:
            UsageError: it reads other tokens.
        """
        other = self._prepare()
        if not self._named:
            return other, self.how
        if not other.tokenizer.reads_like(self.prepared.tokenizer):
            raise UsageError(
                f"the reference {other.name} reads other tokens than {self.prepared.name}, so the same answer can't "
                "be compared; name a model with the same tokenizer"
            )
        how = other.how(
            self.invocation.get(ModelArguments),
            quantized=self.invocation.get(QuantizationArguments),
            loading=self.invocation.get(LoadingArguments),
            max_length=self.invocation.get(TemplateArguments).max_length,
        )
        return other, how

    @property
    def _named(self) -> bool:
        return self.invocation.get(AlignArguments).names_reference

    def _prepare(self) -> Prepared:
        """Fetch the model that is named, or the one that training began with."""
        arguments, named = self.invocation.get(AlignArguments), self.invocation.get(ModelArguments)
        if arguments.names_reference:
            named = named.model_copy(
                update={
                    "model_type": arguments.ref_model_type,
                    "model_id_or_path": arguments.ref_model_id_or_path,
                    "model_revision": None,
                }
            )
        return prepare(
            named,
            self.invocation.get(TemplateArguments),
            new_tokens=self.invocation.get(VocabularyArguments).tokens(),
            given=self.invocation.set_by_a_person,
            say=say_once,
        )


def with_known_reference(source: ReferenceSource, data: TrainData) -> TrainData:
    """Let rows know what the reference gives their answers, as it was computed before or is now.

    The reference is only loaded where that isn't known yet, and not kept.
    """
    from ft_align.known_reference import ReferenceStore, content_of_model
    from ft_core.media.batches import with_features

    other, how = source.settle()
    identity = content_of_model(other.directory, how.dtype.name, *how.lines()[3:])
    store = ReferenceStore(cache_directory() / "reference", identity)
    processor = source.prepared.media
    finish = None if processor is None else partial(with_features, processor=processor)
    loaded: list[torch.nn.Module] = []

    def known(rows: Sequence[Sample]) -> Sequence[Sample]:
        found = store.find(rows)
        if found is not None:
            return found
        if not loaded:
            loaded.append(source.load())
        say_once(f"reference  computing what it gives the answers of {len(rows):,} samples")
        return store.compute(rows, loaded[0], finish=finish)

    evaluation = cast("Sequence[Sample]", data.evaluation)
    if evaluation:
        data = replace(data, evaluation=known(evaluation))
    return replace(data, train=known(cast("Sequence[Sample]", data.rows)))


def say_once(text: str) -> None:
    """Print a line for the person, in the first process only."""
    if is_main():
        to_stderr(text)
