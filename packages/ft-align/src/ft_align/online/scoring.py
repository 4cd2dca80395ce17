"""A reward model that scores answers in training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel

from ft_align.scores import document_scores
from ft_core.checkpoints import open_checkpoint
from ft_core.errors import UsageError
from ft_core.models.loading import load_checkpoint
from ft_core.samples import Tokens
from ft_core.sequences import Layout, enable_joined_attention, join, layout_for, to_device
from ft_core.tokenizer import Tokenizer

_TOGETHER = 8
"""Texts that are scored in one call."""


class RewardModel:
    """Scores texts by a frozen reward model.

    Args:
        model: with a score head.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model.eval().requires_grad_(False)
        if layout_for(model) is Layout.JOINED:
            enable_joined_attention(model)

    @classmethod
    def open(
        cls, directory: Path, tokenizer: Tokenizer, *, dtype: torch.dtype, device: str
    ) -> RewardModel:
        """Load a checkpoint of ``--rlhf_type rm``.

        Args:
            directory: the checkpoint.
            tokenizer: of the model that is trained.
            dtype: of the weights.
            device: where it goes.

        Raises:
            UsageError: it reads other tokens than the model that is trained.
            ModelError: it is no checkpoint of a reward model, or can't be loaded.
        """
        checkpoint = open_checkpoint(directory)
        if not Tokenizer.from_directory(checkpoint.path).reads_like(tokenizer):
            raise UsageError(
                f"--reward_funcs model:{directory}: reads other tokens than the model that is trained; make a reward "
                "model of a model with the same tokenizer"
            )
        return cls(load_checkpoint(checkpoint, dtype=dtype, device=device, scores=True))

    @torch.no_grad()
    def __call__(self, texts: Sequence[Sequence[int]]) -> list[float]:
        """Return the score of each text, given as tokens."""
        scores: list[float] = []
        for start in range(0, len(texts), _TOGETHER):
            part = texts[start : start + _TOGETHER]
            batch = join([Tokens(list(ids), [0.0] * len(ids)) for ids in part])
            scores += document_scores(self._model, to_device(batch, self._model.device)).tolist()
        return scores
