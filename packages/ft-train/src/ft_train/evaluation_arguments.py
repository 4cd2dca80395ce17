"""Flags of evaluation: what is measured, which checkpoint is the best, and when to stop early."""

from __future__ import annotations

from typing import ClassVar, Literal

from ft_core.command.group import ArgumentGroup, flag

AnswerMetric = Literal["rouge-l", "rouge-1", "rouge-2", "bleu-4"]
ANSWER_METRICS: tuple[AnswerMetric, ...] = ("rouge-l", "rouge-1", "rouge-2", "bleu-4")
"""What generated answers are measured by; each from 0 to 100, and more is better."""


class EvaluationArguments(ArgumentGroup):
    """What is measured while training."""

    title: ClassVar[str] = "evaluation"

    predict_with_generate: bool = False
    """Evaluate by generated answers too (ROUGE and BLEU, for English and Chinese). Takes long."""

    acc_strategy: Literal["token", "sentence"] = "token"
    """What accuracy counts: tokens that are most likely, or whole answers all of whose tokens are."""

    metric_for_best_model: str | None = None
    """Metric of the best checkpoint, as the log names it without eval_; none takes loss, or rouge-l with predict_with_generate."""

    greater_is_better: bool | None = None
    """Whether more of it is better; none takes true, except for losses."""

    load_best_model_at_end: bool = False
    """Put the best checkpoint's weights back into the model once training is over, for the answers at its end."""

    early_stopping_patience: int | None = flag(None, ge=1, aliases=("early_stop_interval",))
    """Stop after this many evaluations without a better metric; none goes on to the last step."""

    early_stopping_threshold: float = flag(0.0, ge=0)
    """By how much a metric must get better to count."""

    sample_answers: int = flag(2, ge=0)
    """Questions answered before and after training for the run card; 0 asks none."""
