"""``ft web-ui``: the studio, from a file of rows to a served model."""

from __future__ import annotations

import sys

from ft_core.command import Command, Invocation
from ft_ui.arguments import StudioArguments


def run(invocation: Invocation) -> None:
    """Serve the studio with all commands of ``ft``."""
    from ft_cli.main import TABLE
    from ft_ui.studio.program import Program
    from ft_ui.studio_command import run_studio

    program = Program("ft", (sys.executable, "-m", "ft_cli"), TABLE)
    run_studio(invocation.get(StudioArguments), program)


COMMAND = Command(
    "web-ui",
    "Train, evaluate, export and serve models in the browser.",
    (StudioArguments,),
    run,
    epilog="ft web-ui --lang en",
)
