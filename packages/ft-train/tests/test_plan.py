"""Flags to a plan: derived values, their reasons, and what is refused."""

import subprocess
import sys

import pytest
import torch
from pydantic import ValidationError

from ft_core.errors import DependencyError, UsageError
from ft_train import (
    RunArguments,
    TrainingArguments,
    TrainingPlan,
    TunerArguments,
    derive,
    weights_dtype,
)
from ft_train.compat import check_device
from ft_train.evaluation_arguments import EvaluationArguments
from ft_train.tuner_arguments import LoraArguments


def plan(tuner=None, training=None, run=None, evaluation=None, **options):
    settings = {"items": 100, "evaluation_items": 10, **options}
    return derive(
        TunerArguments(**(tuner or {})),
        TrainingArguments(**(training or {})),
        RunArguments(**(run or {})),
        EvaluationArguments(**(evaluation or {})),
        **settings,
    )


def test_defaults_of_lora():
    derived = plan()
    assert derived.learning_rate == 1e-4
    assert derived.gradient_accumulation_steps == 16
    assert derived.eval_batch_size == 1
    assert derived.dataloader_num_workers == 1
    assert derived.save_steps == derived.eval_steps == 50
    assert not derived.save_only_model
    assert (derived.steps_per_epoch, derived.steps) == (7, 7)
    assert derived.warmup_steps == 1
    assert not derived.gradient_checkpointing
    assert derived.reasons["learning_rate"] == "sft_type is lora"


def test_defaults_of_full():
    derived = plan({"sft_type": "full"})
    assert derived.learning_rate == 1e-5
    assert derived.save_only_model
    assert any("resum" in line for line in derived.lines())
    assert not any("resum" in line for line in plan().lines())


def test_windows_prepares_batches_in_the_training_process(monkeypatch):
    monkeypatch.setattr("sys.platform", "win32")
    assert plan().dataloader_num_workers == 0
    assert plan(training={"dataloader_num_workers": 3}).dataloader_num_workers == 3


def test_answers_are_evaluated_row_by_row_and_choose_the_best():
    derived = plan(evaluation={"predict_with_generate": True}, training={"batch_size": 4})
    assert derived.eval_batch_size == 1
    assert (derived.best_metric, derived.greater_is_better) == ("rouge-l", True)
    assert derived.reasons["best_metric"] == "predict_with_generate is on"
    plain = plan(training={"batch_size": 4})
    assert (plain.eval_batch_size, plain.best_metric) == (4, "loss")
    assert not plain.greater_is_better


@pytest.mark.parametrize(
    ("metric", "given", "expected"),
    [
        ("eval_acc", None, ("acc", True)),
        ("loss", None, ("loss", False)),
        ("acc", False, ("acc", False)),
    ],
)
def test_the_best_metric_may_be_chosen(metric, given, expected):
    derived = plan(evaluation={"metric_for_best_model": metric, "greater_is_better": given})
    assert (derived.best_metric, derived.greater_is_better) == expected


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("predict_with_generate", True),
        ("load_best_model_at_end", True),
        ("early_stopping_patience", 2),
        ("metric_for_best_model", "acc"),
    ],
)
def test_flags_that_evaluations_decide_about_need_some(flag, value):
    with pytest.raises(UsageError, match=f"--{flag} needs evaluations.*--val_dataset"):
        plan(evaluation={flag: value}, evaluation_items=0)
    with pytest.raises(UsageError, match=f"--{flag} needs evaluations.*--evaluation_strategy no"):
        plan(evaluation={flag: value}, run={"evaluation_strategy": "no"})


def test_packages_that_flags_need_are_named(monkeypatch):
    monkeypatch.setattr("ft_train.arguments.find_spec", lambda name: None)
    for values, package in (
        ({"optim": "adamw_8bit"}, "bitsandbytes"),
        ({"use_liger_kernel": True}, "liger-kernel"),
    ):
        with pytest.raises(DependencyError, match=f"needs {package}: pip install 'ft-train"):
            TrainingArguments(**values).check(frozenset())


def test_given_values_have_no_reason():
    derived = plan(
        training={"learning_rate": 0.5, "gradient_accumulation_steps": 3, "batch_size": 4},
        run={"save_steps": 7, "save_only_model": True},
    )
    assert (derived.learning_rate, derived.gradient_accumulation_steps) == (0.5, 3)
    assert (derived.save_steps, derived.save_only_model) == (7, True)
    assert not {"learning_rate", "gradient_accumulation_steps", "save_steps"} & set(derived.reasons)


@pytest.mark.parametrize(
    ("batch_size", "world_size", "expected"),
    [(1, 1, 16), (4, 1, 4), (3, 1, 6), (4, 8, 1), (32, 1, 1)],
)
def test_a_step_sees_about_sixteen_rows(batch_size, world_size, expected):
    derived = plan(training={"batch_size": batch_size}, world_size=world_size)
    assert derived.gradient_accumulation_steps == expected


