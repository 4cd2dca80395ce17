"""New blocks that begin as nothing: copies whose outputs are zero, put between those of the model."""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers import PreTrainedModel

from ft_core.errors import ModelError, UsageError
from ft_core.models.classes import auto_class
from ft_core.models.groups import module_groups
from ft_core.models.linear import is_linear
from ft_core.tuners.llamapro.settings import LlamaProSettings

_OUTPUTS = frozenset(
    {
        *("o_proj", "out_proj", "c_proj", "dense", "wo", "attn_out", "proj"),
        *("down_proj", "w2", "fc2", "dense_4h_to_h", "ff_out", "output_linear"),
    }
)
"""What layers call the matrices whose results are added to the residual stream."""

_PROBE = 8
"""Tokens that the model is run on before and after, to see that nothing changed."""


def positions(layers: int, settings: LlamaProSettings) -> list[int]:
    """Return for each block of the grown model which one of the model it is, or is a copy of.

    The blocks are cut into groups of about one size, and the topmost of each are copied above it.

    Raises:
        UsageError: there are more new blocks than a group has.
    """
    groups, each = settings.groups, settings.num_new_blocks // settings.groups
    ends = [(index + 1) * layers // groups for index in range(groups)]
    order: list[int] = []
    for start, end in zip([0, *ends], ends, strict=False):
        if end - start < each:
            raise UsageError(
                f"--llamapro_num_new_blocks {settings.num_new_blocks} in {groups} groups: the model has {layers} blocks, too "
                f"few to copy {each} of each group; give fewer"
            )
        order += [*range(start, end), *range(end - each, end)]
    return order


def new_places(order: list[int]) -> tuple[int, ...]:
    """Return the places of the copies in what ``positions`` gave."""
    seen: set[int] = set()
    places = []
    for place, source in enumerate(order):
        if source in seen:
            places.append(place)
        seen.add(source)
    return tuple(places)


def grow(model: PreTrainedModel, settings: LlamaProSettings) -> tuple[int, ...]:
    """Put new blocks into a model and return their places; its answers don't change.

    Raises:
        UsageError: the model has too few blocks.
        ModelError: what a block adds can't be made zero, or plain transformers couldn't load the result.
    """
    before = _probe(model)
    name = module_groups(model).layer_list
    blocks: torch.nn.ModuleList = model.get_submodule(name)
    order = positions(len(blocks), settings)
    new = new_places(order)
    grown = [
        _silent_copy(model, blocks[source]) if place in new else blocks[source]
        for place, source in enumerate(order)
    ]
    for place, block in enumerate(grown):
        _renumber(block, place)
    model.set_submodule(name, torch.nn.ModuleList(grown))
    _extend(model.config.get_text_config(), order)
    _check_loadable(model)
    after = _probe(model)
    if before is not None and after is not None and not torch.equal(before, after):
        raise ModelError(
            f"--sft_type llamapro: new blocks of {type(model).__name__} would change its answers; use --sft_type lora"
        )
    return new


def _silent_copy(model: PreTrainedModel, block: torch.nn.Module) -> torch.nn.Module:
    """Return a copy that adds nothing to the residual stream; it shares the model's configuration."""
    shared = (model.config, model.config.get_text_config())
    twin = copy.deepcopy(block, {id(config): config for config in shared})
    with torch.no_grad():
        for name, module in twin.named_modules():
            if is_linear(module) and name.rpartition(".")[2] in _OUTPUTS:
                for parameter in module.parameters():
                    parameter.zero_()
        for name, parameter in twin.named_parameters():
            # Experts that are one tensor.
            if parameter.ndim == 3 and name.rpartition(".")[2] in _OUTPUTS:
                parameter.zero_()
    return twin


def _renumber(block: torch.nn.Module, place: int) -> None:
    """Tell the parts of a block its place, by which they find their cache."""
    for module in block.modules():
        if isinstance(vars(module).get("layer_idx"), int):
            vars(module)["layer_idx"] = place


def _extend(config: Any, order: list[int]) -> None:
    """Make a configuration say what the grown model is."""
    count = int(config.num_hidden_layers)
    for name, value in config.to_dict().items():
        if isinstance(value, list) and len(value) == count:
            setattr(config, name, [value[source] for source in order])
    config.num_hidden_layers = len(order)


def _check_loadable(model: PreTrainedModel) -> None:
    """Refuse a model whose configuration builds other layers, such as dense ones where there are experts."""
    with torch.device("meta"):
        built = auto_class(model.config).from_config(copy.deepcopy(model.config))
    ours = {name: value.shape for name, value in model.state_dict().items()}
    theirs = {name: value.shape for name, value in built.state_dict().items()}
    if ours != theirs:
        differing = sorted(set(ours.items()) ^ set(theirs.items()))[0][0]
        raise ModelError(
            f"--sft_type llamapro: {type(model).__name__} builds its layers by their number, so that new ones can't be put "
            f"between them (first at {differing}); use --sft_type lora"
        )


def _probe(model: PreTrainedModel) -> torch.Tensor | None:
    """Return the model's scores of a few tokens; ``None`` where it has no weights."""
    weight = model.get_input_embeddings().weight
    if weight.is_meta:
        return None
    training = model.training
    model.eval()
    ids = torch.arange(min(_PROBE, len(weight)), device=weight.device)[None]
    with torch.no_grad():
        scores: torch.Tensor = model(input_ids=ids, use_cache=False).logits
    model.train(training)
    return scores
