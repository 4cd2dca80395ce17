"""The console script ``ft-data``."""

from __future__ import annotations

from collections.abc import Sequence

from ft_core.command.run import Entry, run_commands

TABLE = {
    "check": Entry("Look through rows for faults.", "ft_data.check_command:CHECK"),
    "preview": Entry(
        "Show rendered rows with the trained tokens marked.", "ft_data.commands:PREVIEW"
    ),
    "list": Entry("List the data sets that are known by name.", "ft_data.list_command:LIST"),
    "encode": Entry(
        "Encode rows ahead of training, which then finds them in the cache.",
        "ft_data.encode_command:ENCODE",
    ),
    "convert": Entry(
        "Write rows of any shape as JSON lines of messages.", "ft_data.commands:CONVERT"
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``ft-data`` and return its exit code."""
    return run_commands(
        "ft-data", TABLE, argv, distribution="ft-data", intro="ft-data: rows for language models."
    )
