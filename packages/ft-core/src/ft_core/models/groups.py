"""The parts every language model is made of, found from the model itself.

Names differ between architectures (``model.layers``, ``transformer.h``, ``gpt_neox.layers``), what they are to
each other doesn't: the decoder layers are the largest list near the embedding, the last norm follows that
list, and what stands beside the language model sees or hears for it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from ft_core.errors import ModelError
from ft_core.models.linear import is_linear

_NORM_CLASSES = (
    torch.nn.LayerNorm,
    torch.nn.RMSNorm,
    torch.nn.GroupNorm,
    torch.nn.modules.batchnorm._NormBase,
)
_NORM_NAME = re.compile(r"norm|(^|_)ln(_|\d|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ModuleGroups:
    """Full names of a model's parts.

    Attributes:
        embedding: the input embedding.
        layers: the decoder layers, the first one first.
        layer_list: the list that holds them, and nothing else.
        final_norm: the norm between the last layer and the head.
        head: what makes scores of the vocabulary from hidden states.
        vision: towers that encode images, videos or audio; empty for a model of text alone.
        projector: what turns their output into the language model's hidden size.
    """

    embedding: str
    layers: tuple[str, ...]
    layer_list: str
    final_norm: str | None = None
    head: str | None = None
    vision: tuple[str, ...] = ()
    projector: tuple[str, ...] = ()


def module_groups(model: PreTrainedModel) -> ModuleGroups:
    """Find the parts of a decoder model, with or without towers beside it; adapters may be attached.

    Raises:
        ModelError: it has no token embedding or no list of layers.
    """
    names = {module: name for name, module in model.named_modules()}
    embedding = names.get(model.get_input_embeddings())
    if embedding is None:
        raise ModelError(f"{type(model).__name__} has no token embedding")
    layer_list = _layer_list(model, embedding)
    head = names.get(model.get_output_embeddings())
    beside = list(_beside(model, _common(embedding, layer_list), head))
    vision = tuple(name for name, module in beside if _is_tower(module))
    outside = tuple(name for name, module in beside if not _is_tower(module))
    return ModuleGroups(
        embedding=embedding,
        layers=tuple(f"{layer_list}.{name}" for name, _ in _child(model, layer_list)),
        layer_list=layer_list,
        final_norm=_final_norm(model, layer_list),
        head=head,
        vision=vision,
        projector=outside or tuple(_inner_projectors(model, vision)),
    )


def is_norm(name: str, module: torch.nn.Module) -> bool:
    """Whether a module normalises and has weights for it, whatever its class is called.

    Args:
        name: its name in the model.
        module: the module itself.
    """
    parameters = list(module.parameters())
    if not parameters or any(True for _ in module.children()):
        return False
    if isinstance(module, _NORM_CLASSES):
        return True
    named = any("norm" in kind.__name__.lower() for kind in type(module).__mro__)
    named = named or _NORM_NAME.search(name.rpartition(".")[2]) is not None
    return named and all(parameter.ndim <= 1 for parameter in parameters)


def language_modules(model: PreTrainedModel) -> list[tuple[str, torch.nn.Module]]:
    """Return all modules but those of the towers, in order; what projects their output counts as language."""
    modules = list(model.named_modules())
    if model.config.get_text_config() is model.config:
        return modules
    groups = module_groups(model)
    return [
        (name, module)
        for name, module in modules
        if not is_inside(name, groups.vision) or is_inside(name, groups.projector)
    ]


def norm_names(model: PreTrainedModel) -> tuple[str, ...]:
    """Return full names of all norms with weights, those of the towers apart, in order."""
    return tuple(name for name, module in language_modules(model) if is_norm(name, module))


def embedding_names(model: PreTrainedModel) -> tuple[str, ...]:
    """Return full names of the embeddings: of tokens, and of positions in models that have some."""
    return tuple(
        name for name, module in language_modules(model) if isinstance(module, torch.nn.Embedding)
    )


def is_inside(name: str, parents: Collection[str]) -> bool:
    """Whether a module is one of ``parents`` or inside one."""
    return any(name == parent or name.startswith(f"{parent}.") for parent in parents)


def _layer_list(model: PreTrainedModel, embedding: str) -> str:
    """Return the list of decoder layers: the largest one in the nearest module around the embedding."""
    wanted = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    around = embedding
    while around:
        around = around.rpartition(".")[0]
        lists = [
            (name, module)
            for name, module in _outermost_lists(_child_module(model, around), around)
            if any(True for _ in module.parameters())
        ]
        # A list of that very length goes before a larger one, such as experts of a hybrid.
        exact = [item for item in lists if len(item[1]) == wanted]
        if found := exact or (lists if not around or wanted is None else []):
            return max(found, key=lambda item: sum(p.numel() for p in item[1].parameters()))[0]
    raise ModelError(f"{type(model).__name__} has no list of layers")


def _outermost_lists(
    module: torch.nn.Module, name: str
) -> Iterator[tuple[str, torch.nn.ModuleList]]:
    """Yield the lists of modules below one that are in no other list."""
    for child_name, child in module.named_children():
        full = f"{name}.{child_name}" if name else child_name
        if isinstance(child, torch.nn.ModuleList):
            yield full, child
        else:
            yield from _outermost_lists(child, full)


def _final_norm(model: PreTrainedModel, layer_list: str) -> str | None:
    """Return the norm beside the layers; one that is registered after them goes before one of the embedding."""
    parent, _, leaf = layer_list.rpartition(".")
    children = _child(model, parent)
    position = [name for name, _ in children].index(leaf)
    after = [name for name, module in children[position + 1 :] if is_norm(name, module)]
    norms = after or [name for name, module in children[:position] if is_norm(name, module)]
    return None if not norms else f"{parent}.{norms[-1]}" if parent else norms[-1]


def _common(one: str, other: str) -> str:
    """Return the name of the nearest module that holds both."""
    shared = []
    for left, right in zip(one.split("."), other.split("."), strict=False):
        if left != right:
            break
        shared.append(left)
    return ".".join(shared)


def _beside(
    model: PreTrainedModel, language: str, head: str | None
) -> Iterator[tuple[str, torch.nn.Module]]:
    """Yield what has weights and stands beside the language model, the head apart."""
    path = language
    while path:
        parent = path.rpartition(".")[0]
        for name, module in _child(model, parent):
            full = f"{parent}.{name}" if parent else name
            if full not in (path, head) and any(True for _ in module.parameters()):
                yield full, module
        path = parent


def _is_tower(module: torch.nn.Module) -> bool:
    """Whether a module is an encoder of its own: a stack of blocks, or one that transformers could load alone."""
    if isinstance(module, PreTrainedModel):
        return True
    stacks = (item for item in module.modules() if isinstance(item, torch.nn.ModuleList))
    return any(
        len(stack) > 1
        and len({type(block) for block in stack}) == 1
        and any(True for _ in stack[0].children())
        for stack in stacks
    )


def _inner_projectors(model: PreTrainedModel, towers: tuple[str, ...]) -> Iterator[str]:
    """Yield what follows a tower's blocks and puts out the language model's hidden size."""
    size = model.config.get_text_config().hidden_size
    for tower in towers:
        past_blocks = False
        for name, module in _child(model, tower):
            linear = [item for item in module.modules() if is_linear(item)]
            stack = isinstance(module, torch.nn.ModuleList)
            if past_blocks and linear and getattr(linear[-1], "out_features", None) == size:
                yield f"{tower}.{name}"
            past_blocks = past_blocks or stack


def _child_module(model: torch.nn.Module, name: str) -> torch.nn.Module:
    return model.get_submodule(name) if name else model


def _child(model: torch.nn.Module, name: str) -> list[tuple[str, torch.nn.Module]]:
    """Return the children of the module called ``name``, with their own names."""
    return list(_child_module(model, name).named_children())
