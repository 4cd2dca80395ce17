"""From flags to the model behind the server."""

from __future__ import annotations

from pathlib import Path

from ft_core.arguments import (
    GenerationArguments,
    LoadingArguments,
    ModelArguments,
    TemplateArguments,
)
from ft_core.command import Invocation
from ft_core.engine import Capability
from ft_core.prepare import Prepared, to_stderr
from ft_serve.arguments import LOADED_ADAPTER, InferArguments
from ft_serve.infer.loading import start_engine
from ft_serve.infer.session import Session
from ft_serve.openai.arguments import DeployArguments
from ft_serve.openai.media import MediaServingArguments, serving
from ft_serve.openai.served import Served

COMPLETION_TOKENS = 16
"""What OpenAI's completions give where nothing is said."""


def load_served(invocation: Invocation, prepared: Prepared) -> Served:
    """Start the engine and say what is served by which name.

    Args:
        invocation: of the command.
        prepared: the model.

    Raises:
        FtError: the engine doesn't start with it.
    """
    rules = invocation.get(MediaServingArguments).rules()
    prepared = serving(prepared, rules)
    longest = _longest(invocation, prepared)
    adapters = invocation.get(InferArguments).adapters()
    engine = start_engine(invocation, prepared, adapters=adapters, say=to_stderr)
    Session(invocation, prepared, [engine], to_stderr).save_sampling()
    arguments = invocation.get(ModelArguments)
    generation = invocation.get(GenerationArguments)
    given = arguments.model_id_or_path
    named = (LOADED_ADAPTER, *adapters)
    checkpoint = None if prepared.checkpoint is None else str(prepared.checkpoint.path)
    made_of = {**({LOADED_ADAPTER: checkpoint} if checkpoint else {}), **adapters}
    served = Served(
        engine=engine,
        template=prepared.chosen.template,
        name=invocation.get(DeployArguments).served_model_name or prepared.name,
        sampling=generation.sampling(),
        root=_without_directories(given or prepared.name),
        aliases=frozenset(name for name in (given, arguments.model_type) if name),
        adapters={name: _without_directories(path) for name, path in made_of.items()},
        default_adapter=next((name for name in named if name in engine.adapters), None),
        max_model_len=longest,
        completion_tokens=generation.max_new_tokens
        if invocation.given("max_new_tokens")
        else COMPLETION_TOKENS,
        engine_name=type(engine).__name__.removesuffix("Engine").lower(),
        media=rules if Capability.MEDIA in engine.capabilities else None,
    )
    if served.default_adapter is not None:
        to_stderr(
            f"names      {served.name} is the model without adapters; requests without a name get "
            f"{served.default_adapter}"
        )
    return served


def _longest(invocation: Invocation, prepared: Prepared) -> int | None:
    """Return how many tokens prompt and answer may have together."""
    from ft_core.models.rope import choose_rope, longest, read_config, scale, trained_length

    config = read_config(prepared.directory, trust_remote_code=prepared.trust_remote_code)
    rope = choose_rope(
        invocation.get(LoadingArguments).rope_scaling,
        config,
        invocation.get(TemplateArguments).max_length,
        trained_length=trained_length(prepared.checkpoint),
    )
    if rope is not None:
        scale(config, rope)
    bounds = [longest(config)]
    for name in ("max_length", "max_model_len"):
        found = invocation.values.get(name)
        # A checkpoint's max_length bounds what it was trained on, not what it can answer.
        if found is not None and found.source != "checkpoint":
            bounds.append(found.value)
    return min((bound for bound in bounds if bound is not None and bound > 0), default=None)


def _without_directories(name: str) -> str:
    """Return a model's name without the directories of this machine."""
    path = Path(name).expanduser()
    return path.name if path.is_absolute() or path.exists() else name
