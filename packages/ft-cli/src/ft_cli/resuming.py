"""Which checkpoint a training command goes on from, what it takes over from it, and what must stay as it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ft_core.checkpoints import SavedCheckpoint, open_checkpoint, saved_arguments
from ft_core.command import Invocation
from ft_core.errors import UsageError
from ft_train.arguments import RunArguments
from ft_train.optimizer_arguments import OPTIMIZER_GROUPS
from ft_train.tuner_arguments import TUNER_GROUPS, TunerArguments

OF_TODAY = frozenset(
    {
        *("resume_from_checkpoint", "resume_only_model", "output_dir", "add_output_dir_suffix"),
        *("deepspeed", "fsdp", "fsdp_config", "sequence_parallel_size", "ddp_backend"),
    }
)
"""Flags that a resumed run doesn't take over: where it is, and how its processes are divided now."""

_MODEL = ("model_type", "model_id_or_path", "model_revision", "template_type", "system")
_OPTIMIZER = (
    *("optim", "learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon"),
    *("lr_scheduler_type", "seed"),
)
FIXED = frozenset(
    {
        *_MODEL,
        *_OPTIMIZER,
        *(name for group in (*TUNER_GROUPS, *OPTIMIZER_GROUPS) for name in group.model_fields),
    }
)
"""Flags whose new value a resumed run couldn't obey: the checkpoint decides. Rows are compared by their content."""

_UNDECIDED = (None, "AUTO", "auto")


def checkpoint_to_resume(invocation: Invocation) -> str | None:
    """Return the checkpoint that ``--resume_from_checkpoint`` names.

    Raises:
        UsageError: there is none, another tuner made it, or flags say something else than its run.
    """
    arguments = invocation.get(RunArguments)
    if arguments.resume_from_checkpoint is None:
        return None
    from ft_train import find_checkpoint

    path = find_checkpoint(arguments.resume_from_checkpoint, arguments.output_dir)
    checkpoint = open_checkpoint(path)
    kind, wanted = checkpoint.kind, invocation.get(TunerArguments).sft_type
    if kind != wanted:
        raise UsageError(
            f"--resume_from_checkpoint {path}: was trained with --sft_type {kind}, not {wanted}; give the same"
        )
    if not arguments.resume_only_model and (changed := list(_changed(invocation, checkpoint))):
        raise UsageError(
            f"--resume_from_checkpoint {path}: {', '.join(changed)}; leave them out, since the run goes on with its own "
            "values, or give --resume_only_model true to start a new run with these weights"
        )
    return str(path)


def saved_in_checkpoint(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Take from the checkpoint that is resumed what it was trained with; of a new run with its weights, the model."""
    if values.get("resume_from_checkpoint") is None:
        return {}
    from ft_train import find_checkpoint

    path = find_checkpoint(values["resume_from_checkpoint"], values["output_dir"])
    model = saved_arguments(path)
    if values.get("resume_only_model"):
        return model
    run = {
        name: value
        for name, value in open_checkpoint(path).arguments.items()
        if name not in OF_TODAY and value is not None and value != values.get(name)
    }
    return {**run, **model}


def _changed(invocation: Invocation, checkpoint: SavedCheckpoint) -> Iterator[str]:
    """Describe each flag that a person gave another value than the run had."""
    for name in sorted(FIXED & set(invocation.values) & set(checkpoint.arguments)):
        item, was = invocation.values[name], checkpoint.arguments[name]
        if item.source not in ("config", "env", "cli") or item.value in _UNDECIDED:
            continue
        if not _same(item.value, was):
            yield f"--{name} was {was} and is {item.value}"


def _same(value: Any, was: Any) -> bool:
    if value == was:
        return True
    if isinstance(value, str) and isinstance(was, str):
        here, there = Path(value).expanduser(), Path(was)
        return here.exists() and there.exists() and here.resolve() == there.resolve()
    return False
