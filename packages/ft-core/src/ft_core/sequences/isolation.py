"""Whether a model keeps joined documents apart, found by trying it on a tiny copy of its configuration.

Restarting positions are honoured by most architectures and ignored by some (recurrent layers, chunked
attention); a list of names would age, a probe does not.
"""

from __future__ import annotations

import copy
import functools
import json
from enum import StrEnum
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.modeling_utils import set_zero3_state

from ft_core.errors import ModelError
from ft_core.models.classes import gives_scores
from ft_core.sequences import attention

_LENGTHS = (5, 9, 4)
_TOLERANCE = 1e-3
_VOCABULARY = 64
_MOST_PARAMETERS = 200_000_000


class Layout(StrEnum):
    """How documents are batched for a model."""

    JOINED = "joined"
    """Joined in one row, attended document by document (``ft_joined``)."""

    MASKED = "masked"
    """Joined in one row; the model's own attention keeps documents apart by their positions."""

    PADDED = "padded"
    """One document a row, padded: joined documents would see each other."""


def language_model(model: torch.nn.Module) -> PreTrainedModel:
    """Return the transformers model inside wrappers (adapters, data parallelism).

    Raises:
        ModelError: there is none.
    """
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            return module
    raise ModelError(f"{type(model).__name__} holds no transformers model")


def layout_for(model: torch.nn.Module) -> Layout:
    """Return how to batch documents for ``model``; probed once for each configuration."""
    inner = language_model(model)
    # Remote code and adapters may subclass; the configuration decides what is built.
    values = {**inner.config.to_dict(), "use_cache": False}  # which trainers switch off on the way
    text = json.dumps(values, sort_keys=True, default=str)
    implementation = str(inner.config._attn_implementation)
    native = "sdpa" if implementation.startswith(("flash", attention.NAME)) else implementation
    return _probe(_Subject(_class_of(inner), inner.config, text), native)


def _class_of(model: PreTrainedModel) -> type[PreTrainedModel]:
    """Return the model's class, under the one that FSDP2 puts in front of it.

    Of a model that gives scores it is the class of its decoder: a score is one number for a whole row.
    """
    from torch.distributed.fsdp import FSDPModule

    if gives_scores(model):
        model = model.base_model
    own: type[PreTrainedModel] = type(model)
    return own.__mro__[2] if isinstance(model, FSDPModule) else own


class _Subject:
    """A model class with a configuration, hashed by the configuration's text."""

    def __init__(self, model_class: type[PreTrainedModel], config: Any, text: str) -> None:
        self.model_class, self.config = model_class, config
        self._key = (model_class, text)

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Subject) and self._key == other._key


@functools.lru_cache(maxsize=64)
def _probe(subject: _Subject, native: str) -> Layout:
    tiny = tiny_copy(subject.model_class, subject.config, native)
    if tiny is None:
        return Layout.PADDED
    generator = torch.Generator().manual_seed(0)
    documents = [torch.randint(3, _VOCABULARY, (1, n), generator=generator) for n in _LENGTHS]
    try:
        with torch.no_grad():
            apart = torch.cat([_logits(tiny, ids) for ids in documents], dim=1)
            if native == "sdpa":
                attention.enable_joined_attention(tiny)
                if _agrees(tiny, documents, apart):
                    return Layout.JOINED
                tiny.set_attn_implementation(native)
            return Layout.MASKED if _agrees(tiny, documents, apart) else Layout.PADDED
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError, ModelError):
        # An architecture whose tiny copy can't run joined rows is not trained on joined rows.
        return Layout.PADDED


def _logits(model: PreTrainedModel, ids: torch.Tensor, **inputs: Any) -> torch.Tensor:
    output = model(input_ids=ids, use_cache=False, **inputs)
    logits: torch.Tensor = output.logits if "logits" in output else output.last_hidden_state
    return logits


def _agrees(model: PreTrainedModel, documents: list[torch.Tensor], apart: torch.Tensor) -> bool:
    positions = torch.cat([torch.arange(ids.shape[1])[None] for ids in documents], dim=1)
    joined = _logits(model, torch.cat(documents, dim=1), position_ids=positions)
    return bool((joined - apart).abs().max() <= _TOLERANCE * apart.abs().max())


def tiny_copy(
    model_class: type[PreTrainedModel], config: Any, implementation: str, *, groups: int = 1
) -> PreTrainedModel | None:
    """Build a small random model of the same architecture, the narrowest that can be built.

    Args:
        model_class: what is built.
        config: its configuration, which is left as it is.
        implementation: of attention.
        groups: groups of heads that the copy keeps, each with keys of its own.

    Returns:
        The model in float32, in evaluation mode; ``None`` if none can be built.
    """
    for shrink in (functools.partial(_narrow, kept=groups), _shorten):
        small = copy.deepcopy(config)
        try:
            shrink(small.get_text_config())
            with torch.device("meta"):
                size = sum(p.numel() for p in model_class(small).parameters())
            if size > _MOST_PARAMETERS:
                continue
            # Else transformers would divide the copy over processes too, while a ZeRO-3 run is remembered.
            with torch.random.fork_rng(devices=[]), set_zero3_state():
                torch.manual_seed(0)
                model: PreTrainedModel = model_class._from_config(
                    small, attn_implementation=implementation, dtype=torch.float32
                )
                _spread(model)
            model.eval()
            with torch.no_grad():
                _logits(model, torch.tensor([[3, 4, 5]]))
        except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError):
            continue
        return model
    return None


def _spread(model: PreTrainedModel) -> None:
    """Give every matrix weights of a size at which a leak shows, also where the model starts at zero."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                fan_in = parameter[0].numel()
                parameter.normal_(0, fan_in**-0.5)


def _shorten(config: Any) -> None:
    """Keep one layer of each kind (at least two layers) and a small vocabulary."""
    values = config.to_dict()
    layers = int(values["num_hidden_layers"])
    kinds = values.get("layer_types") or ["same"] * layers
    keep = max(2, max(kinds.index(kind) for kind in kinds) + 1)
    for name, value in values.items():
        if isinstance(value, list) and len(value) == layers and layers > keep:
            setattr(config, name, value[:keep])
        if name.endswith("token_id") and value is not None:
            setattr(config, name, None if name != "pad_token_id" else 0)
    config.num_hidden_layers = min(layers, keep)
    config.vocab_size = _VOCABULARY


def _narrow(config: Any, *, kept: int) -> None:
    """Shorten, and keep some groups of heads of the original size."""
    _shorten(config)
    values = config.to_dict()
    heads = int(values["num_attention_heads"])
    groups = int(values.get("num_key_value_heads") or heads)
    head_size = int(values.get("head_dim") or values["hidden_size"] // heads)
    few = kept * (heads // groups if groups < heads else 2)
    config.num_attention_heads = few
    if values.get("num_key_value_heads"):
        config.num_key_value_heads = kept * (1 if groups < heads else 2)
    config.hidden_size = few * head_size
    for name in ("intermediate_size", "moe_intermediate_size", "shared_expert_intermediate_size"):
        if isinstance(values.get(name), int):
            setattr(config, name, 64)
