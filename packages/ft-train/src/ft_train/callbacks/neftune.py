"""NEFTune: noise on embeddings while training (Jain et al. 2023, https://arxiv.org/abs/2310.05914)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations.neftune import neftune_post_forward_hook

from ft_core.sequences.isolation import language_model

Backend = Literal["transformers", "swift"]


class Neftune(TrainerCallback):  # type: ignore[misc]
    """Adds uniform noise of size alpha / sqrt(L · d) to the embeddings of each document of L tokens.

    Rows that are joined get noise by the length of each document in them, as if they were apart.

    Args:
        alpha: strength.
        backend: ``transformers`` takes its function, which counts padding as text; ``swift`` is ft's own and
            counts the tokens of the document.
    """

    def __init__(self, alpha: float, backend: Backend) -> None:
        self._alpha, self._backend = alpha, backend
        self._handles: list[Any] = []
        self._inputs: Mapping[str, Any] = {}

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: torch.nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Begin to add noise."""
        assert model is not None
        inner = language_model(model)
        self._remove()
        embedding = inner.get_input_embeddings()
        embedding.neftune_noise_alpha = self._alpha
        self._handles = [
            inner.register_forward_pre_hook(self._look, with_kwargs=True),
            embedding.register_forward_hook(self._add_noise),
        ]

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop."""
        self._remove()

    def _remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._inputs = [], {}

    def _look(self, module: torch.nn.Module, inputs: Any, named: dict[str, Any]) -> None:
        """Remember what tells documents apart."""
        self._inputs = named

    def _add_noise(
        self, module: torch.nn.Module, inputs: Any, output: torch.Tensor
    ) -> torch.Tensor:
        """Return the embeddings [B, T, d] with noise."""
        if not module.training:
            return output
        if self._backend == "swift":
            return output + self._noise(output)
        bounds = document_bounds(self._inputs.get("position_ids"), output.shape[1])
        if len(output) > 1 or len(bounds) == 1:
            whole: torch.Tensor = neftune_post_forward_hook(module, inputs, output)
            return whole
        parts = [
            neftune_post_forward_hook(module, inputs, output[:, start:end]) for start, end in bounds
        ]
        return torch.cat(parts, dim=1)

    def _noise(self, output: torch.Tensor) -> torch.Tensor:
        rows, length, width = output.shape
        lengths = torch.empty(rows, length, device=output.device)
        mask = self._inputs.get("attention_mask")
        if rows == 1:
            for start, end in document_bounds(self._inputs.get("position_ids"), length):
                lengths[:, start:end] = end - start
        elif isinstance(mask, torch.Tensor) and mask.ndim == 2:
            lengths[:] = mask.sum(1, keepdim=True)
        else:
            lengths.fill_(length)
        size = (self._alpha / (lengths * width).sqrt())[..., None]
        return (torch.empty_like(output).uniform_(-1, 1) * size).to(output.dtype)


def document_bounds(position_ids: Any, length: int) -> list[tuple[int, int]]:
    """Return where each document of a joined row begins and ends.

    Args:
        position_ids: [1, T], restarting at 0 in each document; anything else is one document.
        length: T.
    """
    if not isinstance(position_ids, torch.Tensor) or position_ids.shape != (1, length):
        return [(0, length)]
    starts: list[int] = (position_ids[0] == 0).nonzero()[:, 0].tolist()
    starts = sorted({0, *starts})
    return list(zip(starts, [*starts[1:], length], strict=True))
