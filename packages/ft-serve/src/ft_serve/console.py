"""The console script ``ft-serve``."""

from __future__ import annotations

from collections.abc import Sequence

from ft_core.command.run import Entry, run_commands

TABLE = {
    "infer": Entry(
        "Answer a file of questions, or chat in the terminal.", "ft_serve.infer_command:COMMAND"
    ),
    "deploy": Entry(
        "Serve a model over HTTP, as OpenAI's clients expect it.", "ft_serve.deploy_command:COMMAND"
    ),
    "bench": Entry(
        "Measure a server as many clients at once see it.", "ft_serve.bench_command:COMMAND"
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``ft-serve`` and return its exit code."""
    return run_commands(
        "ft-serve", TABLE, argv, distribution="ft-serve", intro="ft-serve: answer with a model."
    )
