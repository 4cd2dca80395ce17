"""``ft compare RUN RUN …`` and ``ft-eval compare``: whether evaluations differ by more than noise."""

from __future__ import annotations

from ft_core.command import Command, Invocation
from ft_core.errors import UsageError
from ft_eval.arguments import CompareArguments


def run(invocation: Invocation) -> None:
    """Print comparisons of the first model of the first run with all the others."""
    from pathlib import Path

    from ft_eval.compare import compare_models
    from ft_eval.reports import print_report, read_evaluation, write_reports
    from ft_eval.results import Statistics, joined

    arguments = invocation.get(CompareArguments)
    if not arguments.runs:
        raise UsageError(
            "which evaluations? Give their directories: compare eval_outputs/base/… eval_outputs/tuned/…"
        )
    evaluation = joined([read_evaluation(run) for run in arguments.runs], arguments.runs)
    if len(evaluation.models) < 2:
        raise UsageError(
            f"{arguments.runs[0]} has one model only; give another run to compare it with"
        )
    statistics = Statistics(arguments.level, arguments.resamples, arguments.seed)
    comparisons = compare_models(evaluation, statistics)
    if not comparisons:
        raise UsageError("these runs have no task in common, so there is nothing to compare")
    print_report(evaluation, comparisons)
    if arguments.output is not None:
        directory = Path(arguments.output).expanduser()
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--output {arguments.output}: {error.strerror or error}") from error
        write_reports(directory, evaluation, comparisons)
        print(f"results: {directory}")


COMMAND = Command(
    "compare",
    "Compare evaluations: which differences are no noise.",
    (CompareArguments,),
    run,
    positional="runs",
    epilog="compare eval_outputs/base/20260101-120000 eval_outputs/tuned/20260101-130000",
)
