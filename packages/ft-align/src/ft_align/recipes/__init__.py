"""Alignment methods as recipes for the common trainer."""

from ft_align.recipes.building import build_recipe
from ft_align.recipes.labelled import LabelledRecipe
from ft_align.recipes.objectives import Cpo, Dpo, Objective, Orpo
from ft_align.recipes.pairs import PairRecipe
from ft_align.recipes.reward import RewardRecipe

__all__ = [
    "Cpo",
    "Dpo",
    "LabelledRecipe",
    "Objective",
    "Orpo",
    "PairRecipe",
    "RewardRecipe",
    "build_recipe",
]
