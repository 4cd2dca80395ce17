"""How a plan becomes transformers' arguments: every field there is has an owner."""

from dataclasses import fields
from pathlib import Path

import pytest
from transformers import TrainingArguments as TransformersArguments

from ft_train import RunArguments, TrainingArguments, TrainingPlan
from ft_train.compat import DONE_BY_FT, LEFT_ALONE, RENAMED, from_plan, trainer_arguments
from ft_train.evaluation_arguments import EvaluationArguments
from ft_train.push_arguments import PushArguments

FIELDS = {field.name for field in fields(TransformersArguments)}
FLAGS = {
    name
    for group in (TrainingArguments, RunArguments, EvaluationArguments, PushArguments)
    for name in group.model_fields
}


def test_every_field_is_decided_by_exactly_one(tmp_path):
    planned = set(from_plan(TrainingPlan(), tmp_path))
    owners = [planned, set(DONE_BY_FT), set(LEFT_ALONE)]
    assert set().union(*owners) - FIELDS == set(), "transformers no longer has these"
    assert FIELDS - set().union(*owners) == set(), "transformers has these and nobody decides them"
    assert sum(map(len, owners)) == len(set().union(*owners)), "some have two owners"


@pytest.mark.parametrize("field", sorted(LEFT_ALONE))
def test_what_is_left_alone_keeps_its_default(field, tmp_path):
    plain = TransformersArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    assert getattr(trainer_arguments(TrainingPlan(), tmp_path), field) == getattr(plain, field)


@pytest.mark.parametrize("field", sorted(DONE_BY_FT))
def test_what_ft_does_itself_is_switched_off(field, tmp_path):
    busy = TrainingPlan(
        auto_find_batch_size=True,
        full_determinism=True,
        include_num_input_tokens_seen=True,
        load_best_model_at_end=True,
        best_metric="loss",
        save_total_limit=2,
    )
    assert getattr(trainer_arguments(busy, tmp_path), field) == DONE_BY_FT[field][0]


@pytest.mark.parametrize("flag", sorted(RENAMED))
def test_renamed_flags_are_flags_of_ft_and_their_new_names_are_transformers(flag):
    assert flag in FLAGS and flag not in FIELDS
    assert RENAMED[flag] is None or RENAMED[flag] in FIELDS


def test_every_flag_of_training_is_a_field_or_known_to_be_otherwise():
    own = {
        *("add_output_dir_suffix", "resume_only_model", "early_stopping_patience"),
        *("early_stopping_threshold", "sample_answers", "join_micro_batches"),
    }
    assert FLAGS - FIELDS - set(RENAMED) == own


@pytest.mark.parametrize(
    ("values", "field", "expected"),
    [
        ({"batch_size": 3}, "per_device_train_batch_size", 3),
        ({"eval_batch_size": 5}, "per_device_eval_batch_size", 5),
        ({"gradient_accumulation_steps": 7}, "gradient_accumulation_steps", 7),
        ({"steps": 9}, "max_steps", 9),
        ({"learning_rate": 0.5}, "learning_rate", 0.5),
        ({"lr_scheduler_type": "linear"}, "lr_scheduler_type", "linear"),
        ({"warmup_steps": 4}, "warmup_steps", 4),
        ({"weight_decay": 0.3}, "weight_decay", 0.3),
        ({"max_grad_norm": 2.0}, "max_grad_norm", 2.0),
        ({"optim": "adamw_torch"}, "optim", "adamw_torch_fused"),
        ({"optim": "adamw_torch", "device": "mps"}, "optim", "adamw_torch"),
        ({"optim": "muon"}, "optim", "adamw_torch"),
        ({"optim": "adamw_8bit"}, "optim", "adamw_8bit"),
        ({"adam_beta1": 0.7}, "adam_beta1", 0.7),
        ({"adam_beta2": 0.7}, "adam_beta2", 0.7),
        ({"adam_epsilon": 0.1}, "adam_epsilon", 0.1),
        ({"gradient_checkpointing": True}, "gradient_checkpointing_kwargs", {"use_reentrant": False}),
        ({"evaluation_strategy": "epoch"}, "eval_strategy", "epoch"),
        ({"eval_steps": 8}, "eval_steps", 8),
        ({"save_strategy": "epoch"}, "save_strategy", "epoch"),
        ({"save_steps": 8}, "save_steps", 8),
        ({"save_only_model": True}, "save_only_model", True),
        ({"logging_steps": 8}, "logging_steps", 8),
        ({"seed": 8}, "seed", 8),
        ({"seed": 8}, "data_seed", 8),
        ({"dataloader_num_workers": 2}, "dataloader_num_workers", 2),
        ({"report_to": ("tensorboard",)}, "report_to", []),
    ],
)  # fmt: skip
def test_values_of_the_plan_arrive(values, field, expected, tmp_path: Path):
    assert getattr(trainer_arguments(TrainingPlan(**values), tmp_path), field) == expected
