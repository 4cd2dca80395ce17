"""One moving line in a terminal, one line for each interval in a log file."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ft_train.metrics import Clock, duration

_SHOWN = {"acc": "acc", "rewards/margins": "margin", "reward": "reward"}
"""Metrics of recipes that the line shows, and what it calls them."""


class Progress(TrainerCallback):  # type: ignore[misc]
    """Shows how far a run is.

    Args:
        clock: of the run.
        bar: draw a bar; ``None`` draws one where standard error is a terminal.
    """

    def __init__(self, clock: Clock, *, bar: bool | None = None) -> None:
        self._clock = clock
        self._wants_bar = sys.stderr.isatty() if bar is None else bar
        self._bar: tqdm[Any] | None = None
        self._first_step = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Draw the bar."""
        self._first_step = state.global_step
        if self._wants_bar and state.is_world_process_zero:
            self._bar = tqdm(
                total=state.max_steps,
                initial=state.global_step,
                desc="training",
                dynamic_ncols=True,
            )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Move it."""
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Show the newest numbers."""
        if logs is None or "train_runtime" in logs or not state.is_world_process_zero:
            return
        if self._bar is not None and "loss" in logs:
            self._bar.set_postfix_str(", ".join([f"loss {logs['loss']:.4f}", *_speed(logs)]))
            return
        line = self._line(state, logs)
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
        else:
            print(line, flush=True)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave the bar where it is."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _line(self, state: TrainerState, logs: Mapping[str, Any]) -> str:
        done, total = state.global_step, state.max_steps
        parts = [f"step {done}/{total}"]
        if "loss" in logs:
            parts += [
                f"loss {logs['loss']:.4f}",
                *(f"{word} {logs[key]:.4f}" for key, word in _SHOWN.items() if key in logs),
                f"gradient {logs.get('grad_norm', 0.0):.3f}",
                f"learning rate {logs['learning_rate']:.2e}",
                *_speed(logs),
                f"{logs['memory(GiB)']:.2f} GiB",
            ]
        parts += [
            f"{word} {logs[f'eval_{key}']:.4f} (evaluation)"
            for key, word in {"loss": "loss", **_SHOWN}.items()
            if f"eval_{key}" in logs
        ]
        elapsed = self._clock.elapsed()
        left = elapsed / max(1, done - self._first_step) * max(0, total - done)
        return ", ".join([*parts, f"{duration(elapsed)} gone", f"{duration(left)} left"])


def _speed(logs: Mapping[str, Any]) -> list[str]:
    """Tell the speed in tokens, or where they aren't counted that in steps."""
    if (speed := logs.get("trained_tokens_per_second")) is not None:
        return [f"{speed:,.0f} trained tokens/s"]
    return [f"{logs['train_speed(iter/s)']:.3g} steps/s"]
