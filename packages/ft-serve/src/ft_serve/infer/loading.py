"""From a prepared model to an engine that answers, and from a name to a prepared model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ft_core.arguments import (
    LoadingArguments,
    ModelArguments,
    QuantizationArguments,
    TemplateArguments,
)
from ft_core.checkpoints import ADAPTER_CONFIG, SavedCheckpoint, open_checkpoint
from ft_core.command import Invocation
from ft_core.engine import Engine
from ft_core.models.registry import find_by_name
from ft_core.prepare import Prepared, Say, prepare
from ft_serve.arguments import LOADED_ADAPTER


def start_engine(
    invocation: Invocation,
    prepared: Prepared,
    *,
    adapters: Mapping[str, str] | None = None,
    say: Say,
) -> Engine:
    """Load the weights and start ft's own engine on them.

    Args:
        invocation: says how the weights are loaded, and the seed.
        prepared: the model.
        adapters: name and checkpoint of further adapters.
        say: is told what is used and why.
    """
    from ft_serve.engines.pt import PtEngine

    arguments = invocation.get(ModelArguments)
    how = prepared.how(
        arguments,
        quantized=invocation.get(QuantizationArguments),
        loading=invocation.get(LoadingArguments),
        max_length=invocation.get(TemplateArguments).max_length,
    )
    template = prepared.chosen.template
    say(f"template   {template.name} ({prepared.chosen.reason})")
    for line in how.lines():
        say(line)
    model = prepared.load(how)
    from peft import PeftModel  # after the engine's modules, which keep what it imports quiet

    # An adapter that puts tokens before the prompt has no place in a batch, hence no name.
    named = isinstance(model, PeftModel) and not model.active_peft_config.is_prompt_learning
    engine = PtEngine(
        model,
        prepared.tokenizer,
        stop_token_ids=template.stop_token_ids,
        adapters=adapters,
        loaded_adapter=LOADED_ADAPTER if named else None,
        seed=arguments.seed,
    )
    if adapters:
        say(f"adapters   {', '.join(engine.adapters)}; {engine.adapters[0]} answers")
    return engine


def prepare_named(invocation: Invocation, name: str, say: Say) -> Prepared:
    """Prepare another model than the command's: a registered name, an id, or a directory.

    Args:
        invocation: gives what is not said of the model itself.
        name: the model; a directory may be the checkpoint of an adapter.
        say: is told what takes long.

    Raises:
        FtError: there is no such model.
    """
    directory = Path(name).expanduser()
    checkpoint = open_checkpoint(directory) if (directory / ADAPTER_CONFIG).is_file() else None
    template = invocation.get(TemplateArguments)
    return prepare(
        invocation.get(ModelArguments).model_copy(update=_named(name, checkpoint)),
        template.model_copy(update={"template_type": _template_of(checkpoint)}),
        ckpt_dir=None if checkpoint is None else str(checkpoint.path),
        say=say,
    )


def _named(name: str, checkpoint: SavedCheckpoint | None) -> dict[str, str | None]:
    if checkpoint is not None:
        saved = checkpoint.arguments
        given = saved.get("model_id_or_path")
        known = saved.get("model_type")
        base = given if given or known else checkpoint.base
        return {"model_type": known, "model_id_or_path": base, "model_revision": None}
    registered = find_by_name(name) is not None
    return {
        "model_type": name if registered else None,
        "model_id_or_path": None if registered else name,
        "model_revision": None,
    }


def _template_of(checkpoint: SavedCheckpoint | None) -> str:
    return "AUTO" if checkpoint is None else str(checkpoint.arguments.get("template_type", "AUTO"))
