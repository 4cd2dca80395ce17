"""Adapters on experts and routers, which many models keep as plain tensors instead of layers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedModel

from ft_core.errors import UsageError
from ft_core.models.linear import is_linear
from ft_core.tuners.lora.settings import LoraSettings

logger = logging.getLogger(__name__)

_ROUTERS = frozenset({"gate", "router"})


@dataclass(frozen=True, slots=True)
class Request:
    """What ``--target_modules`` asks for.

    Attributes:
        modules: words that mean layers.
        parameters: full names of tensors of experts and routers.
    """

    modules: tuple[str, ...]
    parameters: tuple[str, ...]


def read_request(model: PreTrainedModel, words: Sequence[str]) -> Request:
    """Tell words that name tensors of experts or routers from those that name layers.

    ``experts`` means all tensors of the experts, ``gate_up_proj`` and ``down_proj`` those of that name where no
    layer has it, ``gate`` or ``router`` the router.
    """
    leaves = {
        name.rpartition(".")[2] for name, module in model.named_modules() if is_linear(module)
    }
    tensors = tuple(
        name for name, value in model.named_parameters() if _is_tensor(name, value.ndim)
    )
    modules: list[str] = []
    parameters: list[str] = []
    for word in words:
        found = [] if word in leaves else [name for name in tensors if _means(word, name)]
        parameters += found
        if not found:
            modules.append(word)
    return Request(tuple(modules), tuple(dict.fromkeys(parameters)))


def has_fused_experts(model: PreTrainedModel) -> bool:
    """Whether the experts of a layer are one tensor of three dimensions."""
    return any(
        ".experts." in name and parameter.ndim == 3 for name, parameter in model.named_parameters()
    )


def settings_for_tensors(settings: LoraSettings) -> LoraSettings:
    """Return settings that peft can adapt tensors with: without dropout.

    Raises:
        UsageError: DoRA, or matrices that begin with something taken from weights.
    """
    if settings.use_dora:
        raise UsageError(
            "--use_dora true can't adapt experts and routers that are tensors instead of layers; leave one of "
            "--use_dora and the experts' names in --target_modules out"
        )
    if settings.init not in ("true", "false"):
        raise UsageError(
            f"--init_lora_weights {settings.init} can't begin adapters of experts and routers that are tensors instead "
            "of layers; use true, or leave their names out of --target_modules"
        )
    if settings.dropout:
        logger.warning("--lora_dropout has no effect: peft adapts experts without dropout")
    return replace(settings, dropout=0.0)


def _is_tensor(name: str, dimensions: int) -> bool:
    *_, owner, leaf = ("", "", *name.split("."))
    return (owner == "experts" and dimensions == 3) or (
        owner in _ROUTERS and leaf == "weight" and dimensions == 2
    )


def _means(word: str, name: str) -> bool:
    owner = name.rpartition(".")[0]
    return name == word or any(full == word or full.endswith(f".{word}") for full in (name, owner))
