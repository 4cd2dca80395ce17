"""The recipes as the flags ask for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ft_cli.alignment import alignment_recipe
from ft_core.arguments import LossArguments, TemplateArguments
from ft_core.command import Invocation

if TYPE_CHECKING:
    from ft_core.recipe import Recipe
    from ft_core.templates.truncation import TruncationStrategy


def build_recipe(
    name: str, invocation: Invocation, *, accuracy: Literal["token", "sentence"] = "token"
) -> Recipe:
    """Return the recipe called ``sft`` or ``pt``, or for ``rlhf`` that of an alignment method.

    Args:
        name: its name, or the command's.
        invocation: the command with its arguments.
        accuracy: what the log's accuracy counts.

    Raises:
        UsageError: a flag can't work with it.
    """
    if name == "rlhf":
        return alignment_recipe(invocation)
    from ft_train import PtRecipe, SftRecipe

    template = invocation.get(TemplateArguments)
    policy = invocation.get(LossArguments).policy()
    if name == "pt":
        return PtRecipe(template.max_length, pt_truncation(invocation), policy, accuracy)
    return SftRecipe(template.max_length, template.truncation_strategy, policy, accuracy)


def pt_truncation(invocation: Invocation) -> TruncationStrategy:
    """Return what pt does with long texts: it splits them, unless a person said otherwise."""
    if "truncation_strategy" not in invocation.set_by_a_person:
        return "split"
    return invocation.get(TemplateArguments).truncation_strategy
