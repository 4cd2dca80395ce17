"""Distillation on TRL's trainer: a student learns what a teacher would say next, in rows and in its own answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedModel, TrainerCallback
from trl.experimental.gkd import GKDConfig, GKDTrainer

from ft_align.online.running import InOurRun, TrainerJob

UNTRAINED = -100


@dataclass(frozen=True, slots=True)
class Lesson:
    """A row with its answer.

    Attributes:
        ids: tokens of the conversation.
        learned: whether each of them is learned.
        prompt: tokens of the question, which the student answers itself in some steps.
    """

    ids: Sequence[int]
    learned: Sequence[bool]
    prompt: Sequence[int]

    def row(self) -> dict[str, list[int]]:
        """Return the columns that ``Padding`` reads."""
        pairs = zip(self.ids, self.learned, strict=True)
        labels = [token if learned else UNTRAINED for token, learned in pairs]
        return {"ids": list(self.ids), "labels": labels, "prompt": list(self.prompt)}


@dataclass(frozen=True, slots=True)
class Padding:
    """Makes TRL's batches: conversations are padded on the right, prompts on the left."""

    filler: int

    def __call__(self, rows: Sequence[Mapping[str, list[int]]]) -> dict[str, torch.Tensor]:
        """Return [B, T] ``input_ids``, ``attention_mask`` and ``labels``, [B, P] ``prompts`` and their mask."""
        ids, labels = [row["ids"] for row in rows], [row["labels"] for row in rows]
        prompts = [row["prompt"] for row in rows]
        return {
            "input_ids": _block(ids, self.filler),
            "attention_mask": _block([[1] * len(item) for item in ids], 0),
            "labels": _block(labels, UNTRAINED),
            "prompts": _block(prompts, self.filler, left=True),
            "prompt_attention_mask": _block([[1] * len(item) for item in prompts], 0, left=True),
        }


def _block(rows: Sequence[list[int]], filler: int, *, left: bool = False) -> torch.Tensor:
    longest = max(map(len, rows))
    gaps = [[filler] * (longest - len(row)) for row in rows]
    pairs = zip(rows, gaps, strict=True)
    return torch.tensor([gap + row if left else row + gap for row, gap in pairs])


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillationJob(TrainerJob):
    """What a run is made of.

    Attributes:
        teacher: a frozen model with the same tokens.
        lessons: the rows.
    """

    teacher: PreTrainedModel
    lessons: Sequence[Lesson]


class _Gkd(InOurRun, GKDTrainer):  # type: ignore[misc]
    """GKD (Agarwal et al. 2024, arXiv:2306.13649)."""

    def __init__(self, job: DistillationJob, **given: Any) -> None:
        self.job = job
        super().__init__(**given)

    def compute_loss(
        self, model: Any, inputs: Mapping[str, torch.Tensor], *rest: Any, **more: Any
    ) -> Any:
        """Count the tokens, and return the divergence from the teacher."""
        if model.training:
            self.tokens += int(inputs["attention_mask"].sum())
            self.trained_tokens += int((inputs["labels"][:, 1:] != UNTRAINED).sum())
        return super().compute_loss(model, inputs, *rest, **more)


def distillation_trainer(job: DistillationJob, callbacks: Sequence[TrainerCallback]) -> Any:
    """Return TRL's trainer for a run."""
    trainer = _Gkd(
        job,
        model=job.model,
        teacher_model=job.teacher,
        args=GKDConfig(**job.settings),
        data_collator=Padding(job.tokenizer.pad_token_id),
        train_dataset=Dataset.from_list([lesson.row() for lesson in job.lessons]),
        processing_class=job.tokenizer,
        callbacks=list(callbacks),
    )
    trainer.drop_printers()
    return trainer
