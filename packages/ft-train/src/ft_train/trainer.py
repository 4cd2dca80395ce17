"""The trainer: transformers' loop around a recipe's loss, with exact normalisation and resuming."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from transformers import PreTrainedModel, TrainerCallback, set_seed

from ft_core.errors import UsageError
from ft_core.launch import rank
from ft_core.recipe import Batch, LossOutput, Recipe, StepRecipe
from ft_core.samples import Sample
from ft_train.compat import (
    BACKWARD_OPTIONS,
    mark_as_divided,
    trainer_arguments,
    wrapped_loss_scale,
)
from ft_train.data import Collator, MicroBatch, TrainData
from ft_train.distributed.fsdp import shard
from ft_train.distributed.gathering import whole_tensor
from ft_train.distributed.team import Team
from ft_train.distributed.wrapping import check_wrapped
from ft_train.distributed.zero import divide
from ft_train.evaluation import Evaluation
from ft_train.faults import not_a_number
from ft_train.loaders import EpochLoader, Loaders, StreamLoader
from ft_train.metrics import Clock, Tally, memory_gib, named_by_source
from ft_train.plan import TrainingPlan
from ft_train.run_options import OPTIMIZERS, CheckpointWriter, Extras
from ft_train.saving import SavingTrainer


class RecipeTrainer(SavingTrainer):
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
        self._totals: dict[str, float] = {}
        self._step_samples: list[Sample] = []
        if isinstance(recipe, StepRecipe):
            recipe.load_state({})  # an attempt before this one may have left its own
        super().__init__(
            model=model,
            args=trainer_arguments(plan, run_directory),
            train_dataset=data.train,
            eval_dataset=data.evaluation or None,
            data_collator=Collator(recipe, data.rows),
            callbacks=callbacks,
        )
        self.args.ignore_data_skip = data.stream is not None  # a stream knows its own position
        self.team = Team.of(plan, model)
        self.loaders = Loaders(data, recipe, plan, self.team.reader, self.team.readers)
        if plan.division.fsdp is not None:
            shard(model, plan.division.fsdp, plan.device)
            mark_as_divided(self)
        elif plan.division.divides_weights:
            engine = self.args.hf_deepspeed_config
            divide(model, engine.config, self.args.device, engine.dtype())
        if plan.world_size > 1:
            set_seed(plan.seed + rank())  # dropout differs between processes
        for callback in [item for item in self.callback_handler.callbacks if item not in callbacks]:
            if type(callback).__name__ in ("PrinterCallback", "ProgressCallback"):
                self.remove_callback(callback)

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
        self._totals = self.team.totals(self.recipe.count(self._step_samples))
        self.tally.steps += 1
        if self.plan.include_num_input_tokens_seen:
            tokens = self.team.totals({"tokens": sum(batch.tokens for batch in batches)})["tokens"]
            self.state.num_input_tokens_seen += round(tokens)
        self.loaders.taken(batches)
        for batch in batches:
            for reason, number in batch.dropped.items():
                self.dropped[reason] = self.dropped.get(reason, 0) + number
        return self._prepared(batches), None

    def _prepared(self, batches: list[MicroBatch]) -> list[MicroBatch]:
        """Give each micro-batch what the recipe must know of the whole step."""
        if not isinstance(self.recipe, StepRecipe):
            return batches
        with self.compute_loss_context_manager():
            found = self.recipe.prepare(
                self.plain_model, [batch.samples for batch in batches], self.reference
            )
        return [
            replace(batch, batch={**batch.batch, **more})
            for batch, more in zip(batches, found, strict=True)
        ]

    # One step

    def training_step(
        self, model: torch.nn.Module, inputs: MicroBatch, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Compute gradients of one micro-batch; the losses of a step's micro-batches add up to its loss."""
        if not model.training:
            model.train()
        batch = self._on_device(inputs.batch)
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
        self.accelerator.backward(loss + share, **BACKWARD_OPTIONS[self.is_deepspeed_enabled])
        return loss.detach()

    def _on_device(self, batch: Batch) -> Batch:
        """Return the batch, or this process's slice of it, where the model is."""
        return self.team.slice_of(self._prepare_inputs(dict(batch)))

    def _normalise(self, output: LossOutput, inputs: MicroBatch) -> torch.Tensor:
        """Divide each term by its count over the whole step, and undo the average over ranks."""
        parts = [
            term.total / self._totals[term.unit] if self._totals.get(term.unit) else term.total * 0
            for term in output.terms.values()
        ]
        loss = torch.stack([part.reshape(()) for part in parts]).sum()
        return loss * (0.0 if inputs.filler else wrapped_loss_scale(self.args.world_size))

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        norm = whole_tensor(super()._get_grad_norm(model, grad_norm))
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

    def _prepare_for_training(self, *arguments: Any, **named: Any) -> Any:
        prepared = super()._prepare_for_training(*arguments, **named)
        check_wrapped(self.model_wrapped, self.plan)
        return prepared

    # The log

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log a row; a training row gets speed, memory and the recipe's own metrics."""
        if "loss" in logs:
            seconds = self.clock.lap()
            totals = self.team.totals({"tokens": self.tally.tokens, "trained": self.tally.trained})
            means = self.tally.means()
            if isinstance(self.recipe, StepRecipe):
                means |= self.recipe.summarise(means)
            logs |= named_by_source(means, self.data.sources)
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
            self._on_device,
            self.accelerator.autocast,
            self.reference,
            self.team,
            self.plan.division.divides_weights,
        )
        parts = self.loaders.evaluation()
        found, rows = evaluation.measure(self.deepspeed or self.model, self.plain_model, parts)
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
