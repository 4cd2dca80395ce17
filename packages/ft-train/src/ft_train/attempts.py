"""Trying again with smaller micro-batches when memory runs out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from ft_core.launch import is_main
from ft_train.machine import is_out_of_memory, release_memory
from ft_train.plan import TrainingPlan
from ft_train.resume import RUN_STATE_FILE
from ft_train.weights import restore_weights, trained_weights

T = TypeVar("T")


def until_it_fits(
    attempt: Callable[[TrainingPlan], T],
    model: torch.nn.Module,
    plan: TrainingPlan,
    give_up: Callable[[TrainingPlan], Exception],
) -> T:
    """Train, and when memory runs out train again from the start with smaller micro-batches.

    Each optimizer step sees the same rows as before, so a run that starts over gives what it would have
    given with the smaller ``batch_size`` from the beginning.

    Args:
        attempt: trains by a plan.
        model: what it trains; holds the weights to start from.
        plan: of the first attempt. Only with ``auto_find_batch_size`` is there another.
        give_up: makes the error that is raised where no smaller micro-batch is left.
    """
    start = trained_weights(model) if plan.auto_find_batch_size else None
    while True:
        try:
            return attempt(plan)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            smaller = plan.with_fewer_rows() if plan.auto_find_batch_size else None
            if smaller is None:
                raise give_up(plan) from error
        # Outside the handler, since the error's traceback holds on to what filled the memory.
        model.zero_grad(set_to_none=True)
        release_memory(plan.device)
        if start is not None:
            restore_weights(model, start)
        if is_main():
            print(
                f"out of memory with batch_size {plan.batch_size}: starting again with {smaller.batch_size}, and "
                f"gradient_accumulation_steps {smaller.gradient_accumulation_steps} instead of "
                f"{plan.gradient_accumulation_steps}, so a step sees as many rows",
                file=sys.stderr,
            )
        plan = smaller


def as_resumed(plan: TrainingPlan, checkpoint: Path | None) -> TrainingPlan:
    """Return the plan with the batch size that its run has found or chosen, when that goes on."""
    if checkpoint is None or not (plan.auto_find_batch_size or plan.is_joined):
        return plan
    found = json.loads((checkpoint / RUN_STATE_FILE).read_text(encoding="utf-8"))["batch_size"]
    candidate: TrainingPlan | None = plan
    while candidate is not None and candidate.batch_size != found:
        candidate = candidate.with_fewer_rows()
    return candidate or plan