@pytest.mark.parametrize(
    ("training", "steps"),
    [
        ({"num_train_epochs": 3}, 21),
        ({"num_train_epochs": 0.5}, 4),
        ({"max_steps": 5, "num_train_epochs": 3}, 5),
    ],
)
def test_steps(training, steps):
    assert plan(training=training).steps == steps


def test_warmup_steps_replace_the_ratio():
    assert plan(training={"warmup_steps": 3, "warmup_ratio": 0.5}).warmup_steps == 3
    assert plan(training={"max_steps": 100, "warmup_ratio": 0.1}).warmup_steps == 10


def test_gradient_checkpointing_follows_the_estimate_unless_given():
    assert plan(checkpointing_needed=True).gradient_checkpointing
    assert not plan(checkpointing_needed=False).gradient_checkpointing
    given = frozenset({"gradient_checkpointing"})
    off = plan(training={"gradient_checkpointing": False}, checkpointing_needed=True, given=given)
    assert not off.gradient_checkpointing and "gradient_checkpointing" not in off.reasons
    assert plan(checkpointing_needed=False, given=given).gradient_checkpointing


def test_without_rows_to_evaluate_on_nothing_is_evaluated():
    derived = plan(evaluation_items=0)
    assert derived.evaluation_strategy == "no"
    assert "no rows" in derived.reasons["evaluation_strategy"]


@pytest.mark.parametrize(
    ("device", "dtype", "expected"),
    [
        ("cpu", "bf16", "no"),
        ("cuda", "bf16", "bf16"),
        ("cuda", "fp16", "fp16"),
        ("cuda", "fp32", "no"),
    ],
)
def test_mixed_precision(device, dtype, expected):
    assert plan(device=device, dtype=dtype).mixed_precision == expected


def test_full_tuning_never_trains_fp16_weights():
    assert weights_dtype("full", "fp16") == "fp32"
    assert weights_dtype("lora", "fp16") == "fp16"
    assert weights_dtype("full", "bf16") == "bf16"


def test_every_derived_value_is_shown_with_its_reason():
    derived = plan()
    text = "\n".join(derived.lines())
    for name, reason in derived.reasons.items():
        assert name in text and reason in text
    assert "1e-04" in text or "0.0001" in text


@pytest.mark.parametrize("limit", [None, -1])
def test_all_checkpoints_may_stay(limit):
    assert plan(run={"save_total_limit": limit}).save_total_limit is None


@pytest.mark.parametrize(
    ("group", "values", "message"),
    [
        (TrainingArguments, {"max_steps": 0}, "--max_steps 0"),
        (RunArguments, {"save_total_limit": 0}, "--save_total_limit 0"),
        (RunArguments, {"resume_only_model": True}, "--resume_from_checkpoint"),
        (RunArguments, {"report_to": ["tensorbord"]}, r"Did you mean tensorboard\?"),
    ],
)
def test_contradictions_are_refused(group, values, message):
    with pytest.raises(UsageError, match=message):
        group(**values).check(frozenset(values))


def test_a_tracker_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr("ft_train.arguments.find_spec", lambda name: None)
    with pytest.raises(DependencyError, match="--report_to wandb needs wandb: pip install wandb"):
        RunArguments(report_to=["wandb"]).check(frozenset())
    assert RunArguments(report_to=["all"]).trackers() == ()


def test_no_trackers():
    assert RunArguments(report_to=["none"]).trackers() == ()
    assert RunArguments().trackers() == ("tensorboard",)


@pytest.mark.parametrize(
    ("group", "values"),
    [
        (LoraArguments, {"lora_rank": -1}),
        (LoraArguments, {"lora_rank": 0}),
        (LoraArguments, {"lora_dropout": 1.0}),
        (TrainingArguments, {"batch_size": 0}),
        (TrainingArguments, {"learning_rate": -1}),
        (TrainingArguments, {"adam_beta1": 1.0}),
        (RunArguments, {"logging_steps": 0}),
    ],
)
def test_impossible_numbers_are_refused(group, values):
    with pytest.raises(ValidationError):
        group(**values)


def test_the_groups_are_declared_without_torch():
    code = (
        "import sys, ft_train, ft_train.arguments, ft_train.plan;"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules), 'heavy'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_plans_are_frozen():
    with pytest.raises(AttributeError):
        TrainingPlan().steps = 3


def test_several_gpus_in_one_process_only_for_a_divided_model(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    model, settled = torch.nn.Linear(1, 1), TrainingPlan(device="cuda")
    for device_map in ({}, {"": 0}):
        model.hf_device_map = device_map
        with pytest.raises(UsageError, match="NPROC_PER_NODE"):
            check_device(settled, model)
    model.hf_device_map = {"model.layers.0": 0, "model.layers.1": 1}
    check_device(settled, model)
