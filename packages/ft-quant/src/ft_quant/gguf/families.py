"""How each family of models is described in GGUF: names of values, and how its tensors are laid out there.

The names are those of https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; what tensors need is what
llama.cpp's and transformers' readers expect.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ft_core.errors import ModelError

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Family:
    """A family of models.

    Attributes:
        architecture: its name in GGUF.
        turns_pairs: whether queries and keys are stored with the two halves of a rotation side by side, as
            Llama's original weights were.
        norms_from_one: whether norms multiply by one plus their weight, and GGUF holds the sum.
        slides: whether the window that layers look at is a value of the file.
        head_size: whether the size of a head is a value of the file.
    """

    architecture: str
    turns_pairs: bool = False
    norms_from_one: bool = False
    slides: bool = False
    head_size: bool = True


FAMILIES: Mapping[str, Family] = {
    "llama": Family("llama", turns_pairs=True),
    "mistral": Family("llama", turns_pairs=True),
    "qwen2": Family("qwen2", head_size=False),
    "qwen3": Family("qwen3"),
    "gemma": Family("gemma", norms_from_one=True),
    "gemma2": Family("gemma2", norms_from_one=True, slides=True),
    "gemma3_text": Family("gemma3", norms_from_one=True, slides=True),
    "phi3": Family("phi3", slides=True, head_size=False),
}
"""The families that ft writes, by ``model_type`` of their configuration."""


def family_of(config: Mapping[str, Any]) -> Family | None:
    """Return the family of a configuration; ``None`` where ft has no writer for it."""
    family = FAMILIES.get(str(config.get("model_type")))
    odd = config.get("attention_bias") or config.get("mlp_bias")
    return None if family is not None and family.turns_pairs and odd else family


def check_family(config: Mapping[str, Any]) -> Family:
    """Return the family of a configuration.

    Raises:
        ModelError: ft has no writer for it.
    """
    family = family_of(config)
    if family is None:
        raise ModelError(
            f"--to_gguf: ft writes {', '.join(FAMILIES)}, not models of type {config.get('model_type')}; give "
            "--llama_cpp_dir with a checkout of llama.cpp, whose converter knows more"
        )
    return family


def describe(writer: Any, family: Family, config: Mapping[str, Any], vocabulary: int) -> None:
    """Write the values of a model's configuration.

    Raises:
        ModelError: its positions are stretched in a way that GGUF has no values for.
    """
    heads = int(config["num_attention_heads"])
    head = int(config.get("head_dim") or int(config["hidden_size"]) // heads)
    writer.add_context_length(int(config["max_position_embeddings"]))
    writer.add_embedding_length(int(config["hidden_size"]))
    writer.add_block_count(int(config["num_hidden_layers"]))
    writer.add_feed_forward_length(int(config["intermediate_size"]))
    writer.add_head_count(heads)
    writer.add_head_count_kv(int(config.get("num_key_value_heads") or heads))
    writer.add_layer_norm_rms_eps(float(config["rms_norm_eps"]))
    writer.add_vocab_size(vocabulary)
    writer.add_rope_dimension_count(int(head * float(config.get("partial_rotary_factor") or 1)))
    if family.head_size:
        writer.add_key_length(head)
        writer.add_value_length(head)
    if family.slides and config.get("sliding_window"):
        writer.add_sliding_window(int(config["sliding_window"]))
    if config.get("attn_logit_softcapping"):
        writer.add_attn_logit_softcapping(float(config["attn_logit_softcapping"]))
    if config.get("final_logit_softcapping"):
        writer.add_final_logit_softcapping(float(config["final_logit_softcapping"]))
    _describe_rotation(writer, config)


def rotation_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return how positions are turned in layers that see everything."""
    rope = config.get("rope_parameters") or {}
    return rope if "rope_type" in rope else rope.get("full_attention", rope)


def rotation_factors(config: Mapping[str, Any]) -> Array | None:
    """Return what Llama 3.1 divides each frequency by, (head size / 2,) float32; ``None`` for other models.

    Its rule keeps high frequencies, divides low ones by the factor, and goes over smoothly between them
    (https://arxiv.org/abs/2407.21783, and Llama's reference code).
    """
    rope = rotation_of(config)
    if rope.get("rope_type") != "llama3":
        return None
    heads = int(config["num_attention_heads"])
    head = int(config.get("head_dim") or int(config["hidden_size"]) // heads)
    frequencies = float(rope["rope_theta"]) ** -(np.arange(0, head, 2, dtype=np.float64) / head)
    lengths = 2 * math.pi / frequencies
    trained = float(rope["original_max_position_embeddings"])
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    share = np.clip((trained / lengths - low) / (high - low), 0, 1)
    factors = 1 / ((1 - share) / float(rope["factor"]) + share)
    return factors.astype(np.float32)


def lay_out(family: Family, name: str, values: Array, config: Mapping[str, Any]) -> Array:
    """Return a tensor as GGUF holds it.

    Args:
        family: of the model.
        name: of the tensor in GGUF.
        values: as transformers holds them.
        config: of the model.
    """
    if family.norms_from_one and name.endswith("norm.weight"):
        return values + 1
    if family.turns_pairs and name.endswith(("attn_q.weight", "attn_k.weight")):
        heads = int(config["num_attention_heads"])
        if "attn_k" in name:
            heads = int(config.get("num_key_value_heads") or heads)
        pairs = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
        return pairs.swapaxes(1, 2).reshape(values.shape)
    return values


def _describe_rotation(writer: Any, config: Mapping[str, Any]) -> None:
    rope = rotation_of(config)
    kind = rope.get("rope_type", "default")
    writer.add_rope_freq_base(float(rope.get("rope_theta", 10000.0)))
    sliding = (config.get("rope_parameters") or {}).get("sliding_attention")
    if isinstance(sliding, Mapping) and "rope_theta" in sliding:
        writer.add_rope_freq_base_swa(float(sliding["rope_theta"]))
    if kind in ("default", "llama3"):
        return
    from gguf import RopeScalingType

    if kind not in ("linear", "yarn"):
        raise ModelError(
            f"GGUF has no values for positions that are stretched by {kind}; give --llama_cpp_dir with a checkout of "
            "llama.cpp, whose converter may know them"
        )
    writer.add_rope_scaling_type(RopeScalingType(kind))
    writer.add_rope_scaling_factor(float(rope["factor"]))
    if trained := rope.get("original_max_position_embeddings"):
        writer.add_rope_scaling_orig_ctx_len(int(trained))
