"""``ft rlhf``: ``ft sft`` with the recipe of an alignment method."""

from __future__ import annotations

from ft_align.arguments import AlignArguments
from ft_cli.commands.sft import run
from ft_cli.resuming import saved_in_checkpoint
from ft_cli.row_rules import check_training
from ft_cli.training_groups import GROUPS
from ft_core.command import Command, Invocation
from ft_core.errors import UsageError
from ft_train.distributed_arguments import DistributedArguments


def check_alignment(invocation: Invocation) -> None:
    """Refuse what these recipes can't do.

    Raises:
        UsageError: sequences of pairs can't be divided.
    """
    size = invocation.get(DistributedArguments).sequence_parallel_size
    method = invocation.get(AlignArguments).rlhf_type
    if size > 1:
        raise UsageError(
            f"--sequence_parallel_size {size} and --rlhf_type {method} can't be used together: the answers to a "
            "prompt must be held by one process; leave it out, and use --fsdp or --deepspeed for memory"
        )


COMMAND = Command(
    "rlhf",
    "Align a model with preferences or labelled answers.",
    (AlignArguments, *GROUPS),
    run,
    saved=saved_in_checkpoint,
    checks=(check_training, check_alignment),
    dry_run=True,
    epilog=(
        "ft rlhf --rlhf_type dpo --model_type smollm2-135m-instruct --dataset pairs.jsonl\n"
        "ft rlhf --rlhf_type kto --model_type smollm2-135m-instruct --dataset labelled.jsonl --desirable_weight 1.2"
    ),
)
