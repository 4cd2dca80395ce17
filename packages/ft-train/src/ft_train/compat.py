"""The one place that knows how transformers spells a plan, and how its versions differ."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainingArguments
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from ft_core.errors import UsageError
from ft_train.distributed.deepspeed_config import for_device
from ft_train.plan import TrainingPlan
from ft_train.run_options import OPTIMIZERS

RENAMED: Mapping[str, str | None] = {
    "batch_size": "per_device_train_batch_size",
    "eval_batch_size": "per_device_eval_batch_size",
    "evaluation_strategy": "eval_strategy",
    "warmup_ratio": "warmup_steps",
    "logging_dir": None,
    "save_safetensors": None,
    "predict_with_generate": None,
    "acc_strategy": None,
    "gpu_memory_fraction": None,
    "push_hub_strategy": "hub_strategy",
}
"""Flags that transformers calls otherwise now, or no longer has (``None``): ft does these itself."""

DONE_BY_FT: Mapping[str, tuple[Any, str]] = {
    "auto_find_batch_size": (
        False,
        "attempts keep the rows of a step, and start from the same weights",
    ),
    "average_tokens_across_devices": (False, "the loss is normalised by counts over all devices"),
    "dataloader_drop_last": (False, "every row is trained"),
    "disable_tqdm": (True, "the progress line is ft's"),
    "fsdp": ("", "torch's fully_shard divides the model, which accelerate leaves out on CPUs"),
    "fsdp_config": (None, "read by ft"),
    "full_determinism": (False, "set for the whole run, and taken back after it"),
    "hub_model_id": (None, "pushing goes to either hub"),
    "hub_private_repo": (None, "pushing goes to either hub"),
    "hub_token": (None, "pushing goes to either hub"),
    "include_num_input_tokens_seen": ("no", "counted from the samples, without padding"),
    "load_best_model_at_end": (False, "any tuner's weights are put back"),
    "log_level": ("error", "ft says what matters"),
    "log_level_replica": ("error", "ft says what matters"),
    "logging_nan_inf_filter": (False, "a loss of NaN ends the run"),
    "metric_for_best_model": (None, "the best checkpoint is the best saved one"),
    "neftune_noise_alpha": (None, "NEFTune is a watcher of the run"),
    "push_to_hub": (False, "pushing goes to either hub"),
    "remove_unused_columns": (False, "batches are made of samples"),
    "save_total_limit": (None, "best and last are kept"),
    "train_sampling_strategy": (
        "random",
        "order comes from seed and epoch; joined rows need no grouping",
    ),
}
"""Fields whose work ft does itself: what transformers gets, and why."""

LEFT_ALONE: Mapping[str, str] = {
    **dict.fromkeys(
        ("bf16_full_eval", "fp16_full_eval", "eval_accumulation_steps", "eval_do_concat_batches"),
        "evaluation is ft's own loop",
    ),
    **dict.fromkeys(
        ("eval_use_gather_object", "batch_eval_metrics", "include_for_metrics", "label_names"),
        "evaluation is ft's own loop",
    ),
    **dict.fromkeys(("prediction_loss_only", "eval_on_start", "eval_delay"), "no flag asks for it"),
    **dict.fromkeys(("hub_strategy", "hub_always_push", "hub_revision"), "pushing is ft's own"),
    **dict.fromkeys(("do_train", "do_eval", "do_predict"), "the command says what is done"),
    **dict.fromkeys(("accelerator_config", "parallelism_config"), "processes are divided by ft"),
    **dict.fromkeys(
        ("ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ddp_static_graph"), "torch chooses"
    ),
    "local_rank": "torchrun says",
    **dict.fromkeys(
        ("dataloader_persistent_workers", "dataloader_prefetch_factor", "dataloader_in_order"),
        "the loaders are ft's own",
    ),
    **dict.fromkeys(
        ("dataloader_multiprocessing_context", "length_column_name"), "loaders are ours"
    ),
    **dict.fromkeys(
        ("trackio_space_id", "trackio_bucket_id", "trackio_static_space_id", "project"),
        "trackers read their own environment",
    ),
    **dict.fromkeys(
        ("torch_compile", "torch_compile_backend", "torch_compile_mode", "tf32"),
        "not measured to be faster",
    ),
    **dict.fromkeys(("optim_args", "optim_target_modules", "lr_scheduler_kwargs"), "no flag yet"),
    "label_smoothing_factor": "the loss is the recipe's",
    "use_cache": "recipes ask for no cache",
    "torch_empty_cache_steps": "costs speed",
    "logging_strategy": "lines come every logging_steps",
    "logging_first_step": "lines come every logging_steps",
    "log_on_each_node": "the first process speaks",
    "enable_jit_checkpoint": "SIGTERM saves a checkpoint anyway",
    "greater_is_better": "the best checkpoint is chosen by ft",
    "ignore_data_skip": "resuming is exact",
    "restore_callback_states_from_checkpoint": "watchers read the log of the checkpoint",
    "resume_from_checkpoint": "given when training starts",
    "debug": "no flag asks for it",
    "skip_memory_metrics": "memory is in the log",
}
"""Fields that keep transformers' defaults, and why."""


def trainer_arguments(plan: TrainingPlan, run_directory: Path) -> TrainingArguments:
    """Spell a plan as transformers' ``TrainingArguments``."""
    if plan.device == "cpu":
        # accelerate imports DeepSpeed wherever that is installed, which else warns that it found no GPU.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    return TrainingArguments(
        **from_plan(plan, run_directory), **{name: value for name, (value, _) in DONE_BY_FT.items()}
    )


