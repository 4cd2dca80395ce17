"""What a run will do: every value settled, with the reason for each that was not given."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from ft_train.arguments import RunArguments, Strategy, TrainingArguments
from ft_train.tuner_arguments import TunerArguments

MixedPrecision = Literal["no", "bf16", "fp16"]

T = TypeVar("T")

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
        device: ``"cpu"``, ``"cuda"`` or another of torch's device types.
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
    seed: int = 42
    device: str = "cpu"
    mixed_precision: MixedPrecision = "no"
    world_size: int = 1
    reasons: Mapping[str, str] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Describe the run for ``--dry_run`` and for its start, one value a line."""
        values = {
            "steps": f"{self.steps:,} ({self.steps_per_epoch:,} an epoch)",
            "rows a step": str(
                self.batch_size * self.gradient_accumulation_steps * self.world_size
            ),
        }
        for name in self.reasons:
            values[name] = _show(getattr(self, name))
        if self.save_only_model and self.save_strategy != "no":
            values["resuming"] = (
                "not possible: checkpoints hold weights only (--save_only_model false changes that)"
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
    *,
    items: int,
    evaluation_items: int = 0,
    seed: int = 42,
    given: Container[str] = (),
    world_size: int = 1,
    device: str = "cpu",
    dtype: str = "fp32",
    checkpointing_needed: bool | None = None,
) -> TrainingPlan:
    """Settle every value of a run.

    Args:
        tuner: flags of what is trained.
        training: flags of how.
        run: flags of what is written.
        items: what one epoch goes through: samples, or packs.
        evaluation_items: samples to evaluate on; with none there is no evaluation.
        seed: of the order of rows and of dropout.
        given: names of flags a person set; only they override what the memory estimate says.
        world_size: devices that train together.
        device: type of the devices.
        dtype: of the computation: ``fp32``, ``bf16`` or ``fp16``.
        checkpointing_needed: whether the memory estimate asks for gradient checkpointing; ``None``
            when there is no estimate, which counts as no.
    """
    settled = _Settled({})
    lora = tuner.sft_type == "lora"
    accumulation = settled.value(
        "gradient_accumulation_steps",
        training.gradient_accumulation_steps,
        math.ceil(ROWS_PER_STEP / training.batch_size / world_size),
        f"about {ROWS_PER_STEP} rows a step with batch_size {training.batch_size}"
        + (f" on {world_size} devices" if world_size > 1 else ""),
    )
    micro_batches = math.ceil(items / (training.batch_size * world_size))
    steps_per_epoch = max(1, math.ceil(micro_batches / accumulation))
    steps = training.max_steps
    if steps <= 0:
        steps = max(1, math.ceil(training.num_train_epochs * steps_per_epoch))
    return TrainingPlan(
        **_optimization(training, settled, lora=lora, steps=steps, given=given),
        **_writing(run, settled, lora=lora, evaluation_items=evaluation_items),
        gradient_accumulation_steps=accumulation,
        steps_per_epoch=steps_per_epoch,
        steps=steps,
        gradient_checkpointing=settled.checkpointing(training, given, checkpointing_needed),
        seed=seed,
        device=device,
        mixed_precision=_mixed_precision(device, dtype),
        world_size=world_size,
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
    lora: bool,
    steps: int,
    given: Container[str],
) -> dict[str, Any]:
    """Settle how the trained part is optimized."""
    copied = (
        *("batch_size", "num_train_epochs", "optim", "adam_beta1", "adam_beta2", "adam_epsilon"),
        *("weight_decay", "max_grad_norm", "lr_scheduler_type"),
    )
    if not training.warmup_steps and "warmup_steps" not in given:
        settled.reasons["warmup_steps"] = f"warmup_ratio {training.warmup_ratio:g} of {steps} steps"
    return {
        **{name: getattr(training, name) for name in copied},
        "warmup_steps": training.warmup_steps or math.ceil(training.warmup_ratio * steps),
        "eval_batch_size": settled.value(
            "eval_batch_size", training.eval_batch_size, training.batch_size, "as batch_size"
        ),
        "learning_rate": settled.value(
            "learning_rate",
            training.learning_rate,
            1e-4 if lora else 1e-5,
            f"sft_type is {'lora' if lora else 'full'}",
        ),
        "dataloader_num_workers": settled.value(
            "dataloader_num_workers",
            training.dataloader_num_workers,
            0,
            "batches are joined in the training process",
        ),
    }


def _writing(
    run: RunArguments, settled: _Settled, *, lora: bool, evaluation_items: int
) -> dict[str, Any]:
    """Settle when the run evaluates, saves and logs."""
    copied = (
        *("eval_steps", "save_strategy", "save_safetensors", "logging_steps", "logging_dir"),
        "disable_tqdm",
    )
    evaluation: Strategy = run.evaluation_strategy if evaluation_items else "no"
    if evaluation != run.evaluation_strategy:
        settled.reasons["evaluation_strategy"] = "there are no rows to evaluate on"
    kind = "lora" if lora else "full; optimizer states of all weights are large"
    return {
        **{name: getattr(run, name) for name in copied},
        "evaluation_strategy": evaluation,
        "save_steps": settled.value("save_steps", run.save_steps, run.eval_steps, "as eval_steps"),
        "save_only_model": settled.value(
            "save_only_model", run.save_only_model, not lora, f"sft_type is {kind}"
        ),
        "save_total_limit": None if run.save_total_limit in (None, -1) else run.save_total_limit,
        "report_to": run.trackers(),
    }


def weights_dtype(sft_type: str, dtype: str) -> str:
    """Return the dtype to load weights in: fp16 can't be trained as it is, so full tuning holds fp32."""
    return "fp32" if sft_type == "full" and dtype == "fp16" else dtype


def _mixed_precision(device: str, dtype: str) -> MixedPrecision:
    """Return the autocast type; on a CPU the weights' own type computes."""
    if device == "cpu" or dtype not in ("bf16", "fp16"):
        return "no"
    return "bf16" if dtype == "bf16" else "fp16"


def _show(value: object) -> str:
    return (
        f"{value:g}"
        if isinstance(value, float)
        else str(value).lower()
        if isinstance(value, bool)
        else str(value)
    )
