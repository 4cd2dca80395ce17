"""Flags of models that see or hear: which of their parts are trained, and how fast."""

from __future__ import annotations

from typing import ClassVar

from ft_core.command.group import ArgumentGroup, flag


class TowerArguments(ArgumentGroup):
    """Parts of models that see or hear."""

    title: ClassVar[str] = "vision and audio"

    freeze_vit: bool = True
    """Leave the encoders of images, videos and audios as they are; with false, DEFAULT targets and sft_type full take them in."""

    freeze_aligner: bool = False
    """Leave as it is what brings their output into the language model."""

    freeze_llm: bool = False
    """Leave the language model as it is."""

    vit_lr: float | None = flag(None, gt=0)
    """Learning rate of the encoders; none takes learning_rate."""

    aligner_lr: float | None = flag(None, gt=0)
    """Learning rate of what brings their output into the language model; none takes learning_rate."""
