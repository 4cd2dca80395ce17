"""``ft rlhf``: ``ft sft`` with the recipe of an alignment method."""

from __future__ import annotations

from ft_align.arguments import AlignArguments
from ft_align.loss_types import ONLINE
from ft_align.online_arguments import OnlineArguments
from ft_cli.commands.sft import carry_out
from ft_cli.commands.sft import run as run_recipe
from ft_cli.online_rules import check_online
from ft_cli.resuming import saved_in_checkpoint
from ft_cli.row_rules import check_training
from ft_cli.training_groups import GROUPS
from ft_core.command import Command, Invocation
from ft_core.errors import UsageError
from ft_core.prepare import to_stderr
from ft_data.arguments import DataArguments
from ft_train.distributed_arguments import DistributedArguments
from ft_train.evaluation_arguments import EvaluationArguments
from ft_train.tuner_arguments import TunerArguments


def run(invocation: Invocation) -> None:
    """Align a model by the recipe of the method, or by answers that it makes while it is trained."""
    if invocation.get(AlignArguments).rlhf_type not in ONLINE:
        run_recipe(invocation)
        return
    if not invocation.get(DataArguments).sources():
        raise UsageError("ft rlhf needs rows: give --dataset")
    if invocation.get(AlignArguments).rlhf_type == "gkd":
        from ft_cli.distillation import distillation_job

        carry_out(distillation_job(invocation))
        return
    from ft_cli.online import online_job

    carry_out(online_job(invocation))


def check_alignment(invocation: Invocation) -> None:
    """Refuse what these recipes can't do.

    Raises:
        UsageError: sequences of pairs can't be divided; or a reward model is asked for text, or trained in a way that
            leaves its head out.
    """
    if invocation.get(AlignArguments).rlhf_type == "rm":
        _check_reward_model(invocation)
    size = invocation.get(DistributedArguments).sequence_parallel_size
    method = invocation.get(AlignArguments).rlhf_type
    if size > 1:
        raise UsageError(
            f"--sequence_parallel_size {size} and --rlhf_type {method} can't be used together: the answers to a "
            "prompt must be held by one process; leave it out, and use --fsdp or --deepspeed for memory"
        )


def _check_reward_model(invocation: Invocation) -> None:
    tuner = invocation.get(TunerArguments).sft_type
    if tuner not in ("lora", "full"):
        raise UsageError(
            f"--sft_type {tuner} and --rlhf_type rm can't be used together: the head that gives scores is trained whole, "
            "beside an adapter of lora or by full; use one of these"
        )
    if invocation.get(EvaluationArguments).predict_with_generate:
        raise UsageError(
            "--predict_with_generate true and --rlhf_type rm can't be used together: a reward model gives scores and no "
            "text; leave it out"
        )
    if invocation.given("sample_answers") and invocation.get(EvaluationArguments).sample_answers:
        to_stderr("--sample_answers has no effect with --rlhf_type rm, whose model gives no text")


COMMAND = Command(
    "rlhf",
    "Align a model with preferences or labelled answers.",
    (AlignArguments, OnlineArguments, *GROUPS),
    run,
    saved=saved_in_checkpoint,
    checks=(check_training, check_alignment, check_online),
    dry_run=True,
    epilog=(
        "ft rlhf --rlhf_type dpo --model_type smollm2-135m-instruct --dataset pairs.jsonl\n"
        "ft rlhf --rlhf_type kto --model_type smollm2-135m-instruct --dataset labelled.jsonl --desirable_weight 1.2\n"
        "ft rlhf --rlhf_type rm --model_type smollm2-135m-instruct --dataset pairs.jsonl\n"
        "ft rlhf --rlhf_type grpo --model_type smollm2-135m-instruct --dataset questions.jsonl --reward_funcs format exact\n"
        "ft rlhf --rlhf_type gkd --model_type smollm2-135m-instruct --teacher_model_id_or_path TEACHER --dataset rows.jsonl"
    ),
)
