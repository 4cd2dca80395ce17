"""Rows joined without padding, attention between them kept apart, logits at chosen positions.

A batch is one row of documents joined end to end, with positions that restart in each. The model is
called once, without an attention mask, and computes logits only where there is loss. Whether a model
keeps joined documents apart is probed, and batches are padded for models that don't.
"""

from ft_core.sequences.attention import enable_joined_attention
from ft_core.sequences.batch import join, pad, to_device, to_padded, trained_tokens
from ft_core.sequences.isolation import Layout, layout_for
from ft_core.sequences.logprobs import pick_logprobs, token_logits, token_logprobs
from ft_core.sequences.parallel import (
    SequenceGroup,
    enable_split_attention,
    sequence_group,
    split,
)

__all__ = [
    "Layout",
    "SequenceGroup",
    "enable_joined_attention",
    "enable_split_attention",
    "join",
    "layout_for",
    "pad",
    "pick_logprobs",
    "sequence_group",
    "split",
    "to_device",
    "to_padded",
    "token_logits",
    "token_logprobs",
    "trained_tokens",
]
