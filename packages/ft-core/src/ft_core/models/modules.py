"""Which modules of a model an adapter attaches to, and which are trained whole beside it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ft_core.errors import UsageError
from ft_core.models.groups import (
    embedding_names,
    is_inside,
    is_norm,
    language_modules,
    norm_names,
)
from ft_core.models.linear import is_linear

ALL = "ALL"
EMBEDDING = "EMBEDDING"
NORMS = "LN"
DEFAULTS = frozenset({"DEFAULT", "AUTO"})

_ROUTERS = frozenset({"gate", "router", "shared_expert_gate", "gate_network"})
_LAYERS = (
    torch.nn.Embedding,
    torch.nn.Conv1d,
    torch.nn.Conv2d,
    torch.nn.Conv3d,
    Conv1D,
)
_HEADS = frozenset({"lm_head", "score", "classifier", "qa_outputs", "v_head", "embed_out"})


@dataclass(frozen=True, slots=True)
class Targets:
    """The modules an adapter goes to.

    Attributes:
        pattern: what peft takes: names that a module's full name is or ends with, or a regular
            expression that matches its full name.
        modules: full names of the modules that ``pattern`` means in this model.
        note: a sentence for the person when the wish was changed, else empty.
    """

    pattern: tuple[str, ...] | str
    modules: tuple[str, ...]
    note: str = ""


def find_targets(
    model: PreTrainedModel,
    requested: Sequence[str],
    *,
    regex: str | None = None,
    default: Sequence[str] | str = (),
    whole: Collection[str] = (),
) -> Targets:
    """Find the modules that ``--target_modules`` and ``--target_regex`` mean.

    Args:
        model: the loaded model, without adapters.
        requested: names of modules; ``DEFAULT`` and ``AUTO`` mean ``default``, ``ALL`` every linear layer
            but the head, routers and experts, ``EMBEDDING`` the embeddings.
        regex: a regular expression over full names; replaces ``requested``.
        default: the model's registered targets: names, a regular expression, or nothing for every linear
            layer outside the towers that see or hear.
        whole: full names of modules that are trained whole; they get no adapter.

    Raises:
        UsageError: nothing matches; the message lists the names that exist. Or a module is named that is
            trained whole.
    """
    if regex is not None:
        targets = _from_regex(model, regex, "--target_regex")
        _refuse_both(targets.modules, whole, f"--target_regex {regex}")
        return targets
    modules: set[str] = set()
    notes: list[str] = []
    for word in dict.fromkeys(requested):
        named = word.upper() not in DEFAULTS | {ALL}
        if word.upper() in DEFAULTS:
            found, note = _default(model, default)
            notes.append(note)
        elif word.upper() == ALL:
            found = linear_names(model)
        elif word.upper() == EMBEDDING:
            found = embedding_names(model)
        else:
            found = _ending(model, (word,))
        if not found:
            raise UsageError(_nothing(model, "--target_modules", word))
        if named:
            _refuse_both(found, whole, f"--target_modules {word}")
        modules.update(name for name in found if not is_inside(name, whole))
    if not modules:
        raise UsageError("--target_modules is empty; name modules, or use DEFAULT or ALL")
    ordered = tuple(name for name, _ in model.named_modules() if name in modules)
    return Targets(_shortest(model, ordered), ordered, "".join(notes))


def find_whole(model: PreTrainedModel, requested: Sequence[str]) -> tuple[str, ...]:
    """Return full names of the modules that ``--modules_to_save`` means, in order.

    Args:
        model: the loaded model, without adapters.
        requested: names of modules; ``EMBEDDING`` means the embeddings, ``LN`` all norms.

    Raises:
        UsageError: there is no such module, or its weights are quantized.
    """
    modules: set[str] = set()
    for word in dict.fromkeys(requested):
        if word.upper() == EMBEDDING:
            found = embedding_names(model)
        elif word.upper() == NORMS:
            found = norm_names(model)
        else:
            found = tuple(
                name
                for name, module in model.named_modules()
                if (name == word or name.endswith(f".{word}")) and _can_be_trained(module)
            )
        if not found:
            raise UsageError(_nothing_whole(model, word))
        modules.update(found)
    ordered = [name for name, _ in model.named_modules() if name in modules]
    outermost = tuple(name for name in ordered if not is_inside(name, modules - {name}))
    for name in outermost:
        if not all(item.is_floating_point() for item in model.get_submodule(name).parameters()):
            raise UsageError(
                f"--modules_to_save: the weights of {name} are quantized, so they can't be trained; adapt it by "
                "--target_modules instead"
            )
    return outermost


def endings(model: PreTrainedModel, modules: Collection[str]) -> tuple[str, ...]:
    """Return texts such that the full names which end with one, dots or not, are exactly ``modules``.

    That is how peft reads names of modules that are trained whole: ``norm`` there means ``input_layernorm`` too.
    """
    names = [name for name, _ in model.named_modules(remove_duplicate=False)]
    leaves = tuple(dict.fromkeys(name.rpartition(".")[2] for name in names if name in modules))
    if {name for name in names if name.endswith(leaves)} == set(modules):
        return leaves
    return tuple(name for name in names if name in modules)


def linear_names(model: PreTrainedModel) -> tuple[str, ...]:
    """Return full names of all linear layers but the head, routers and experts, in order."""
    return _linear(model, list(model.named_modules()))


def _linear(model: PreTrainedModel, modules: list[tuple[str, torch.nn.Module]]) -> tuple[str, ...]:
    head = model.get_output_embeddings()
    inside_head = set() if head is None else set(head.modules())
    return tuple(
        name
        for name, module in modules
        if is_linear(module)
        and module not in inside_head
        and (leaf := name.rpartition(".")[2]) not in _HEADS
        and leaf not in _ROUTERS
        and ".experts." not in name
    )


def _default(model: PreTrainedModel, default: Sequence[str] | str) -> tuple[tuple[str, ...], str]:
    """Return the modules that the registry means, and a note if it means none that exist."""
    everything = _linear(model, language_modules(model))
    if not default:
        return everything, ""
    if isinstance(default, str):
        found, shown = _matching(model, default), default
    else:
        complete = all(_ending(model, (name,)) for name in default)
        found, shown = (_ending(model, default) if complete else ()), ", ".join(default)
    if found:
        return found, ""
    note = (
        f"the registered targets ({shown}) do not all exist in this model's code; "
        "all its linear layers are taken instead"
    )
    return everything, note


def _from_regex(model: PreTrainedModel, regex: str, flag: str) -> Targets:
    try:
        pattern = re.compile(regex)
    except re.error as error:
        raise UsageError(f"{flag} {regex}: is no regular expression: {error}") from error
    modules = _matching(model, regex)
    if not modules:
        raise UsageError(_nothing(model, flag, regex))
    everything = {name for name, _ in model.named_modules() if pattern.fullmatch(name)}
    # An expression that also matches norms or containers would make peft stop, so layers are named.
    return Targets(regex if everything == set(modules) else _shortest(model, modules), modules)


def _shortest(model: PreTrainedModel, modules: tuple[str, ...]) -> tuple[str, ...] | str:
    """Return short names if they mean exactly ``modules``, else their full names as one expression."""
    leaves = tuple(dict.fromkeys(name.rpartition(".")[2] for name in modules))
    # peft takes every module whose name ends so, and stumbles over one that is no layer.
    found = {name for name, _ in model.named_modules() if name.rpartition(".")[2] in leaves}
    return leaves if found == set(modules) else _exact(modules)


def _exact(modules: tuple[str, ...]) -> str:
    """Return an expression for full names."""
    return "|".join(re.escape(name) for name in modules)


def _matching(model: PreTrainedModel, regex: str) -> tuple[str, ...]:
    pattern = re.compile(regex)
    return tuple(name for name, module in _candidates(model) if pattern.fullmatch(name))


def _ending(model: PreTrainedModel, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(
        full
        for full, _ in _candidates(model)
        if any(full == name or full.endswith(f".{name}") for name in names)
    )


def _candidates(model: PreTrainedModel) -> list[tuple[str, torch.nn.Module]]:
    return [
        (name, module)
        for name, module in model.named_modules()
        if is_linear(module) or isinstance(module, _LAYERS)
    ]


def _nothing(model: PreTrainedModel, flag: str, wish: str) -> str:
    counts = Counter(name.rpartition(".")[2] for name, _ in _candidates(model))
    names = ", ".join(f"{name} ({count})" for name, count in counts.items())
    return f"{flag} {wish}: no layer of this model is called so. It has {names}; ALL takes all linear layers"


def _refuse_both(found: Collection[str], whole: Collection[str], flag: str) -> None:
    both = [name for name in found if is_inside(name, whole)]
    if both:
        raise UsageError(
            f"{flag}: {both[0]} is trained whole (--modules_to_save), so an adapter on it would learn nothing of its "
            "own; leave it out of one of them"
        )


def _can_be_trained(module: torch.nn.Module) -> bool:
    """Whether peft can train a module whole: it has weights and is called, not only a container of others."""
    containers = (torch.nn.ModuleList, torch.nn.ModuleDict)
    return not isinstance(module, containers) and any(True for _ in module.parameters())


def _nothing_whole(model: PreTrainedModel, wish: str) -> str:
    counts = Counter(
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if is_linear(module) or isinstance(module, _LAYERS) or is_norm(name, module)
    )
    names = ", ".join(f"{name} ({count})" for name, count in counts.items())
    return (
        f"--modules_to_save {wish}: no module of this model is called so. It has {names}; EMBEDDING takes its "
        "embeddings, LN its norms"
    )
