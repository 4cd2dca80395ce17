"""``ft deploy``: serve a model over HTTP."""

from __future__ import annotations

from ft_cli.commands.infer import GROUPS, prepare_answering, saved_unless_merged
from ft_core.command import Command, Invocation
from ft_serve.deploy_command import DEFAULTS, SERVER_GROUPS, serve


def run(invocation: Invocation) -> None:
    """Serve the model that the flags name."""
    serve(invocation, lambda: prepare_answering(invocation))


COMMAND = Command(
    "deploy",
    "Serve a model over HTTP, as OpenAI's clients expect it.",
    (*GROUPS, *SERVER_GROUPS),
    run,
    defaults=DEFAULTS,
    saved=saved_unless_merged,
    epilog="FT_API_KEY=… ft deploy --ckpt_dir output/smollm2-135m-instruct/v0-20260101-120000/checkpoint-20",
)