def from_plan(plan: TrainingPlan, run_directory: Path) -> dict[str, Any]:
    """Return the fields of ``TrainingArguments`` that the plan decides."""
    trackers = [name for name in plan.report_to if name != "tensorboard"]
    recompute = {"use_reentrant": False} if plan.gradient_checkpointing else None
    kernels = {"cross_entropy": False, "fused_linear_cross_entropy": False}
    return {
        "output_dir": str(run_directory),
        "run_name": run_directory.name,
        "per_device_train_batch_size": plan.batch_size,
        "per_device_eval_batch_size": plan.eval_batch_size,
        "gradient_accumulation_steps": plan.gradient_accumulation_steps,
        "num_train_epochs": plan.num_train_epochs,
        "max_steps": plan.steps,
        "learning_rate": plan.learning_rate,
        "lr_scheduler_type": plan.lr_scheduler_type,
        "warmup_steps": plan.warmup_steps,
        "weight_decay": plan.weight_decay,
        "max_grad_norm": plan.max_grad_norm,
        "optim": _optimizer(plan),
        "adam_beta1": plan.adam_beta1,
        "adam_beta2": plan.adam_beta2,
        "adam_epsilon": plan.adam_epsilon,
        "bf16": plan.mixed_precision == "bf16",
        "fp16": plan.mixed_precision == "fp16",
        "gradient_checkpointing": plan.gradient_checkpointing,
        "gradient_checkpointing_kwargs": recompute,
        "use_liger_kernel": plan.use_liger_kernel,
        # The loss is the recipe's, which takes logits at trained tokens only.
        "liger_kernel_config": kernels if plan.use_liger_kernel else None,
        "eval_strategy": plan.evaluation_strategy,
        "eval_steps": plan.eval_steps,
        "save_strategy": plan.save_strategy,
        "save_steps": plan.save_steps,
        "save_only_model": plan.save_only_model,
        "logging_steps": plan.logging_steps,
        "report_to": trackers or "none",
        "seed": plan.seed,
        "data_seed": plan.seed,
        "use_cpu": plan.device == "cpu",
        "dataloader_num_workers": plan.dataloader_num_workers,
        "dataloader_pin_memory": plan.device == "cuda",
        "ddp_find_unused_parameters": False,
        "ddp_backend": plan.division.backend,
        "ddp_timeout": plan.division.timeout,
        "deepspeed": _deepspeed(plan),
        "save_on_each_node": plan.division.save_on_each_node,
    }


def settings_for_others(plan: TrainingPlan, run_directory: Path) -> dict[str, Any]:
    """Spell a plan for a trainer of another library, which brings its own loss."""
    fixed = {name: value for name, (value, _) in DONE_BY_FT.items()}
    return {**from_plan(plan, run_directory), **fixed}


def _deepspeed(plan: TrainingPlan) -> dict[str, Any] | None:
    config = plan.division.deepspeed
    return None if config is None else for_device(config, plan.device)


def _optimizer(plan: TrainingPlan) -> str:
    """Name the optimizer: torch's AdamW has a fused kernel for every device ft trains on."""
    if plan.optim in OPTIMIZERS:
        return "adamw_torch"  # not made: the trainer brings the optimizer
    if plan.optim == "adamw_torch" and plan.device in ("cpu", "cuda"):
        return "adamw_torch_fused"
    return plan.optim


def wrapped_loss_scale(world_size: int) -> float:
    """Return what undoes the average that data parallelism takes of the ranks' gradients."""
    return float(world_size)


BACKWARD_OPTIONS: Mapping[bool, Mapping[str, Any]] = {False: {}, True: {"scale_wrt_gas": False}}
"""What accelerate's backward pass takes without and with DeepSpeed, which would divide by micro-batches itself."""


def forget_deepspeed() -> None:
    """Let what comes after a run in this process be without DeepSpeed, which else goes on by itself.

    transformers divides models that it loads while a ZeRO-3 run is remembered, and accelerate leaves a variable in
    the environment by which every later trainer would take DeepSpeed.
    """
    unset_hf_deepspeed_config()
    os.environ.pop("ACCELERATE_USE_DEEPSPEED", None)


def mark_as_divided(trainer: Trainer) -> None:
    """Keep a trainer from wrapping a model that is divided over processes already, and from moving it.

    It is set after the trainer is made, because transformers would refuse to save optimizer states of such a
    model, which ft does itself.
    """
    trainer.is_distributed_loading_by_transformers = True
    trainer.place_model_on_device = False


def check_device(plan: TrainingPlan, model: Any) -> None:
    """Refuse what transformers would do silently differently.

    Args:
        plan: what the run does.
        model: is trained; one that is divided over several GPUs may see them all.

    Raises:
        UsageError: several GPUs in one process, where transformers would split batches by threads; or a
            flag that needs a GPU where there is none.
    """
    import torch

    if plan.device == "cpu":
        if plan.optim.startswith("paged"):
            raise UsageError(
                f"--optim {plan.optim} pages its states to the CPU's memory and this run trains there; "
                f"use {plan.optim.removeprefix('paged_')}"
            )
        if plan.use_liger_kernel:
            raise UsageError("--use_liger_kernel true needs a GPU; leave it out")

    if len(set(getattr(model, "hf_device_map", {}).values())) > 1:
        return
    several = plan.device == "cuda" and plan.world_size == 1 and torch.cuda.device_count() > 1
    if several and "LOCAL_RANK" not in os.environ:
        raise UsageError(
            f"{torch.cuda.device_count()} GPUs are visible to one process; set NPROC_PER_NODE to use "
            "them all, or CUDA_VISIBLE_DEVICES to choose one"
        )
