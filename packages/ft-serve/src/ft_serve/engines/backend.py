"""Which engine answers, and why."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ft_core.arguments import GenerationArguments, LoadingArguments, QuantizationArguments
from ft_core.command import ArgumentGroup, Invocation
from ft_core.errors import DependencyError, UsageError
from ft_core.models.architectures import find_architectures
from ft_core.prepare import Prepared, Say, default_device
from ft_serve.arguments import (
    EngineArguments,
    InferArguments,
    LmdeployArguments,
    VllmArguments,
)
from ft_serve.engines.installed import Installed, find_installed

BackendName = Literal["pt", "vllm", "lmdeploy", "remote"]

INSTALL = {
    "vllm": "pip install 'ft-serve[vllm]', or give --engine_python with an environment that has it",
    "lmdeploy": "make setup-lmdeploy, then --engine_python .venv-lmdeploy/bin/python",
}
TITLES = {"pt": "PyTorch", "vllm": "vLLM", "lmdeploy": "LMDeploy", "remote": "a server elsewhere"}
OWN_LOADING = ("use_flash_attn",)
"""Flags of loading that only ft's own engine obeys and others may ignore."""


@dataclass(frozen=True, slots=True)
class Backend:
    """The engine that answers.

    Attributes:
        name: as ``infer_backend`` names it.
        reason: why this one.
        library: where it is installed; ``None`` for ft's own and for servers elsewhere.
    """

    name: BackendName
    reason: str
    library: Installed | None = None


def choose_backend(invocation: Invocation, prepared: Prepared) -> Backend:
    """Return the engine that was asked for, or that fits.

    Args:
        invocation: the command.
        prepared: the model.

    Raises:
        UsageError: the engine that was asked for can't do what else was asked for.
        DependencyError: it isn't installed.
    """
    wanted = invocation.get(InferArguments).infer_backend
    engine = invocation.get(EngineArguments)
    if engine.engine_url is not None:
        if wanted not in ("AUTO", "remote"):
            raise UsageError(
                f"--infer_backend {wanted} runs here, but --engine_url names a server; leave one of them out"
            )
        return Backend("remote", f"the server at {engine.engine_url}")
    if wanted == "remote":
        raise UsageError("--infer_backend remote needs --engine_url with the server's address")
    if wanted == "pt":
        return Backend("pt", "asked for")
    if wanted == "AUTO":
        return _fitting(invocation, prepared)
    if (obstacle := _obstacle(wanted, invocation, prepared)) is not None:
        raise UsageError(f"--infer_backend {wanted}: {obstacle}")
    library = find_installed(wanted, engine.engine_python)
    if library is None:
        raise DependencyError(f"--infer_backend {wanted}", TITLES[wanted], INSTALL[wanted])
    return Backend(wanted, f"asked for; {library.version}", library)


def say_what_has_no_effect(invocation: Invocation, backend: Backend, say: Say) -> None:
    """Name the flags a person set that this engine doesn't look at."""
    foreign: dict[str, Iterable[type[ArgumentGroup]]] = {
        "pt": (VllmArguments, LmdeployArguments),
        "vllm": (LmdeployArguments,),
        "lmdeploy": (VllmArguments,),
        "remote": (VllmArguments, LmdeployArguments, QuantizationArguments, LoadingArguments),
    }
    names = [name for group in foreign[backend.name] for name in group.model_fields]
    if backend.name == "pt":
        names.append("engine_python")
    else:
        names += OWN_LOADING
    for name in names:
        if invocation.given(name):
            say(f"--{name} has no effect: {TITLES[backend.name]} answers")


def _fitting(invocation: Invocation, prepared: Prepared) -> Backend:
    spec = prepared.source.spec
    wanted: BackendName = "vllm"
    if spec is not None and spec.modality != "text":
        wanted = "lmdeploy"
    title = TITLES[wanted]
    if not invocation.given("engine_python") and importlib.util.find_spec(wanted) is None:
        return Backend("pt", f"ft's own; {title} is not installed")
    obstacle = _obstacle(wanted, invocation, prepared) or _unsupported(wanted, prepared)
    if obstacle is not None:
        return Backend("pt", f"ft's own, since {obstacle}")
    library = find_installed(wanted, invocation.get(EngineArguments).engine_python)
    if library is None:
        return Backend("pt", f"ft's own; {title} is not installed there")
    if not library.for_cpu and default_device() == "cpu":
        return Backend(
            "pt", f"ft's own, since there is no GPU and {library.version} is made for one"
        )
    return Backend(wanted, f"{library.version} is installed and supports the model", library)


def _unsupported(wanted: str, prepared: Prepared) -> str | None:
    """Say why an engine isn't known to run the model."""
    spec = prepared.source.spec
    if spec is not None:
        supports = spec.supports
    else:
        config = json.loads((prepared.directory / "config.json").read_text(encoding="utf-8"))
        families = find_architectures(config)
        supports = frozenset().union(*(family.supports for family in families))
    return None if wanted in supports else f"{TITLES[wanted]} isn't known to support the model"


def _obstacle(wanted: str, invocation: Invocation, prepared: Prepared) -> str | None:
    """Say what of the command this engine can't do."""
    title = TITLES[wanted]
    loading = invocation.get(LoadingArguments)
    if invocation.get(QuantizationArguments).wanted() is not None:
        return (
            f"{title} can't quantize weights while it loads them; leave --quantization_bit and --quant_method out, "
            "or export a quantized model first"
        )
    if loading.device_map_config_path is not None or loading.device_max_memory:
        flag = "tensor_parallel_size" if wanted == "vllm" else "tp"
        return f"{title} divides a model by --{flag}, not by a device map"
    if loading.rope_scaling is not None:
        return (
            f"{title} takes positions as the model's config.json has them; leave --rope_scaling out"
        )
    beams = invocation.get(GenerationArguments).num_beams
    if beams > 1:
        return f"{title} has no beam search here; leave --num_beams {beams} out"
    return _adapters_obstacle(wanted, invocation, prepared)


def _adapters_obstacle(wanted: str, invocation: Invocation, prepared: Prepared) -> str | None:
    adapted = prepared.checkpoint is not None and not prepared.checkpoint.whole
    if not adapted and not invocation.get(InferArguments).lora_modules:
        return None
    what = "the checkpoint is an adapter" if adapted else "--lora_modules names adapters"
    if wanted == "lmdeploy":
        return f"{what}, and LMDeploy takes none by token ids; merge it (--merge_lora true)"
    if not invocation.get(VllmArguments).vllm_enable_lora:
        return f"{what}: give --vllm_enable_lora true, or merge it (--merge_lora true)"
    return None


def whole_directory(prepared: Prepared) -> Path:
    """Return the directory of the model that a server loads: never that of an adapter."""
    checkpoint = prepared.checkpoint
    return checkpoint.path if checkpoint is not None and checkpoint.whole else prepared.directory
