"""``ft-ui``: the commands of the interface that need no other package than this one and ft-core."""

from __future__ import annotations

from collections.abc import Sequence

from ft_core.command import Entry, run_commands

TABLE = {
    "export": Entry("Make rows to train on from saved conversations.", "ft_ui.export:COMMAND"),
    "studio": Entry("Show the runs of a directory in the browser.", "ft_ui.studio_command:STUDIO"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``ft-ui`` and return its exit code."""
    return run_commands(
        "ft-ui", TABLE, argv, distribution="ft-ui", intro="ft-ui: chat with models of ft."
    )
