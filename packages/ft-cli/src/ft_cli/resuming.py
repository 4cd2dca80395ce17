"""Which checkpoint a training command goes on from, and what it takes over from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ft_core.checkpoints import open_checkpoint, saved_arguments
from ft_core.command import Invocation
from ft_core.errors import UsageError
from ft_train.arguments import RunArguments
from ft_train.tuner_arguments import TunerArguments


def checkpoint_to_resume(invocation: Invocation) -> str | None:
    """Return the checkpoint that ``--resume_from_checkpoint`` names.

    Raises:
        UsageError: there is none, or another tuner made it.
    """
    arguments = invocation.get(RunArguments)
    if arguments.resume_from_checkpoint is None:
        return None
    from ft_train import find_checkpoint

    path = find_checkpoint(arguments.resume_from_checkpoint, arguments.output_dir)
    kind, wanted = open_checkpoint(path).kind, invocation.get(TunerArguments).sft_type
    if kind != wanted:
        raise UsageError(
            f"--resume_from_checkpoint {path}: was trained with --sft_type {kind}, not {wanted}; give the same"
        )
    return str(path)


def saved_in_checkpoint(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Take from the checkpoint that is resumed what decides about its model."""
    if values.get("resume_from_checkpoint") is None:
        return {}
    from ft_train import find_checkpoint

    return saved_arguments(find_checkpoint(values["resume_from_checkpoint"], values["output_dir"]))
