"""A warning when a run unlearns the answers it should prefer."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

METRIC = "nll_loss"
"""The negative log-likelihood of chosen answers per token, in nats."""

TOO_FAR = math.log(2)
"""By how much it may rise: then the model gives each token half the probability it gave it before."""


class CollapseWarning(TrainerCallback):  # type: ignore[misc]
    """Says once that chosen answers have become unlikely.

    Preferences only ask that chosen answers be likelier than rejected ones, and both can fall
    (Razin et al. 2024, arXiv:2410.08847).
    """

    def __init__(self) -> None:
        self._warned = False

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Compare the newest interval with the first one of the run."""
        if self._warned or logs is None or METRIC not in logs or not state.is_world_process_zero:
            return
        first = next(row[METRIC] for row in state.log_history if METRIC in row)
        now = float(logs[METRIC])
        if now > first + TOO_FAR:
            self._warned = True
            print(
                f"step {state.global_step}: the chosen answers have become less than half as likely per token "
                f"({METRIC} was {first:.2f} and is {now:.2f}), so the model unlearns them together with the "
                "rejected ones; a lower --learning_rate, a higher --beta, or with dpo a higher --sft_beta prevents it",
                file=sys.stderr,
            )
