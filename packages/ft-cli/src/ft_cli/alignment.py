"""What a training command that aligns a model has beyond the others: its recipe, its rows and its reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ft_data
from ft_align.arguments import AlignArguments
from ft_align.balance import Balance, check_labels
from ft_align.lengths import Lengths
from ft_cli.references import ReferenceSource, say_once, with_known_reference
from ft_core.arguments import LossArguments, TemplateArguments
from ft_core.command import Invocation
from ft_core.errors import UsageError
from ft_core.models.how import How
from ft_core.prepare import Prepared, Say

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, TrainerCallback

    from ft_cli.rows import EncodedData
    from ft_core.recipe import Recipe
    from ft_train import TrainData, TrainingPlan


@dataclass(frozen=True, slots=True)
class Alignment:
    """What training is given beside recipe, model and rows; nothing where nothing is aligned.

    Attributes:
        data: the rows; they may know by now what a reference gives their answers.
        reference: the frozen model that answers are compared with.
        watchers: of the run.
    """

    data: TrainData
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


def learns_scores(invocation: Invocation) -> bool:
    """Whether the command makes a reward model, which gives scores in place of next tokens."""
    arguments = arguments_of(invocation)
    return arguments is not None and arguments.rlhf_type == "rm"


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
        if arguments.precompute_ref_logps:
            raise UsageError(
                "--precompute_ref_logps true needs all rows encoded before training; leave it or --streaming and "
                "--lazy_tokenize out"
            )
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
    invocation: Invocation, prepared: Prepared, how: How, model: PreTrainedModel, data: TrainData
) -> Alignment:
    """Make a model ready for pairs of answers, and find what they are compared with.

    Args:
        invocation: the command.
        prepared: the model that is trained.
        how: how its weights were loaded.
        model: with its trainable part attached.
        data: the rows.

    Raises:
        UsageError: the reference reads other tokens, or flags can't work together.
    """
    arguments = arguments_of(invocation)
    if arguments is None or learns_scores(invocation):
        return Alignment(data)
    from ft_align.collapse import CollapseWarning
    from ft_align.shared_prompts import enable_shared_prompts

    if enable_shared_prompts(model):
        say_once("prompts    computed once for the answers that share them")
    watchers = (CollapseWarning(),)
    if not arguments.refers:
        return Alignment(data, None, watchers)
    source = ReferenceSource(invocation, prepared, how, model)
    if arguments.precompute_ref_logps:
        return Alignment(with_known_reference(source, data), None, watchers)
    return Alignment(data, source.load(), watchers)
