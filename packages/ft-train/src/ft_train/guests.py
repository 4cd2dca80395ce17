"""Trainers of other libraries in our runs: with our log, progress, signals, curves and card."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ft_core.launch import is_main
from ft_train.callbacks import Journal, Progress, StopOnRequest, TensorBoard
from ft_train.metrics import Clock, memory_gib
from ft_train.plan import TrainingPlan
from ft_train.plots import draw_curves
from ft_train.run_card import card_of, write_card
from ft_train.signals import StopRequest
from ft_train.training import TrainResult, final_facts

MakeTrainer = Callable[[Sequence[TrainerCallback]], Any]
"""Makes a trainer with these watchers; it knows its ``last_checkpoint``, and the ``tokens`` and ``trained_tokens`` so far."""


class Measures(TrainerCallback):  # type: ignore[misc]
    """Adds speed and memory to each row of the log; goes before the watchers that read it."""

    def __init__(self, clock: Clock, device: str) -> None:
        self._clock, self._device, self._step = clock, device, 0

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Add them."""
        if logs is None or "loss" not in logs:
            return
        steps, self._step = state.global_step - self._step, state.global_step
        logs["memory(GiB)"] = round(memory_gib(self._device), 3)
        logs["train_speed(iter/s)"] = round(steps / self._clock.lap(), 4)


def train_by(
    make: MakeTrainer,
    plan: TrainingPlan,
    run_directory: Path,
    *,
    name: str,
    callbacks: Sequence[TrainerCallback] = (),
    info: Mapping[str, Any] | None = None,
) -> TrainResult:
    """Train by a trainer of another library.

    Args:
        make: makes it.
        plan: every value of the run, which the trainer was given as ``compat.settings_for_others``.
        run_directory: an existing directory; gets the log, the curves and the card.
        name: of the method, for the card.
        callbacks: further watchers.
        info: goes into the last line of the log (``model_info``, ``dataset_info``).

    Returns:
        How it ended, also when SIGTERM or Ctrl-C ended it early.
    """
    clock = Clock()
    journal = Journal(run_directory, clock)
    bar = False if plan.disable_tqdm else None
    board = [TensorBoard(Path(plan.logging_dir or run_directory / "runs"))]
    with StopRequest() as request:
        stop = StopOnRequest(request)
        trainer = make(
            [
                Measures(clock, plan.device),
                journal,
                Progress(clock, bar=bar),
                *(board if "tensorboard" in plan.report_to else ()),
                *callbacks,
                stop,
            ]
        )
        start = time.monotonic()
        trainer.train()
        seconds = time.monotonic() - start
    history = [row for row in trainer.state.log_history if "train_runtime" not in row]
    losses = [float(row["loss"]) for row in history if "loss" in row]
    last: Path | None = trainer.last_checkpoint
    result = TrainResult(
        global_step=trainer.state.global_step,
        final_loss=losses[-1] if losses else None,
        best_checkpoint=last,
        last_checkpoint=last,
        best_metric=None,
        interrupted=stop.stopped,
        seconds=seconds,
        tokens=trainer.tokens,
        trained_tokens=trainer.trained_tokens,
        memory_gib=memory_gib(plan.device),
        log_history=tuple(history),
        images=tuple(draw_curves(history, run_directory / "images")) if is_main() else (),
        batch_size=plan.batch_size,
    )
    if is_main():
        facts = final_facts(result)
        journal.append({**facts, "log_history": history, **(info or {})})
        card = card_of(plan, recipe=name, result=facts, info=info or {}, answers=())
        write_card(run_directory, card)
    return result
