"""What a run will do: every value settled, with the reason for each that was not given."""

from __future__ import annotations

import math
import sys
from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from ft_core.errors import UsageError
from ft_train.arguments import RunArguments, Strategy, TrainingArguments
from ft_train.distributed.division import Division
from ft_train.evaluation_arguments import ANSWER_METRICS, EvaluationArguments
from ft_train.tuner_arguments import TunerArguments

MixedPrecision = Literal["no", "bf16", "fp16"]

T = TypeVar("T")

_AS_TRAINED = "as batch_size"

ROWS_PER_STEP = 16
"""Rows an optimizer step sees over all devices when ``gradient_accumulation_steps`` is not given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """The settled values of a run; ``derive`` makes one from the flags.

    Attributes:
        batch_size: rows of a micro-batch on each device; with packing, packs.
        steps: optimizer steps of the whole run.
        steps_per_epoch: optimizer steps of one pass over the rows.
        warmup_steps: steps in which the learning rate rises.
        save_total_limit: checkpoints that stay; ``None`` keeps all.
        best_metric: of the best checkpoint, as the log names it without ``eval_``.
        sample_answers: questions answered before and after training.
        device: ``"cpu"``, ``"cuda"`` or another of torch's device types.
        world_size: processes that train together.
        division: what each of them holds and does.
        reasons: why a value is what it is, by name, for values that were not given.
    """

    batch_size: int = 1
    eval_batch_size: int = 1
    gradient_accumulation_steps: int = 16
    num_train_epochs: float = 1
    steps_per_epoch: int = 1
    steps: int = 1
    optim: str = "adamw_torch"
    adam_beta1: float = 0.9
    adam_beta2: float = 0.95
    adam_epsilon: float = 1e-8
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    lr_scheduler_type: str = "cosine"
    warmup_steps: int = 0
    gradient_checkpointing: bool = False
    dataloader_num_workers: int = 0
    evaluation_strategy: Strategy = "no"
    eval_steps: int = 50
    save_strategy: Strategy = "steps"
    save_steps: int = 50
    save_only_model: bool = False
    save_total_limit: int | None = 2
    save_safetensors: bool = True
    logging_steps: int = 5
    logging_dir: str | None = None
    report_to: tuple[str, ...] = ()
    disable_tqdm: bool = False
    include_num_input_tokens_seen: bool = False
    auto_find_batch_size: bool = False
    full_determinism: bool = False
    gpu_memory_fraction: float | None = None
    use_liger_kernel: bool = False
    predict_with_generate: bool = False
    best_metric: str = "loss"
    greater_is_better: bool = False
    load_best_model_at_end: bool = False
    early_stopping_patience: int | None = None
    early_stopping_threshold: float = 0.0
    sample_answers: int = 0
    seed: int = 42
    device: str = "cpu"
    mixed_precision: MixedPrecision = "no"
    world_size: int = 1
    division: Division = field(default_factory=Division)
    reasons: Mapping[str, str] = field(default_factory=dict)

    @property
    def readers(self) -> int:
        """How many processes, or groups of them that hold sequences together, have rows of their own."""
        return self.world_size // self.division.sequence_parallel_size

    @property
    def rows_per_step(self) -> int:
        """Rows (with packing, packs) that an optimizer step sees over all devices."""
        return self.batch_size * self.gradient_accumulation_steps * self.readers

    def with_fewer_rows(self) -> TrainingPlan | None:
        """Return the plan with smaller micro-batches and as many rows a step; ``None`` if there is no smaller one.

        A step sees the same rows in the same order, so nothing but memory and speed changes.
        """
        sizes = [size for size in range(1, self.batch_size) if self.batch_size % size == 0]
        if not sizes:
            return None
        times = self.batch_size // sizes[-1]
        return replace(
            self,
            batch_size=sizes[-1],
            gradient_accumulation_steps=self.gradient_accumulation_steps * times,
        )

    def joined(self) -> list[TrainingPlan]:
        """Return the plans with larger micro-batches and as many rows a step, the one with the largest first."""
        steps, size = self.gradient_accumulation_steps, self.batch_size
        follows = self.reasons.get("eval_batch_size") == _AS_TRAINED
        found = []
        for times in (item for item in range(steps, 1, -1) if steps % item == 0):
            reason = f"{times} micro-batches of {size} at once, for which memory suffices"
            changed: dict[str, Any] = {"batch_size": size * times, "reasons": {**self.reasons}}
            changed["reasons"] |= {"batch_size": reason, "gradient_accumulation_steps": reason}
            if follows:
                changed["eval_batch_size"] = size * times
            found.append(replace(self, gradient_accumulation_steps=steps // times, **changed))
        return found

    @property
    def is_joined(self) -> bool:
        """Whether micro-batches are larger than was asked for."""
        return "batch_size" in self.reasons

    def _processes(self) -> str:
        size = self.division.sequence_parallel_size
        split = f", each sequence on {size}" if size > 1 else ""
        return f"{self.world_size} ({self.division.name}{split})"

    def lines(self) -> list[str]:
        """Describe the run for ``--dry_run`` and for its start, one value a line."""
        values = {
            "steps": f"{self.steps:,} ({self.steps_per_epoch:,} an epoch)",
            "rows a step": str(self.rows_per_step),
        }
        if self.world_size > 1 or self.division.needs_processes:
            values["processes"] = self._processes()
        for name in self.reasons:
            values[name] = _show(getattr(self, name))
        if self.save_only_model and self.save_strategy != "no":
            values["resuming"] = (
                "not possible: checkpoints hold weights only (see --save_only_model)"
            )
        width = max(map(len, values))
        return [
            f"{name:<{width}}  {value}"
            + (f"  ({self.reasons[name]})" if name in self.reasons else "")
            for name, value in values.items()
        ]


def derive(
    tuner: TunerArguments,
    training: TrainingArguments,
    run: RunArguments,
    evaluation: EvaluationArguments | None = None,
    *,
    items: int,
    evaluation_items: int = 0,
    seed: int = 42,
    given: Container[str] = (),
    world_size: int = 1,
    device: str = "cpu",
    dtype: str = "fp32",
    checkpointing_needed: bool | None = None,
    division: Division | None = None,
) -> TrainingPlan:
    """Settle every value of a run.

    Args:
        tuner: flags of what is trained.
        training: flags of how.
        run: flags of what is written.
        evaluation: flags of what is measured.
        items: what one epoch goes through: samples, or packs.
        evaluation_items: samples to evaluate on; with none there is no evaluation.
        seed: of the order of rows and of dropout.
        given: names of flags a person set; only they override what the memory estimate says.
        world_size: devices that train together.
        device: type of the devices.
        dtype: of the computation: ``fp32``, ``bf16`` or ``fp16``.
        checkpointing_needed: whether the memory estimate asks for gradient checkpointing; ``None``
            when there is no estimate, which counts as no.
        division: what each device holds and does.

    Raises:
        UsageError: a flag needs evaluations and there are none.
    """
    settled = _Settled({})
    division = division or Division()
    readers = world_size // division.sequence_parallel_size
    evaluation = evaluation or EvaluationArguments()
    _check_evaluated(evaluation, run.evaluation_strategy, evaluation_items)
    generates = evaluation.predict_with_generate
    accumulation = settled.value(
        "gradient_accumulation_steps",
        training.gradient_accumulation_steps,
        accumulation_steps(training, readers),
        f"about {ROWS_PER_STEP} rows a step with batch_size {training.batch_size}"
        + (f" on {readers} devices" if readers > 1 else ""),
    )
    micro_batches = math.ceil(items / (training.batch_size * readers))
    steps_per_epoch = max(1, math.ceil(micro_batches / accumulation))
    steps = training.max_steps
    if steps <= 0:
        steps = max(1, math.ceil(training.num_train_epochs * steps_per_epoch))
    return TrainingPlan(
        **_optimization(training, settled, sft_type=tuner.sft_type, steps=steps, given=given),
        **_writing(run, settled, sft_type=tuner.sft_type, evaluation_items=evaluation_items),
        **_measuring(evaluation, settled, division),
        eval_batch_size=settled.value(
            "eval_batch_size",
            training.eval_batch_size,
            1 if generates else training.batch_size,
            "predict_with_generate answers one row at a time" if generates else _AS_TRAINED,
        ),
        gradient_accumulation_steps=accumulation,
        steps_per_epoch=steps_per_epoch,
        steps=steps,
        gradient_checkpointing=settled.checkpointing(training, given, checkpointing_needed),
        seed=seed,
        device=device,
        mixed_precision=_mixed_precision(device, dtype),
        world_size=world_size,
        division=division,
        reasons=settled.reasons,
    )


@dataclass(frozen=True, slots=True)
class _Settled:
    """Values as they are settled, with the reason for each that was not given."""

    reasons: dict[str, str]

    def value(self, name: str, value: T | None, default: T, reason: str) -> T:
        """Return the value, or its default and note the reason."""
        if value is not None:
            return value
        self.reasons[name] = reason
        return default

    def checkpointing(
        self, training: TrainingArguments, given: Container[str], needed: bool | None
    ) -> bool:
        """Obey the flag if it was given, else the memory estimate."""
        if "gradient_checkpointing" in given:
            return training.gradient_checkpointing
        self.reasons["gradient_checkpointing"] = (
            "not given; the memory estimate needs it"
            if needed
            else "not given; memory suffices without"
        )
        return bool(needed)


def _optimization(
    training: TrainingArguments,
    settled: _Settled,
    *,
    sft_type: str,
    steps: int,
    given: Container[str],
) -> dict[str, Any]:
    """Settle how the trained part is optimized."""
    copied = (
        *("batch_size", "num_train_epochs", "optim", "adam_beta1", "adam_beta2", "adam_epsilon"),
        *("weight_decay", "max_grad_norm", "lr_scheduler_type", "auto_find_batch_size"),
        *("full_determinism", "gpu_memory_fraction", "use_liger_kernel"),
    )
    windows = sys.platform == "win32"
    if not training.warmup_steps and "warmup_steps" not in given:
        settled.reasons["warmup_steps"] = f"warmup_ratio {training.warmup_ratio:g} of {steps} steps"
    return {
        **{name: getattr(training, name) for name in copied},
        "warmup_steps": training.warmup_steps or math.ceil(training.warmup_ratio * steps),
        "learning_rate": settled.value(
            "learning_rate",
            training.learning_rate,
            1e-5 if sft_type == "full" else 1e-4,
            f"sft_type is {sft_type}",
        ),
        "dataloader_num_workers": settled.value(
            "dataloader_num_workers",
            training.dataloader_num_workers,
            0 if windows else 1,
            "Windows starts processes slowly"
            if windows
            else "batches are made ready beside training",
        ),
    }


def _writing(
    run: RunArguments, settled: _Settled, *, sft_type: str, evaluation_items: int
) -> dict[str, Any]:
    """Settle when the run evaluates, saves and logs."""
    copied = (
        *("eval_steps", "save_strategy", "save_safetensors", "logging_steps", "logging_dir"),
        *("disable_tqdm", "include_num_input_tokens_seen"),
    )
    evaluation: Strategy = run.evaluation_strategy if evaluation_items else "no"
    if evaluation != run.evaluation_strategy:
        settled.reasons["evaluation_strategy"] = "there are no rows to evaluate on"
    lora = sft_type == "lora"
    large = "; optimizer states of all weights are large" if sft_type == "full" else ""
    return {
        **{name: getattr(run, name) for name in copied},
        "evaluation_strategy": evaluation,
        "save_steps": settled.value("save_steps", run.save_steps, run.eval_steps, "as eval_steps"),
        "save_only_model": settled.value(
            "save_only_model", run.save_only_model, not lora, f"sft_type is {sft_type}{large}"
        ),
        "save_total_limit": None if run.save_total_limit in (None, -1) else run.save_total_limit,
        "report_to": run.trackers(),
    }


def _measuring(
    evaluation: EvaluationArguments, settled: _Settled, division: Division
) -> dict[str, Any]:
    """Settle what is measured, and which value of it is the best."""
    copied = (
        *("predict_with_generate", "load_best_model_at_end", "early_stopping_patience"),
        "early_stopping_threshold",
    )
    asked = evaluation.sample_answers
    if division.divides_weights and asked:
        asked = settled.value("sample_answers", None, 0, "no process holds the whole model")
    metric = evaluation.metric_for_best_model
    if metric is None:
        metric = "loss"
        if evaluation.predict_with_generate:
            metric = settled.value(
                "best_metric", None, ANSWER_METRICS[0], "predict_with_generate is on"
            )
    metric = metric.removeprefix("eval_")
    greater = evaluation.greater_is_better
    return {
        **{name: getattr(evaluation, name) for name in copied},
        "sample_answers": asked,
        "best_metric": metric,
        "greater_is_better": not metric.endswith("loss") if greater is None else greater,
    }


def _check_evaluated(evaluation: EvaluationArguments, strategy: Strategy, items: int) -> None:
    """Refuse flags that evaluations decide about where there are none."""
    if items and strategy != "no":
        return
    needing = {
        "predict_with_generate": evaluation.predict_with_generate,
        "load_best_model_at_end": evaluation.load_best_model_at_end,
        "early_stopping_patience": evaluation.early_stopping_patience is not None,
        "metric_for_best_model": evaluation.metric_for_best_model is not None,
    }
    why = (
        "--evaluation_strategy no evaluates never; give steps or epoch"
        if items
        else "there are no rows to evaluate on; give --val_dataset, or a --dataset_test_ratio above 0"
    )
    for name, used in needing.items():
        if used:
            raise UsageError(f"--{name} needs evaluations, and {why}")


def accumulation_steps(training: TrainingArguments, readers: int) -> int:
    """Return the micro-batches of a step on each device that has rows of its own: those asked for, or the usual ones."""
    asked = training.gradient_accumulation_steps
    return asked or math.ceil(ROWS_PER_STEP / training.batch_size / readers)


def weights_dtype(sft_type: str, dtype: str) -> str:
    """Return the dtype to load weights in: fp16 can't be trained as it is, so full tuning holds fp32."""
    return "fp32" if sft_type == "full" and dtype == "fp16" else dtype


def _mixed_precision(device: str, dtype: str) -> MixedPrecision:
    """Return the autocast type; on a CPU the weights' own type computes."""
    if device == "cpu" or dtype not in ("bf16", "fp16"):
        return "no"
    return "bf16" if dtype == "bf16" else "fp16"


def _show(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
