"""What a training command that aligns a model has beyond the others: its recipe, its rows and its reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ft_data
from ft_align.arguments import AlignArguments
from ft_align.balance import Balance, check_labels
from ft_align.lengths import Lengths
from ft_core.arguments import (
    LoadingArguments,
    LossArguments,
    ModelArguments,
    QuantizationArguments,
    TemplateArguments,
    VocabularyArguments,
)
from ft_core.command import Invocation
from ft_core.errors import UsageError
from ft_core.launch import is_main
from ft_core.models.how import How
from ft_core.prepare import Prepared, Say, prepare, to_stderr

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, TrainerCallback

    from ft_cli.rows import EncodedData
    from ft_core.recipe import Recipe
    from ft_train import TrainingPlan


@dataclass(frozen=True, slots=True)
class Alignment:
    """What training is given beside recipe, model and rows; nothing where nothing is aligned.

    Attributes:
        reference: the frozen model that answers are compared with.
        watchers: of the run.
    """

    reference: torch.nn.Module | None = None
    watchers: tuple[TrainerCallback, ...] = ()


def arguments_of(invocation: Invocation) -> AlignArguments | None:
    """Return the flags of alignment, if the command has any."""
    return invocation.get(AlignArguments) if AlignArguments in invocation.groups else None


def alignment_recipe(invocation: Invocation) -> Recipe:
    """Return the recipe of the method that the flags name.

    Raises:
        UsageError: a flag can't work with it.
    """
    from ft_align.recipes import build_recipe

    arguments, template = invocation.get(AlignArguments), invocation.get(TemplateArguments)
    lengths = Lengths(
        template.max_length, template.truncation_strategy, arguments.max_prompt_length
    )
    policy = invocation.get(LossArguments).policy()
    return build_recipe(arguments, invocation.set_by_a_person, lengths, policy)


def settled_values(invocation: Invocation) -> dict[str, Any]:
    """Return what a checkpoint keeps in place of values that the method settles."""
    arguments = arguments_of(invocation)
    if arguments is None:
        return {}
    return {
        "loss_type": arguments.loss(invocation.set_by_a_person),
        "beta": arguments.strength,
    }


def look_at_rows(invocation: Invocation, data: EncodedData, *, say: Say) -> None:
    """Tell what was cut and how labels are balanced, where rows are encoded by now.

    Raises:
        DataError: all labels are the same, so there is nothing to tell apart.
    """
    arguments = arguments_of(invocation)
    if arguments is None:
        return
    for note in arguments.notes(invocation.set_by_a_person):
        say(note)
    if not isinstance(data.train, ft_data.StoredSamples):
        return
    if cut := int((data.train.column("cut") > 0).sum()):
        say(
            f"{cut:,} prompts are cut to their ends, by --max_prompt_length {arguments.max_prompt_length} or to "
            "fit --max_length"
        )
    if arguments.rlhf_type == "kto":
        desirable = int(data.train.column("label").sum())
        counts = Balance(desirable, len(data.train) - desirable)
        check_labels(counts)
        advice = counts.advice(arguments.desirable_weight, arguments.undesirable_weight)
        if advice is not None:
            say(advice)


def check_step(invocation: Invocation, plan: TrainingPlan) -> None:
    """Refuse steps that are too small for what a method estimates from them.

    Raises:
        UsageError: a step of ``kto`` has one row.
    """
    arguments = arguments_of(invocation)
    if arguments is None or arguments.rlhf_type != "kto" or plan.rows_per_step > 1:
        return
    if arguments.loss(invocation.set_by_a_person) == "kto":
        raise UsageError(
            f"--batch_size {plan.batch_size} and --gradient_accumulation_steps {plan.gradient_accumulation_steps} "
            "make steps of one row, and the loss kto estimates a divergence from answers to the other prompts of "
            "a step; make one of them at least 2, or use --loss_type bco or apo_zero_unpaired"
        )


def align(
    invocation: Invocation, prepared: Prepared, how: How, model: PreTrainedModel
) -> Alignment:
    """Make a model ready for pairs of answers, and find what they are compared with.

    Args:
        invocation: the command.
        prepared: the model that is trained.
        how: how its weights were loaded.
        model: with its trainable part attached.

    Raises:
        UsageError: the reference reads other tokens, or flags can't work together.
    """
    arguments = arguments_of(invocation)
    if arguments is None:
        return Alignment()
    from ft_align.collapse import CollapseWarning
    from ft_align.shared_prompts import enable_shared_prompts

    if enable_shared_prompts(model):
        _say("prompts    computed once for the answers that share them")
    reference = _reference(invocation, arguments, prepared, how, model)
    return Alignment(reference, (CollapseWarning(),))


def _reference(
    invocation: Invocation,
    arguments: AlignArguments,
    prepared: Prepared,
    how: How,
    model: PreTrainedModel,
) -> torch.nn.Module | None:
    if not arguments.refers:
        return None
    from ft_align.reference import Frozen, adapter_off

    if not arguments.names_reference:
        off = adapter_off(model)
        if off is not None:
            _say("reference  the model without its adapter")
            return off
    other = _prepare_reference(invocation, arguments)
    if list(_texts(other)) != list(_texts(prepared)):
        raise UsageError(
            f"the reference {other.name} reads other tokens than {prepared.name}, so the same answer can't be "
            "compared; name a model with the same tokenizer"
        )
    if arguments.names_reference:
        how = other.how(
            invocation.get(ModelArguments),
            quantized=invocation.get(QuantizationArguments),
            loading=invocation.get(LoadingArguments),
            max_length=invocation.get(TemplateArguments).max_length,
        )
        _say(f"reference  {other.name}")
    else:
        _say("reference  a frozen copy of the model: weights of the base are trained")
    return Frozen(other.load(how))


def _prepare_reference(invocation: Invocation, arguments: AlignArguments) -> Prepared:
    """Fetch the model that answers are compared with: the one named, or the one that training began with."""
    named = invocation.get(ModelArguments)
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
        invocation.get(TemplateArguments),
        new_tokens=invocation.get(VocabularyArguments).tokens(),
        given=invocation.set_by_a_person,
        say=_say,
    )


def _texts(prepared: Prepared) -> Sequence[str | None]:
    tokenizer = prepared.tokenizer
    return [tokenizer.id_to_token(index) for index in range(tokenizer.vocab_size)]


def _say(text: str) -> None:
    if is_main():
        to_stderr(text)
