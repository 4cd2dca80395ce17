"""Log-probabilities of chosen tokens, with logits computed only where they are needed."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import cross_entropy

from ft_core.sequences.batch import to_padded
from ft_core.sequences.isolation import Layout, language_model, layout_for

if TYPE_CHECKING:
    from ft_core.recipe import Batch

CPU_CHUNK_BYTES = 1 << 22
"""Float32 logits that are worked on together on a CPU: they stay in its cache."""

CHUNK_BYTES = 1 << 28
"""The same on other devices, where each piece of work has to be large."""

_VIEWS = ("Squeeze", "Unsqueeze", "View", "UnsafeView", "Alias", "Slice", "Select")


def token_logits(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Return the logits [N, V] that predict ``batch["labels"]``, by one call of the whole model.

    Several documents in one row are padded first for a model that would mix them. A model that can't give logits at
    chosen positions gives all, and the others are thrown away.

    Args:
        model: a causal language model, possibly wrapped.
        batch: what ``ft_core.sequences.join`` or ``pad`` made, on the model's device, or a slice of it that
            ``split`` made.
    """
    alone = len(batch["cu_seqlens"]) == 2 or "attention" in batch
    if not alone and "attention_mask" not in batch and layout_for(model) is Layout.PADDED:
        batch = to_padded(batch)
    inputs: dict[str, Any] = {
        "input_ids": batch["input_ids"],
        "position_ids": batch["position_ids"],
        **batch.get("attention", {}),
        **batch.get("features", {}),
    }
    if inputs["position_ids"] is None:  # the model works them out of what it sees
        del inputs["position_ids"]
    targets = batch["targets"]
    chooses = "logits_to_keep" in inspect.signature(language_model(model).forward).parameters
    if "attention_mask" not in batch:
        chosen = {"logits_to_keep": targets} if chooses else {}
        logits: torch.Tensor = model(**inputs, use_cache=False, **chosen).logits.squeeze(0)
        return logits if chooses else logits[targets]
    row, place = targets // batch["input_ids"].shape[1], targets % batch["input_ids"].shape[1]
    keep, index = place.unique(return_inverse=True)
    inputs["attention_mask"] = batch["attention_mask"]
    chosen = {"logits_to_keep": keep} if chooses else {}
    logits = model(**inputs, use_cache=False, **chosen).logits
    return logits[row, index if chooses else place]


def pick_logprobs(
    logits: torch.Tensor, labels: torch.Tensor, *, overwrite: bool = False
) -> torch.Tensor:
    """Return the log-probability [N] of each label, in float32 or float64.

    A few rows of logits are worked on at a time, while they are in the processor's cache, so no copy of all of them
    is made: the softmax is computed anew in the backward pass, which costs less than writing it down would.

    Args:
        logits: [N, V], of any floating type.
        labels: [N].
        overwrite: whether their gradient may take the place of the logits, which nothing may read any more by then;
            the backward pass can be done once.
    """
    picked: torch.Tensor = _PickedLogprobs.apply(logits, labels, overwrite)  # type: ignore[no-untyped-call]
    return picked


def token_logprobs(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Return the log-probabilities [N] of ``batch["labels"]``; see ``token_logits`` and ``pick_logprobs``."""
    return pick_logprobs(token_logits(model, batch), batch["labels"], overwrite=True)


class _PickedLogprobs(torch.autograd.Function):
    """``pick_logprobs`` with its gradient."""

    @staticmethod
    def forward(
        ctx: Any, logits: torch.Tensor, labels: torch.Tensor, overwrite: bool
    ) -> torch.Tensor:
        ctx.save_for_backward(logits, labels)
        ctx.overwrite = overwrite and not _is_kept(logits)
        ctx.spent = False
        picked = _widen(logits[:0]).new_empty(len(labels))
        for rows in _chunks(logits):
            picked[rows] = -cross_entropy(_widen(logits[rows]), labels[rows], reduction="none")
        return picked

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        if ctx.spent:
            raise RuntimeError("the gradient has taken the place of the logits already")
        logits, labels = ctx.saved_tensors
        ctx.spent = ctx.overwrite
        result = logits.detach() if ctx.overwrite else torch.empty_like(logits)
        for rows in _chunks(logits):
            own = labels[rows]
            slope = _widen(logits[rows]).softmax(-1).neg_()
            slope[torch.arange(len(own), device=own.device), own] += 1
            result[rows] = slope.mul_(gradients[0][rows, None])
        return result, None, None


def _chunks(logits: torch.Tensor) -> list[slice]:
    """Return the rows that are worked on together."""
    size = CPU_CHUNK_BYTES if logits.device.type == "cpu" else CHUNK_BYTES
    rows = max(1, size // (4 * logits.shape[-1]))
    return [slice(start, start + rows) for start in range(0, len(logits), rows)]


def _is_kept(logits: torch.Tensor) -> bool:
    """Return whether what made the logits reads them again in its own backward pass, as ``tanh`` does."""
    node = logits.grad_fn
    while node is not None and node.name().startswith(_VIEWS):
        node = node.next_functions[0][0]
    return node is not None and hasattr(node, "_saved_result")


def _widen(logits: torch.Tensor) -> torch.Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
