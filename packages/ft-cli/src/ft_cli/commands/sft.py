"""``ft sft`` and ``ft pt``: load, encode, plan, train, report."""

from __future__ import annotations

from ft_cli.alignment import look_at_rows
from ft_cli.opening import open_model
from ft_cli.processes import processes
from ft_cli.recipes import build_recipe
from ft_cli.resuming import saved_in_checkpoint
from ft_cli.row_rules import check_training
from ft_cli.rows import encode_data
from ft_cli.training_groups import GROUPS
from ft_cli.training_job import TrainingJob, decide_loading
from ft_cli.training_report import report, summary
from ft_core.command import Command, Invocation
from ft_core.errors import UsageError
from ft_core.launch import is_main
from ft_core.media.choice import seeing
from ft_core.prepare import to_stderr
from ft_data.arguments import DataArguments
from ft_train.evaluation_arguments import EvaluationArguments


def run(invocation: Invocation) -> None:
    """Train a model by the command's recipe."""
    with processes(invocation):
        _train(invocation)


def carry_out(job: TrainingJob) -> None:
    """Train in a run directory and report, or only describe what would be done."""
    if job.invocation.dry_run:
        job.describe()
        return
    run = job.open_run()
    with run.recording():
        result = job.train(run)
        run.update(result=summary(result))
        if is_main():
            report(result, run.directory, answers=not job.how.scores)
        if result.interrupted:
            raise KeyboardInterrupt  # the run is recorded as interrupted, and the exit code says so


def _train(invocation: Invocation) -> None:
    if not invocation.get(DataArguments).sources():
        raise UsageError(
            f"ft {invocation.command.name} needs rows: give --dataset with a file, a registered name "
            "(`ft list datasets`) or a hub id"
        )
    say = to_stderr if is_main() else _nothing
    recipe = build_recipe(
        invocation.command.name,
        invocation,
        accuracy=invocation.get(EvaluationArguments).acc_strategy,
    )
    prepared, resume = open_model(invocation, say)
    recipe = seeing(recipe, prepared.media)
    how = decide_loading(invocation, prepared)
    data = encode_data(invocation, prepared.chosen.template, recipe, say=say)
    look_at_rows(invocation, data, say=say)
    carry_out(TrainingJob(invocation, prepared, how, recipe, data, resume))


def _nothing(text: str) -> None:
    """Say nothing: only the first process speaks."""


SFT = Command(
    "sft",
    "Fine-tune a model on conversations.",
    GROUPS,
    run,
    saved=saved_in_checkpoint,
    checks=(check_training,),
    dry_run=True,
    epilog="ft sft --model_type smollm2-135m-instruct --dataset rows.jsonl --lora_rank 16",
)

PT = Command(
    "pt",
    "Continue pre-training a model on plain text.",
    GROUPS,
    run,
    defaults={
        "sft_type": "full",
        "target_modules": ["ALL"],
        "lazy_tokenize": True,
        "eval_steps": 500,
    },
    saved=saved_in_checkpoint,
    checks=(check_training,),
    dry_run=True,
    epilog="ft pt --model_type smollm2-135m-instruct --dataset texts.jsonl --max_length 1024",
)
