"""The part of the trainer that saves: checkpoints, what resuming needs, and the best weights."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate.optimizer import AcceleratedOptimizer
from transformers import PreTrainedModel, Trainer, TrainerControl, set_seed
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ft_core.checkpoints import prune
from ft_core.errors import FtError
from ft_core.launch import gather, is_main, rank
from ft_core.recipe import Recipe, StepRecipe
from ft_train.callbacks import StopOnRequest
from ft_train.data import TrainData
from ft_train.distributed.fsdp import load_optimizer, save_optimizer
from ft_train.distributed.gathering import whole_weights
from ft_train.distributed.shared_directory import shared_directory
from ft_train.distributed.team import Team
from ft_train.loaders import Loaders
from ft_train.plan import TrainingPlan
from ft_train.resume import (
    SCHEDULER_FILE,
    STATE_FILE,
    RunState,
    recipe_state,
    rows_fingerprint,
    save_recipe_state,
)
from ft_train.run_options import CheckpointWriter, Extras
from ft_train.weights import random_state, restore_weights, trained_weights


class SavingTrainer(Trainer):  # type: ignore[misc]
    """A trainer whose checkpoints appear whole or not at all, and can be continued exactly.

    Attributes:
        last_checkpoint: the newest one of this process's run.
    """

    control: TrainerControl
    optimizer: torch.optim.Optimizer | None
    recipe: Recipe
    data: TrainData
    plan: TrainingPlan
    run_directory: Path
    writer: CheckpointWriter
    extras: Extras
    loaders: Loaders
    team: Team
    last_checkpoint: Path | None = None
    _evaluated: tuple[int, float] | None = None
    _best_weights: dict[str, torch.Tensor] | None = None

    @property
    def plain_model(self) -> PreTrainedModel:
        """The model without the wrappers of several processes."""
        return self.accelerator.unwrap_model(self.model)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Write ``checkpoint-<step>``, complete or not at all, and thin out older ones."""
        target = self.run_directory / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        if self.last_checkpoint == target:
            return
        states, positions = gather(random_state(self.plan.device)), gather(self.loaders.position())
        kept = self.recipe.state() if isinstance(self.recipe, StepRecipe) else {}
        self._note_best(target)
        with (
            _naming(self.last_checkpoint),
            shared_directory(target, publishes=self.args.should_save) as directory,
        ):
            self._write_states(directory)
            with whole_weights(self.plain_model, here=self.args.should_save) as model:
                if self.args.should_save:
                    self._write_checkpoint(model, directory, states, self.team.by_reader(positions))
                    save_recipe_state(kept, directory)
        if self.args.should_save:
            best = self.state.best_model_checkpoint
            prune(
                self.run_directory,
                self.plan.save_total_limit,
                best=Path(best) if best else None,
                last=target,
            )
        self.last_checkpoint = target

    def _write_states(self, directory: Path) -> None:
        """Write optimizer, schedule and loss scale: all processes together, where each has a part of them."""
        if self._is_complete:
            self._save_optimizer_and_scheduler(str(directory))
            self._save_scaler(str(directory))
            if self.args.should_save:
                for script in directory.glob("zero_to_*.py"):  # a checkpoint holds no programs
                    script.unlink()

    @property
    def _is_complete(self) -> bool:
        """Whether a checkpoint can be resumed."""
        return not self.plan.save_only_model or self.stop_requested

    def _write_checkpoint(
        self,
        model: PreTrainedModel,
        directory: Path,
        random_states: list[Any],
        positions: list[Any],
    ) -> None:
        self.writer.tuner.save(model, directory, safe_serialization=self.plan.save_safetensors)
        if self.writer.sidecars is not None:
            self.writer.sidecars(directory)
        if self._is_complete:
            for process, state in enumerate(random_states):
                name = "rng_state.pth" if len(random_states) == 1 else f"rng_state_{process}.pth"
                torch.save(state, directory / name)
            self.loaders.save(directory, positions)
            self.run_state().save(directory)
            if self.extras.keeper is not None:
                self.extras.keeper.save(model, directory)
        self.state.save_to_json(str(directory / STATE_FILE))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.plan.division.fsdp is None:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        save_optimizer(self.model, self.bare_optimizer, Path(output_dir))
        if self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_FILE)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self.plan.division.fsdp is None or checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        load_optimizer(self.model, self.bare_optimizer, Path(checkpoint))
        schedule = torch.load(Path(checkpoint) / SCHEDULER_FILE, weights_only=True)
        self.lr_scheduler.load_state_dict(schedule)

    @property
    def bare_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer without accelerate's wrapper."""
        optimizer = self.optimizer
        assert optimizer is not None
        return optimizer.optimizer if isinstance(optimizer, AcceleratedOptimizer) else optimizer

    def _note_best(self, target: Path) -> None:
        """Remember the checkpoint if the model in it has the lowest evaluation loss so far."""
        if self._evaluated is None or self._evaluated[0] != self.state.global_step:
            return
        value, best = self._evaluated[1], self.state.best_metric
        if best is None or (value > best if self.plan.greater_is_better else value < best):
            self.state.best_metric = value
            self.state.best_global_step = self.state.global_step
            self.state.best_model_checkpoint = str(target)
            if self.plan.load_best_model_at_end:
                self._best_weights = trained_weights(self.model)

    def load_best(self) -> bool:
        """Put the best checkpoint's weights back, if they are not there already.

        Returns:
            Whether the model holds them now. A best checkpoint from before a resume stays on disk.
        """
        best = self.state.best_global_step
        if best and best == self.state.global_step:
            return True
        if self._best_weights is None:
            return False
        restore_weights(self.model, self._best_weights)
        return True

    def run_state(self) -> RunState:
        """Return what a resumed run must agree with."""
        plan, stream = self.plan, self.data.stream
        return RunState(
            self.data.items,
            plan.batch_size,
            plan.gradient_accumulation_steps,
            plan.readers,
            plan.seed,
            self.data.arrangement,
            None if stream is None else stream.fingerprint,
            0 if stream is None else plan.dataloader_num_workers,
            self._rows_fingerprint,
            plan.world_size,
            plan.division.name,
        )

    @cached_property
    def _rows_fingerprint(self) -> str | None:
        return rows_fingerprint(self.data)

    @property
    def stop_requested(self) -> bool:
        """Whether a signal ends this run; its checkpoint is then always complete."""
        return any(
            isinstance(watcher, StopOnRequest) and watcher.stopped
            for watcher in self.callback_handler.callbacks
        )

    def resume(self, checkpoint: Path) -> None:
        """Refuse a checkpoint of another run, and go on where its rows and recipe stood.

        Raises:
            UsageError: the run would not continue where the checkpoint stopped.
        """
        note = self.run_state().check(checkpoint)
        if note is not None and is_main():
            print(f"--resume_from_checkpoint: {note}", file=sys.stderr)
        self.last_checkpoint = checkpoint
        self.loaders.resume(checkpoint)
        if self.extras.keeper is not None:
            self.extras.keeper.load(self.plain_model, checkpoint)
        if isinstance(self.recipe, StepRecipe):
            self.recipe.load_state(recipe_state(checkpoint))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Go on with this process's random numbers, or with new ones where it had none."""
        single = self.args.world_size == 1
        name = "rng_state.pth" if single else f"rng_state_{self.args.process_index}.pth"
        if checkpoint is None or (Path(checkpoint) / name).is_file():
            super()._load_rng_state(checkpoint)
        else:
            set_seed(self.plan.seed + rank() + 1000 * self.state.global_step)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load no weights: the caller hands over a model that has the checkpoint's."""


@contextmanager
def _naming(last: Path | None) -> Iterator[None]:
    """Say in an error of writing which checkpoint is still there."""
    try:
        yield
    except FtError as error:
        if last is None:
            raise
        raise FtError(
            f"{error}. {last} is whole: go on with --resume_from_checkpoint {last}"
        ) from error
