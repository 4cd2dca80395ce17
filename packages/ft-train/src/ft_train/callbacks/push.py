"""Pushes checkpoints to a hub while they are saved, and once more at the end."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ft_core.checkpoints import list_checkpoints
from ft_core.errors import HubError
from ft_core.hub import Destination, push
from ft_train.push_arguments import PushStrategy

FOR_RESUMING = (
    *("optimizer.pt", "optimizer/*", "scheduler.pt", "scaler.pt", "rng_state*.pth"),
    *("trainer_state.json", "*_state.json"),
)
"""Files that only resuming needs."""

LAST = "last-checkpoint"
"""Folder of the repository that holds the newest checkpoint whole."""


class PushCheckpoints(TrainerCallback):  # type: ignore[misc]
    """Keeps a repository up to date with a run.

    A push that fails while training goes on is said and tried again after the next save; one that fails at the
    end is an error, after everything is on disk.

    Args:
        destination: where to.
        strategy: what is pushed when.
        run_directory: holds the checkpoints.
    """

    def __init__(
        self, destination: Destination, strategy: PushStrategy, run_directory: Path
    ) -> None:
        self._destination, self._strategy = destination, strategy
        self._run_directory = run_directory
        self._pushed: set[tuple[str, str]] = set()

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Push what the strategy wants after a save."""
        if not state.is_world_process_zero or self._strategy == "end":
            return
        try:
            self._push(state)
        except HubError as error:
            print(f"warning: {error}; it is tried again after the next save", file=sys.stderr)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Push what isn't there yet.

        Raises:
            HubError: it can't be pushed; the checkpoints are on disk.
        """
        if state.is_world_process_zero:
            self._push(state)

    def _push(self, state: TrainerState) -> None:
        checkpoints = list_checkpoints(self._run_directory)
        if not checkpoints:
            return
        newest = checkpoints[-1]
        best = Path(state.best_model_checkpoint) if state.best_model_checkpoint else newest
        if self._strategy == "all_checkpoints":
            for checkpoint in checkpoints:
                self._once(checkpoint, checkpoint.name, ())
            return
        model = newest if self._strategy in ("push_last", "checkpoint") else best
        if model.is_dir():
            self._once(model, "", FOR_RESUMING)
        if self._strategy == "checkpoint":
            self._once(newest, LAST, ())

    def _once(self, checkpoint: Path, under: str, leave_out: tuple[str, ...]) -> None:
        what = (checkpoint.name, under)
        if what in self._pushed:
            return
        print(f"pushing {checkpoint.name} to {self._destination}", file=sys.stderr)
        push(
            self._destination,
            checkpoint,
            message=f"{checkpoint.name} of {self._run_directory.name}",
            under=under,
            leave_out=leave_out,
        )
        self._pushed.add(what)
