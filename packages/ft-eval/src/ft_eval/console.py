"""``ft-eval``: the evaluation commands that need no other package than this one and ft-core."""

from __future__ import annotations

from collections.abc import Sequence

from ft_core.command import Entry, run_commands

TABLE = {
    "eval": Entry("Evaluate the model of a running server.", "ft_eval.eval_command:COMMAND"),
    "compare": Entry(
        "Compare evaluations: which differences are no noise.", "ft_eval.compare_command:COMMAND"
    ),
    "score": Entry("Score a file of answers by exact match.", "ft_eval.score:COMMAND"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``ft-eval`` and return its exit code."""
    return run_commands(
        "ft-eval",
        TABLE,
        argv,
        distribution="ft-eval",
        intro="ft-eval: numbers about language models that can be trusted and repeated.",
    )
