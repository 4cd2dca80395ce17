"""The model that a command trains, before its weights are loaded."""

from __future__ import annotations

from ft_cli.resuming import checkpoint_to_resume
from ft_core.arguments import (
    MediaArguments,
    ModelArguments,
    TemplateArguments,
    VocabularyArguments,
)
from ft_core.command import Invocation
from ft_core.prepare import Prepared, Say, prepare
from ft_train.rules import flags_without_effect


def open_model(invocation: Invocation, say: Say) -> tuple[Prepared, str | None]:
    """Tell which flags have no effect, fetch the model with its chat format, and say what it goes on from.

    Returns:
        The model, and the checkpoint to resume, if any.
    """
    for note in flags_without_effect(invocation):
        say(note)
    resume = checkpoint_to_resume(invocation)
    prepared = prepare(
        invocation.get(ModelArguments),
        invocation.get(TemplateArguments),
        ckpt_dir=resume,
        new_tokens=invocation.get(VocabularyArguments).tokens(),
        given=invocation.set_by_a_person,
        say=say,
        media=invocation.get(MediaArguments),
    )
    say(f"template   {prepared.chosen.template.name} ({prepared.chosen.reason})")
    return prepared, resume
