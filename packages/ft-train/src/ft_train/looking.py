"""Running a model on a few rows before it is trained, for tuners that look at what goes through it."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from ft_core.recipe import Recipe
from ft_train.data import Collator, TrainData

ROWS = 64
"""Rows that are looked at; further ones change the directions found little."""


@torch.no_grad()
def run_on_rows(model: PreTrainedModel, recipe: Recipe, data: TrainData) -> None:
    """Run a model on the first rows, one after the other, without training it.

    Args:
        model: computes without dropout; its mode is put back.
        recipe: makes tensors of rows.
        data: the rows; those of a stream are not looked at.
    """
    collate = Collator(recipe, data.rows)
    training = model.training
    model.eval()
    for row in data.rows[:ROWS]:
        batch = collate([row]).batch
        model(
            input_ids=batch["input_ids"].to(model.device),
            position_ids=batch["position_ids"].to(model.device),
            use_cache=False,
        )
    model.train(training)
