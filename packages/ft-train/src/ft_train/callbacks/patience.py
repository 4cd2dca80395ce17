"""Ends a run when evaluations no longer get better (Prechelt 1998, early stopping)."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class Patience(TrainerCallback):  # type: ignore[misc]
    """Stops training after some evaluations in a row without a better metric.

    Args:
        metric: its name in the log, with ``eval_``.
        greater_is_better: whether more of it is better.
        evaluations: how many may pass without a better one.
        threshold: by how much a value must be better to count.
    """

    def __init__(
        self, metric: str, *, greater_is_better: bool, evaluations: int, threshold: float = 0.0
    ) -> None:
        self.metric, self._sign = metric, 1.0 if greater_is_better else -1.0
        self._evaluations, self._threshold = evaluations, threshold
        self._best: float | None = None
        self._passed = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take evaluations before a resume into account."""
        self._best, self._passed = None, 0
        for row in state.log_history:
            if self.metric in row:
                self._look(float(row[self.metric]))

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> TrainerControl:
        """Look whether to stop; the checkpoint of this step is then saved."""
        self._look(float((metrics or {})[self.metric]))
        if self._passed >= self._evaluations and state.global_step < state.max_steps:
            control.should_training_stop = True
            control.should_save = args.save_strategy != "no"
            if state.is_world_process_zero:
                print(
                    f"stopping early at step {state.global_step}: {self.metric} was not better than "
                    f"{self._best:.4g} in {self._passed} evaluations",
                    file=sys.stderr,
                )
        return control

    def _look(self, value: float) -> None:
        gain = None if self._best is None else self._sign * (value - self._best)
        if gain is None or gain > self._threshold:
            self._best, self._passed = value, 0
        else:
            self._passed += 1
