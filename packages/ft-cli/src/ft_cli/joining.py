"""Computing the micro-batches of a step in fewer, larger ones.

The loss of a step is normalised over all its rows, so how they are cut changes speed and rounding only. Small
micro-batches leave a processor waiting for memory: every weight is read for a few tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ft_align.loss_types import BATCH_DEPENDENT
from ft_cli.alignment import arguments_of
from ft_core.command import Invocation
from ft_core.models.memory import MemoryEstimate
from ft_data.batch_arguments import BatchArguments
from ft_train.arguments import TrainingArguments

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ft_cli.training_job import TrainingJob
    from ft_train import TrainingPlan

TOKENS_ON_CPU, TOKENS_ON_GPU = 2048, 16384
"""Tokens of a forward pass beyond which larger ones gain little."""

_SHARE = 0.5
"""Share of the free memory that joined micro-batches may fill; what is asked for by flags may fill more."""


def join(
    job: TrainingJob,
    model: PreTrainedModel,
    plan: TrainingPlan,
    estimate: Callable[[TrainingPlan], MemoryEstimate],
) -> TrainingPlan:
    """Return the plan with the largest micro-batches that pay and fit.

    Args:
        job: the run.
        model: what it trains; may be without weights.
        plan: with the micro-batches that were asked for.
        estimate: of the memory that a plan needs.
    """
    typical = job.data.typical()
    if typical is None or not _may(job, model, plan):
        return plan
    most = TOKENS_ON_CPU if plan.device == "cpu" else TOKENS_ON_GPU
    for larger in plan.joined():
        if larger.batch_size * typical[0] > most:
            continue
        needed = estimate(larger)
        if needed.total - needed.process <= _SHARE * needed.free:
            return larger
    return plan


def _may(job: TrainingJob, model: PreTrainedModel, plan: TrainingPlan) -> bool:
    """Whether a step of the run means the same however it is cut, and what it needs is known beforehand."""
    from ft_core.sequences import Layout, layout_for

    batches = job.invocation.get(BatchArguments)
    return (
        job.invocation.get(TrainingArguments).join_micro_batches
        and layout_for(model) is Layout.JOINED
        and not plan.gradient_checkpointing  # memory is short
        and not plan.auto_find_batch_size  # which looks for the size itself
        and plan.world_size == 1  # processes see different free memory, and must cut alike
        and not plan.division.needs_processes
        and job.prepared.media is None  # whose size isn't in the estimate
        and batches.max_tokens_per_batch is None
        and not batches.group_by_length  # looks for equal lengths among as many rows as a batch has
        and not _sorts_batches(job.invocation)
    )


def _sorts_batches(invocation: Invocation) -> bool:
    """Whether the loss compares the rows of a micro-batch with each other."""
    alignment = arguments_of(invocation)
    return alignment is not None and alignment.loss(invocation.set_by_a_person) in BATCH_DEPENDENT
