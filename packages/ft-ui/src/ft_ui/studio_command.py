"""The studio as a command: ``ft web-ui`` with every command, ``ft-ui studio`` with those of ft-core alone."""

from __future__ import annotations

import sys
from pathlib import Path

from ft_core.command import Command, Invocation
from ft_ui.arguments import StudioArguments
from ft_ui.studio.program import Program


def run_studio(arguments: StudioArguments, program: Program) -> None:
    """Serve the studio until it is interrupted; what it started goes on."""
    from ft_ui.studio.workplace import Workplace
    from ft_ui.web.access import choose_password
    from ft_ui.web.serving import import_gradio, serve, take_address
    from ft_ui.words import words_in

    password, generated = choose_password(arguments.auth, arguments.host, share=arguments.share)
    import_gradio()
    address = take_address(arguments.host, arguments.port)
    from ft_ui.pages.studio.page import studio_page
    from ft_ui.pages.studio.studio import Studio

    root = Path(arguments.work_dir).expanduser().resolve()
    studio = Studio(Workplace(root), program, words_in(arguments.lang))
    _say(f"directory  {root}")
    if password is not None and generated:
        _say(f"password   user {password.user}, password {password.word}")
    page = studio_page(studio)
    serve(page, address, password=password, share=arguments.share, say=_say)


def run(invocation: Invocation) -> None:
    """Show the runs of a directory, without any command to start."""
    run_studio(
        invocation.get(StudioArguments), Program("ft-ui", (sys.executable, "-m", "ft_ui"), {})
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


STUDIO = Command(
    "studio",
    "Show the runs of a directory in the browser.",
    (StudioArguments,),
    run,
    epilog="ft-ui studio --work_dir . --lang en",
)
