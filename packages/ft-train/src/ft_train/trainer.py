"""The trainer: transformers' loop around a recipe's loss, with exact normalisation and resuming."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerControl
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ft_core.checkpoints import atomic_directory, prune
from ft_core.errors import UsageError
from ft_core.recipe import LossOutput, Recipe
from ft_core.samples import Sample
from ft_train.callbacks import StopOnRequest
from ft_train.compat import trainer_arguments, wrapped_loss_scale
from ft_train.data import Collator, MicroBatch, TrainData
from ft_train.evaluation import Evaluation
from ft_train.faults import not_a_number
from ft_train.loaders import EpochLoader, Loaders, StreamLoader
from ft_train.metrics import Clock, Tally, memory_gib, named_by_source, reduce_sums
from ft_train.plan import TrainingPlan
from ft_train.resume import STATE_FILE, RunState
from ft_train.run_options import OPTIMIZERS, CheckpointWriter, Extras
from ft_train.weights import random_state, restore_weights, trained_weights


class RecipeTrainer(Trainer):  # type: ignore[misc]
    """Trains a model by a recipe.

    Args:
        recipe: gives tensors, loss and counts.
        model: what is trained, on its way to the plan's device.
        data: rows.
        plan: every value of the run.
        run_directory: where checkpoints go.
        writer: writes the weights.
        callbacks: watchers beyond transformers' own flow control.
        reference: the frozen model that some recipes compare with.
        extras: what only some runs need.
    """

    # The loss of a step is normalised by its global counts here.
    loss_is_scaled_for_ga = True
    control: TrainerControl
    optimizer: torch.optim.Optimizer | None

    def __init__(
        self,
        recipe: Recipe,
        model: PreTrainedModel,
        data: TrainData,
        plan: TrainingPlan,
        run_directory: Path,
        writer: CheckpointWriter,
        *,
        callbacks: list[TrainerCallback],
        clock: Clock,
        reference: torch.nn.Module | None = None,
        extras: Extras | None = None,
    ) -> None:
        self.recipe, self.data, self.plan, self.reference = recipe, data, plan, reference
        self.extras = extras or Extras()
        self.run_directory, self.writer, self.clock = run_directory, writer, clock
        self.tally, self.whole = Tally(), Tally()
        self.dropped: dict[str, int] = {}
        self.last_checkpoint: Path | None = None
        self._totals: dict[str, float] = {}
        self._step_samples: list[Sample] = []
        self._evaluated: tuple[int, float] | None = None
        self._best_weights: dict[str, torch.Tensor] | None = None
        super().__init__(
            model=model,
            args=trainer_arguments(plan, run_directory),
            train_dataset=data.train,
            eval_dataset=data.evaluation or None,
            data_collator=Collator(recipe, data.rows),
            callbacks=callbacks,
        )
        self.args.ignore_data_skip = data.stream is not None  # a stream knows its own position
        rank, world_size = self.args.process_index, self.args.world_size
        self.loaders = Loaders(data, recipe, plan, rank, world_size)
        for callback in [item for item in self.callback_handler.callbacks if item not in callbacks]:
            if type(callback).__name__ in ("PrinterCallback", "ProgressCallback"):
                self.remove_callback(callback)

    @property
    def plain_model(self) -> PreTrainedModel:
        """The model without the wrappers of several processes."""
        return self.accelerator.unwrap_model(self.model)

    # Rows and their order

    def get_train_dataloader(self) -> EpochLoader | StreamLoader:
        """Return the micro-batches of this rank in the order of seed and epoch, or of the stream."""
        return self.loaders.train()

    def get_batch_samples(
        self, epoch_iterator: Iterator[MicroBatch], num_batches: int, device: torch.device
    ) -> tuple[list[MicroBatch], None]:
        """Take the micro-batches of one step, and count their units over all ranks."""
        batches = [batch for _, batch in zip(range(num_batches), epoch_iterator, strict=False)]
        self._step_samples = [sample for batch in batches for sample in batch.samples]
        self._totals = reduce_sums(self.recipe.count(self._step_samples))
        self.tally.steps += 1
        if self.plan.include_num_input_tokens_seen:
            tokens = reduce_sums({"tokens": sum(batch.tokens for batch in batches)})["tokens"]
            self.state.num_input_tokens_seen += round(tokens)
        self.loaders.taken(batches)
        for batch in batches:
            for reason, number in batch.dropped.items():
                self.dropped[reason] = self.dropped.get(reason, 0) + number
        return batches, None

    # One step

    def training_step(
        self, model: torch.nn.Module, inputs: MicroBatch, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Compute gradients of one micro-batch; the losses of a step's micro-batches add up to its loss."""
        if not model.training:
            model.train()
        batch = self._prepare_inputs(dict(inputs.batch))
        with self.compute_loss_context_manager():
            output = self.recipe.loss(model, batch, self.reference)
            loss = self._normalise(output, inputs)
        if not inputs.filler:
            self.tally.add(output, inputs.tokens, inputs.trained)
            self.whole.add(output, inputs.tokens, inputs.trained)
        if not math.isfinite(loss.item()):
            self._refuse_nan(f"the loss became {loss.item()}", inputs.samples)
        penalty = self.extras.penalty
        # It belongs to the step, of which this is one of several micro-batches.
        share = 0 if penalty is None else penalty(model) / self.current_gradient_accumulation_steps
        self.accelerator.backward(loss + share)
        return loss.detach()

    def _normalise(self, output: LossOutput, inputs: MicroBatch) -> torch.Tensor:
        """Divide each term by its count over the whole step, and undo the average over ranks."""
        parts = [
            term.total / self._totals[term.unit] if self._totals.get(term.unit) else term.total * 0
            for term in output.terms.values()
        ]
        loss = torch.stack([part.reshape(()) for part in parts]).sum()
        return loss * (0.0 if inputs.filler else wrapped_loss_scale(self.args.world_size))

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm)
        value = norm.item() if isinstance(norm, torch.Tensor) else float(norm)
        # With fp16 the scaler skips steps whose gradients overflow; that is no fault.
        if self.plan.mixed_precision != "fp16" and not math.isfinite(value):
            self._refuse_nan(f"the gradient became {value}", self._step_samples)
        return value

    def _refuse_nan(self, what: str, samples: Sequence[Sample]) -> NoReturn:
        raise not_a_number(
            what,
            self.state.global_step + 1,
            samples,
            self.run_directory,
            name_row=self.extras.name_row,
            last_checkpoint=self.last_checkpoint,
        )

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Make the optimizer: one that ft brings, or transformers' by its name."""
        factory = self.extras.optimizer or OPTIMIZERS.get(self.plan.optim)
        if factory is not None and self.optimizer is None:
            inner = self.model if model is None else model
            decayed = frozenset(self.get_decay_parameter_names(inner))
            self.optimizer = factory(inner, self.plan, decayed)
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        return optimizer

    def floating_point_ops(self, inputs: Any) -> int:
        """Count none: the estimate walks all parameters in every micro-batch, and nobody reads it."""
        return 0

    # The log

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log a row; a training row gets speed, memory and the recipe's own metrics."""
        if "loss" in logs:
            seconds = self.clock.lap()
            totals = reduce_sums({"tokens": self.tally.tokens, "trained": self.tally.trained})
            logs |= named_by_source(self.tally.means(), self.data.sources)
            logs["memory(GiB)"] = round(memory_gib(self.plan.device), 3)
            logs["train_speed(iter/s)"] = round(self.tally.steps / seconds, 4)
            logs["tokens_per_second"] = round(totals["tokens"] / seconds, 1)
            logs["trained_tokens_per_second"] = round(totals["trained"] / seconds, 1)
            if self.plan.include_num_input_tokens_seen:
                logs["num_input_tokens_seen"] = self.state.num_input_tokens_seen
            self.tally = Tally()
        if (
            self.data.stream is not None
        ):  # epochs of a stream have no length; what is known is the run's
            self.state.epoch = self.state.global_step / max(self.state.max_steps, 1)
        super().log(logs, None)

    # Evaluation

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Compute the loss over all evaluation rows, each token counting alike however they are batched."""
        start = time.monotonic()
        evaluation = Evaluation(
            self.recipe,
            self.extras.answers if self.plan.predict_with_generate else None,
            self.plan.seed,
            lambda batch: self._prepare_inputs(dict(batch)),
            self.accelerator.autocast,
            self.reference,
        )
        parts = self.loaders.evaluation()
        found, rows = evaluation.measure(self.model, self.plain_model, parts)
        seconds = time.monotonic() - start
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
        metrics[f"{metric_key_prefix}_runtime"] = round(seconds, 3)
        metrics[f"{metric_key_prefix}_samples_per_second"] = round(rows / seconds, 2)
        self.clock.pause(seconds)
        self._evaluated = (self.state.global_step, self._best_of(found))
        self.log(metrics)
        handler = self.callback_handler
        self.control = handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _best_of(self, found: Mapping[str, float]) -> float:
        name = self.plan.best_metric
        if name not in found:
            raise UsageError(
                f"--metric_for_best_model {name}: evaluation gives {', '.join(found)}; use one of these"
            )
        return found[name]

    # Checkpoints

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Write ``checkpoint-<step>``, complete or not at all, and thin out older ones."""
        target = self.run_directory / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        if self.last_checkpoint == target:
            return
        states = self._gather(random_state(self.plan.device))
        positions = self._gather(self.loaders.position())
        self._note_best(target)
        if self.args.should_save:
            with atomic_directory(target, replace=True) as directory:
                self._write_checkpoint(directory, states, positions)
            best = self.state.best_model_checkpoint
            prune(
                self.run_directory,
                self.plan.save_total_limit,
                best=Path(best) if best else None,
                last=target,
            )
        self.last_checkpoint = target
        if self.args.world_size > 1:
            dist.barrier()

    def _write_checkpoint(
        self, directory: Path, random_states: list[Any], positions: list[Any]
    ) -> None:
        model = self.plain_model
        self.writer.tuner.save(model, directory, safe_serialization=self.plan.save_safetensors)
        if self.writer.sidecars is not None:
            self.writer.sidecars(directory)
        if not self.plan.save_only_model or self.stop_requested:
            self._save_optimizer_and_scheduler(str(directory))
            self._save_scaler(str(directory))
            for rank, state in enumerate(random_states):
                name = "rng_state.pth" if len(random_states) == 1 else f"rng_state_{rank}.pth"
                torch.save(state, directory / name)
            self.loaders.save(directory, positions)
            self.run_state().save(directory)
        self.state.save_to_json(str(directory / STATE_FILE))

    def _gather(self, value: Any) -> list[Any]:
        """Return what every rank has, in their order."""
        if self.args.world_size == 1:
            return [value]
        gathered: list[Any] = [None] * self.args.world_size
        dist.all_gather_object(gathered, value)
        return gathered

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
            self.args.world_size,
            plan.seed,
            self.data.arrangement,
            None if stream is None else stream.fingerprint,
            0 if stream is None else plan.dataloader_num_workers,
        )

    @property
    def stop_requested(self) -> bool:
        """Whether a signal ends this run; its checkpoint is then always complete."""
        return any(
            isinstance(watcher, StopOnRequest) and watcher.stopped
            for watcher in self.callback_handler.callbacks
        )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load no weights: the caller hands over a model that has the checkpoint's."""
        self.loaders.resume(Path(resume_from_checkpoint))
