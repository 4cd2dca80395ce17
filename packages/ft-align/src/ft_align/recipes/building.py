"""The recipe that the flags ask for."""

from __future__ import annotations

from collections.abc import Set

from ft_align.arguments import AlignArguments
from ft_align.encoding import AnswerEncoder, PairEncoder
from ft_align.lengths import Lengths
from ft_align.loss_types import ONLINE
from ft_align.recipes.labelled import LabelledRecipe
from ft_align.recipes.objectives import Cpo, Dpo, Orpo
from ft_align.recipes.pairs import PairRecipe
from ft_align.recipes.reward import RewardRecipe
from ft_core.loss_scale import LossPolicy
from ft_core.recipe import Recipe


def build_recipe(
    arguments: AlignArguments, given: Set[str], lengths: Lengths, policy: LossPolicy
) -> Recipe:
    """Return the recipe of a method.

    Args:
        arguments: which method, and its numbers.
        given: names of the flags a person set.
        lengths: bounds on prompts and answers.
        policy: what is learned of answers.

    Raises:
        UsageError: a value can't work.
        ValueError: the method learns from rewards, which needs a trainer of its own.
    """
    method, loss, beta = arguments.rlhf_type, arguments.loss(given), arguments.strength
    smoothing = arguments.label_smoothing
    if method in ONLINE:
        raise ValueError(f"{method} is no recipe; see ft_align.online")
    if method == "kto":
        return LabelledRecipe(
            AnswerEncoder(method, lengths, policy),
            beta=beta,
            loss_type=loss,
            desirable_weight=arguments.desirable_weight,
            undesirable_weight=arguments.undesirable_weight,
        )
    encoder = PairEncoder(method, lengths, policy)
    if method == "rm":
        return RewardRecipe(encoder, arguments.center_rewards_coefficient)
    if method == "dpo":
        share = arguments.sft_beta
        return PairRecipe(encoder, Dpo(beta, loss, smoothing), 1 - share, share)
    if method == "orpo":
        return PairRecipe(encoder, Orpo(beta), likelihood=1.0)
    return PairRecipe(
        encoder,
        Cpo(beta, loss, smoothing, arguments.simpo_gamma),
        likelihood=arguments.cpo_alpha,
    )
