"""Folding an adapter into its base tensor by tensor, for bases that are larger than the memory.

The adapter is attached to a model whose weights take no memory; each layer is given its weights, merged by
the same code as in a whole model, read, and emptied again.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import cast

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer, ParamWrapper
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import ModulesToSaveWrapper, TrainableTokensWrapper
from transformers import AutoModelForCausalLM, PreTrainedModel

from ft_core.checkpoints import ADAPTER_CONFIG, SavedCheckpoint
from ft_core.errors import ModelError
from ft_core.models.rope import read_config, rope_of_checkpoint, scale
from ft_core.tuners import TUNERS
from ft_core.tuners.older_layout import as_peft

Read = Callable[[str], torch.Tensor]
"""Reads a tensor of the base by its name."""

_TIED = "lm_head.weight"


class ShardMerger:
    """An adapter that gives the merged value of each tensor of its base.

    Args:
        adapted: the adapter on a base without weights.
        read: reads the base's.
        dtype: of the merged tensors.
    """

    def __init__(self, adapted: PeftModel, read: Read, dtype: torch.dtype) -> None:
        self._base = cast(PreTrainedModel, adapted.get_base_model())
        self._read = read
        self._dtype = dtype
        self._ready: dict[str, torch.Tensor] = {}

    @property
    def model(self) -> PreTrainedModel:
        """The base: its configuration and shapes, without weights."""
        return self._base

    def merged(self, name: str) -> torch.Tensor:
        """Return the merged value of a tensor, computed in float32 and rounded once.

        Raises:
            ModelError: the adapter holds numbers that aren't finite.
        """
        if name in self._ready:
            return self._ready.pop(name)
        owner, leaf = self._owner(name)
        if isinstance(owner, ModulesToSaveWrapper):
            value = owner.modules_to_save[owner.active_adapters[0]].state_dict()[leaf]
            if not bool(value.isfinite().all()):
                raise ModelError(f"{name} can't be merged: it holds numbers that aren't finite")
            return self._rounded(value)
        if isinstance(owner, BaseTunerLayer):
            self._merge(owner, name.removesuffix(f".{leaf}"))
            return self._ready.pop(name)
        return self._rounded(self._read(name))

    def _owner(self, name: str) -> tuple[torch.nn.Module, str]:
        """Return the wrapped module that a tensor belongs to and its name in there, else where it lies."""
        parts = name.split(".")
        module: torch.nn.Module = self._base
        for depth, part in enumerate(parts[:-1], 1):
            module = module.get_submodule(part)
            if isinstance(module, BaseTunerLayer | ModulesToSaveWrapper):
                return module, ".".join(parts[depth:])
        return module, parts[-1]

    def _merge(self, layer: BaseTunerLayer, name: str) -> None:
        inner = layer.get_base_layer()
        empty = dict(inner.named_parameters())
        for leaf in empty:
            _give(inner, leaf, self._read(f"{name}.{leaf}").to(torch.float32))
        try:
            layer.merge(safe_merge=True)
        except ValueError as error:
            raise ModelError(f"the adapter can't be merged: {error}") from error
        for leaf, nothing in empty.items():
            self._ready[f"{name}.{leaf}"] = self._rounded(inner.get_parameter(leaf))
            _give(inner, leaf, nothing.data)
        layer.merged_adapters.clear()

    def _rounded(self, value: torch.Tensor) -> torch.Tensor:
        return value.detach().to(self._dtype) if value.is_floating_point() else value.detach()


def open_merger(
    directory: Path,
    adapter: SavedCheckpoint,
    names: Collection[str],
    read: Read,
    *,
    dtype: torch.dtype,
    trust_remote_code: bool = False,
) -> ShardMerger | None:
    """Return what merges an adapter tensor by tensor, ``None`` where only a whole model can be merged.

    That is so where the tensors on disk aren't those of the modules (transformers converts some models while
    it loads them), or where a merge reaches beyond one module: shared embeddings, new tokens, experts.

    Args:
        directory: the base.
        adapter: the checkpoint.
        names: of the tensors on disk.
        read: reads one of them.
        dtype: of the merged tensors.
        trust_remote_code: run Python code from the base's directory if it needs it.

    Raises:
        ModelError: the adapter doesn't fit the base, or is damaged.
    """
    model = _weightless(directory, adapter, dtype, trust_remote_code=trust_remote_code)
    stored = {name for name in names if not name.endswith("rotary_emb.inv_freq")}
    own = {name for name, _ in model.named_parameters()}
    if not own <= stored or not stored <= own | {_TIED}:
        return None
    rows = _embedding(model).weight.shape[0]
    if _trains_biases(adapter):
        return None
    adapted = TUNERS.get(adapter.kind).load(model, adapter.path)
    if not isinstance(adapted, PeftModel) or _reaches_beyond(adapted):
        return None
    base = cast(PreTrainedModel, adapted.get_base_model())
    if _embedding(base).weight.shape[0] != rows:
        return None
    return ShardMerger(adapted, read, dtype)


def _weightless(
    directory: Path, adapter: SavedCheckpoint, dtype: torch.dtype, *, trust_remote_code: bool
) -> PreTrainedModel:
    """Return the base with parameters on the CPU that hold a single number each."""
    config = read_config(directory, trust_remote_code=trust_remote_code)
    rope = rope_of_checkpoint(adapter, directory, trust_remote_code=trust_remote_code)
    if rope is not None:
        scale(config, rope)
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            copy.deepcopy(config), dtype=dtype, trust_remote_code=trust_remote_code
        )
    made: dict[torch.nn.Parameter, torch.nn.Parameter] = {}
    for name, parameter in list(model.named_parameters(remove_duplicate=False)):
        if parameter not in made:
            empty = torch.zeros((), dtype=parameter.dtype).expand(parameter.shape)
            made[parameter] = torch.nn.Parameter(empty, requires_grad=False)
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, made[parameter])
    model.name_or_path = str(directory)
    return model.eval()


def _trains_biases(adapter: SavedCheckpoint) -> bool:
    """Whether biases of the base are part of the adapter, which then has values for them."""
    with as_peft(adapter.path) as directory:
        config = json.loads((directory / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    return str(config.get("bias", "none")) != "none"


def _reaches_beyond(adapted: PeftModel) -> bool:
    """Whether merging changes more than the tensors of adapted modules."""
    base = cast(PreTrainedModel, adapted.get_base_model())
    modules = list(base.modules())
    if any(isinstance(module, TrainableTokensWrapper | ParamWrapper) for module in modules):
        return True
    if not base.config.get_text_config().tie_word_embeddings:
        return False
    ends = (base.get_input_embeddings(), base.get_output_embeddings())
    wrapped = (BaseTunerLayer, ModulesToSaveWrapper, LoraLayer)
    return any(isinstance(end, wrapped) for end in ends) or any(
        isinstance(module, wrapped) and any(end in set(module.modules()) for end in ends)
        for module in modules
    )


def _embedding(base: PreTrainedModel) -> torch.nn.Embedding:
    module = base.get_input_embeddings()
    while isinstance(module, BaseTunerLayer | ModulesToSaveWrapper):
        module = (
            module.get_base_layer()
            if isinstance(module, BaseTunerLayer)
            else module.modules_to_save[module.active_adapters[0]]
        )
    return cast(torch.nn.Embedding, module)


def _give(module: torch.nn.Module, name: str, value: torch.Tensor) -> None:
    owner, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(owner), leaf, torch.nn.Parameter(value, requires_grad=False))
