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
from ft_core.errors import UsageError
from ft_core.models.how import How
from ft_core.models.registry import find_by_name
from ft_core.prepare import Prepared, Say, prepare
from ft_serve.arguments import LOADED_ADAPTER
from ft_serve.engines.backend import choose_backend, say_what_has_no_effect
from ft_serve.engines.outside import open_remote, start_child


def start_engine(
    invocation: Invocation,
    prepared: Prepared,
    *,
    adapters: Mapping[str, str] | None = None,
    say: Say,
) -> Engine:
    """Choose an engine, give it the model, and wait until it answers.

    Args:
        invocation: says which engine, how the weights are loaded, and the seed; has ``ENGINE_GROUPS``.
        prepared: the model.
        adapters: name and checkpoint of further adapters.
        say: is told what is used and why.

    Raises:
        FtError: the engine isn't installed, can't do what is asked, or doesn't start.
    """
    backend = choose_backend(invocation, prepared)
    say(f"engine     {backend.name} ({backend.reason})")
    say_what_has_no_effect(invocation, backend, say)
    template = prepared.chosen.template
    say(f"template   {template.name} ({prepared.chosen.reason})")
    engine: Engine
    if backend.name == "remote":
        if adapters:
            raise UsageError("--lora_modules can't be given to a server elsewhere; it has its own")
        return open_remote(invocation, prepared, say=say)
    arguments = invocation.get(ModelArguments)
    how = prepared.how(
        arguments,
        quantized=invocation.get(QuantizationArguments),
        loading=invocation.get(LoadingArguments),
        max_length=invocation.get(TemplateArguments).max_length,
    )
    if backend.name == "pt":
        for line in how.lines():
            say(line)
        engine = _start_pt(prepared, how, adapters or {}, seed=arguments.seed)
    else:
        say(f"dtype      {how.dtype.name} ({how.dtype.reason})")
        dtype = str(how.dtype.torch).removeprefix("torch.")
        engine = start_child(
            invocation, prepared, backend, dtype=dtype, adapters=adapters or {}, say=say
        )
    if adapters:
        say(f"adapters   {', '.join(engine.adapters)}; {engine.adapters[0]} answers")
    return engine


def _start_pt(prepared: Prepared, how: How, adapters: Mapping[str, str], *, seed: int) -> Engine:
    from ft_serve.engines.pt import PtEngine

    model = prepared.load(how)
    from peft import PeftModel  # after the engine's modules, which keep what it imports quiet

    # An adapter that puts tokens before the prompt has no place in a batch, hence no name.
    named = isinstance(model, PeftModel) and not model.active_peft_config.is_prompt_learning
    return PtEngine(
        model,
        prepared.tokenizer,
        stop_token_ids=prepared.chosen.template.stop_token_ids,
        adapters=adapters,
        loaded_adapter=LOADED_ADAPTER if named else None,
        seed=seed,
        media=prepared.media,
    )


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
