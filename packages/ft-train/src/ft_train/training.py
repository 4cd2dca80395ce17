"""The one entry: a recipe, a model and rows in; checkpoints, a log and curves out."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, TrainerCallback

from ft_core.errors import DataError
from ft_core.launch import is_first_of_node, is_main
from ft_core.recipe import Recipe
from ft_core.sequences import Layout, enable_joined_attention, layout_for
from ft_core.tuner import Tuner
from ft_core.whole_directories import clear_leftovers
from ft_train.advice import out_of_memory
from ft_train.attempts import as_resumed, until_it_fits
from ft_train.callbacks import Journal, Patience, Progress, StopOnRequest, TensorBoard
from ft_train.compat import check_device, forget_deepspeed
from ft_train.data import TrainData
from ft_train.distributed.wrapping import check_processes, how_wrapped
from ft_train.machine import check_fewer_rows, deterministic, keeping_memory
from ft_train.metrics import Clock, memory_gib
from ft_train.plan import TrainingPlan
from ft_train.plots import draw_curves
from ft_train.resume import check_resumable
from ft_train.run_card import JSON_FILE, card_of, write_card
from ft_train.run_options import CheckpointWriter, Extras
from ft_train.sample_answers import Interview, SampleAnswer
from ft_train.signals import StopRequest
from ft_train.trainer import RecipeTrainer


@dataclass(frozen=True, slots=True)
class TrainResult:
    """How a run ended.

    Attributes:
        global_step: optimizer steps done, those before a resume included.
        final_loss: training loss of the last logged interval.
        best_checkpoint: the checkpoint with the lowest evaluation loss; without evaluation, the last.
        last_checkpoint: the newest one; ``None`` when nothing was saved.
        best_metric: the evaluation loss of the best checkpoint.
        interrupted: a signal ended the run; ``last_checkpoint`` continues it.
        seconds: of this run.
        tokens, trained_tokens: that this rank went through.
        memory_gib: the most memory used.
        dropped: rows encoded on demand that gave no sample, by reason.
        log_history: all rows of the log.
        images: the curves drawn.
        batch_size: of its micro-batches, which ``auto_find_batch_size`` may have made smaller.
        answers: a few questions with answers of before and after training.
        wrapped: how processes divided the model: ``whole``, ``DDP``, ``ZeRO-2``, ``FSDP2``, …
    """

    global_step: int
    final_loss: float | None
    best_checkpoint: Path | None
    last_checkpoint: Path | None
    best_metric: float | None
    interrupted: bool
    seconds: float
    tokens: int
    trained_tokens: int
    memory_gib: float
    dropped: Mapping[str, int] = field(default_factory=dict)
    log_history: tuple[Mapping[str, Any], ...] = ()
    images: tuple[Path, ...] = ()
    batch_size: int = 1
    answers: tuple[SampleAnswer, ...] = ()
    wrapped: str = "whole"


def train(
    recipe: Recipe,
    model: PreTrainedModel,
    tuner: Tuner,
    data: TrainData,
    plan: TrainingPlan,
    run_directory: Path,
    *,
    sidecars: Callable[[Path], None] | None = None,
    resume: Path | None = None,
    reference: torch.nn.Module | None = None,
    extras: Extras | None = None,
    callbacks: tuple[TrainerCallback, ...] = (),
    info: Mapping[str, Any] | None = None,
) -> TrainResult:
    """Train a model.

    Args:
        recipe: what is learned from the rows.
        model: the model with its trainable part attached by ``tuner``; to resume, with the checkpoint's
            weights loaded.
        tuner: writes what was trained.
        data: rows to train and evaluate on.
        plan: every value of the run.
        run_directory: an existing directory; gets ``logging.jsonl``, ``run_card.md``, ``run_card.json``,
            ``checkpoint-<step>/``, ``runs/`` and ``images/``.
        sidecars: writes what belongs beside the weights (tokenizer, arguments) into a checkpoint that
            is being written.
        resume: a checkpoint of this run directory to continue from exactly.
        reference: the frozen model that some recipes compare with.
        extras: what only some runs need; with ``answers``, questions are answered before and after.
        callbacks: further watchers.
        info: goes into the last line of the log (``model_info``, ``dataset_info``).

    Returns:
        How it ended, also when SIGTERM or Ctrl-C ended it early.

    Raises:
        DataError: there are no rows.
        ModelError: ``resume`` lacks what resuming needs.
        UsageError: ``resume`` was made with other rows or batch sizes.
        FtError: the loss became NaN, memory ran out, or a checkpoint can't be written.
    """
    if data.items == 0 and data.stream is None:
        raise DataError("no rows are left to train on", rule="no_rows")
    check_fewer_rows(plan)
    check_processes(plan, recipe)
    check_device(plan, model)
    if resume is not None:
        check_resumable(resume)
        if is_first_of_node():
            clear_leftovers(run_directory, "checkpoint-")
    extras = extras or Extras()
    job = _Job(
        recipe,
        model,
        data,
        run_directory,
        CheckpointWriter(tuner, sidecars),
        reference,
        extras,
        callbacks,
        resume,
    )
    with (
        deterministic(plan.full_determinism),
        keeping_memory(model.device.type),
        _JoinedAttention(model, quiet=not is_main()),
    ):
        outcome = until_it_fits(
            job.attempt,
            model,
            as_resumed(plan, resume),
            lambda last: out_of_memory(extras.estimate, last, tuner.name),
        )
    return _finish(outcome, recipe.name, run_directory, info or {})


@dataclass(frozen=True, slots=True)
class _Outcome:
    """A run that has ended."""

    trainer: RecipeTrainer
    journal: Journal
    interrupted: bool
    seconds: float
    interview: Interview | None


@dataclass(frozen=True, slots=True)
class _Job:
    """What all attempts at a run have in common."""

    recipe: Recipe
    model: PreTrainedModel
    data: TrainData
    run_directory: Path
    writer: CheckpointWriter
    reference: torch.nn.Module | None
    extras: Extras
    callbacks: tuple[TrainerCallback, ...]
    resume: Path | None

    def attempt(self, plan: TrainingPlan) -> _Outcome:
        """Train by a plan, with the questions before and after."""
        clock = Clock()
        journal = Journal(self.run_directory, clock)
        with StopRequest() as request:
            stop = StopOnRequest(request)
            trainer = RecipeTrainer(
                self.recipe,
                self.model,
                self.data,
                plan,
                self.run_directory,
                self.writer,
                # A request comes last, so that one made by another watcher counts in the same step.
                callbacks=[*self._watchers(plan, journal, clock), stop],
                clock=clock,
                reference=self.reference,
                extras=self.extras,
            )
            if self.resume is not None:
                trainer.resume(self.resume)
            interview = self._before(trainer, plan, clock)
            start = time.monotonic()
            try:
                trainer.train(resume_from_checkpoint=self.resume and str(self.resume))
            finally:
                forget_deepspeed()
            seconds = time.monotonic() - start
            self._put_back_best(trainer, plan)
            if interview is not None and not stop.stopped:
                interview = interview.after(trainer.plain_model)
        return _Outcome(trainer, journal, stop.stopped, seconds, interview)

    def _watchers(
        self, plan: TrainingPlan, journal: Journal, clock: Clock
    ) -> list[TrainerCallback]:
        watchers: list[TrainerCallback] = [
            journal,
            Progress(clock, bar=False if plan.disable_tqdm else None),
            *self.callbacks,
        ]
        if "tensorboard" in plan.report_to:
            watchers.append(TensorBoard(Path(plan.logging_dir or self.run_directory / "runs")))
        if plan.early_stopping_patience is not None:
            watchers.append(
                Patience(
                    f"eval_{plan.best_metric}",
                    greater_is_better=plan.greater_is_better,
                    evaluations=plan.early_stopping_patience,
                    threshold=plan.early_stopping_threshold,
                )
            )
        return watchers

    def _before(self, trainer: RecipeTrainer, plan: TrainingPlan, clock: Clock) -> Interview | None:
        interview = Interview.about(self.data, self.extras.answers, plan.sample_answers)
        if interview is None:
            return None
        start = time.monotonic()
        card = None if self.resume is None else self.run_directory / JSON_FILE
        interview = interview.before(trainer.plain_model, card)
        clock.pause(time.monotonic() - start)
        return interview

    def _put_back_best(self, trainer: RecipeTrainer, plan: TrainingPlan) -> None:
        if plan.load_best_model_at_end and not trainer.load_best() and is_main():
            print(
                "--load_best_model_at_end: the best checkpoint is of before this run went on, so the model keeps "
                f"the last weights; the best are in {trainer.state.best_model_checkpoint}",
                file=sys.stderr,
            )


class _JoinedAttention:
    """While entered, the model attends joined rows document by document where it can."""

    def __init__(self, model: PreTrainedModel, *, quiet: bool) -> None:
        self._model, self._quiet = model, quiet
        self._before: str | None = None

    def __enter__(self) -> None:
        layout = layout_for(self._model)
        if layout is Layout.JOINED:
            self._before = enable_joined_attention(self._model)
        elif layout is Layout.PADDED and not self._quiet:
            print(
                f"{type(self._model).__name__} would let joined rows see each other: batches are padded",
                file=sys.stderr,
            )

    def __exit__(self, *exception: object) -> None:
        if self._before is not None:
            self._model.set_attn_implementation(self._before)


def _finish(
    outcome: _Outcome, recipe: str, run_directory: Path, info: Mapping[str, Any]
) -> TrainResult:
    """Write the last line of the log, the curves and the card, and gather the result."""
    trainer = outcome.trainer
    state = trainer.state
    history = [row for row in state.log_history if "train_runtime" not in row]
    last = trainer.last_checkpoint
    best = state.best_model_checkpoint
    losses = [float(row["loss"]) for row in history if "loss" in row]
    answers = () if outcome.interview is None else outcome.interview.answers
    result = TrainResult(
        global_step=state.global_step,
        final_loss=losses[-1] if losses else None,
        best_checkpoint=Path(best) if best else last,
        last_checkpoint=last,
        best_metric=state.best_metric,
        interrupted=outcome.interrupted,
        seconds=outcome.seconds,
        tokens=trainer.whole.tokens,
        trained_tokens=trainer.whole.trained,
        memory_gib=memory_gib(trainer.plan.device),
        dropped=trainer.dropped,
        log_history=tuple(history),
        images=tuple(draw_curves(history, run_directory / "images")) if is_main() else (),
        batch_size=trainer.plan.batch_size,
        answers=answers,
        wrapped=how_wrapped(trainer.model_wrapped),
    )
    if is_main():
        facts = final_facts(result)
        outcome.journal.append({**facts, "log_history": history, **info})
        card = card_of(trainer.plan, recipe=recipe, result=facts, info=info, answers=answers)
        write_card(run_directory, card)
    return result


def final_facts(result: TrainResult) -> dict[str, Any]:
    """Return what the last line of the log and the card say about a run."""
    last, best = result.last_checkpoint, result.best_checkpoint
    return {
        "memory": round(result.memory_gib, 3),
        "last_model_checkpoint": str(last) if last else None,
        "best_model_checkpoint": str(best) if best else None,
        "best_metric": result.best_metric,
        "final_loss": result.final_loss,
        "global_step": result.global_step,
        "train_time": round(result.seconds, 3),
        "tokens": result.tokens,
        "trained_tokens": result.trained_tokens,
        "dropped_while_training": dict(result.dropped),
        "interrupted": result.interrupted,
    }
