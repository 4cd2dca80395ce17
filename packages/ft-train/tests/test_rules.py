"""The table of flags that exclude each other: each rule is broken once, and kept once."""

from __future__ import annotations

import pytest

from ft_core.arguments import QuantizationArguments
from ft_core.command import Command, Invocation
from ft_core.command.group import ArgumentGroup
from ft_core.command.resolve import resolve
from ft_core.errors import DependencyError, UsageError
from ft_core.tuners import (
    AdaLoraSettings,
    BoftSettings,
    FullSettings,
    LlamaProSettings,
    LongLoraSettings,
    LoraSettings,
)
from ft_train.arguments import RunArguments, TrainingArguments
from ft_train.distributed_arguments import DistributedArguments
from ft_train.evaluation_arguments import EvaluationArguments
from ft_train.optimizer_arguments import OPTIMIZER_GROUPS
from ft_train.rules import CONDITIONS, EXCLUSIONS, check_rules, flags_without_effect
from ft_train.tuner_arguments import TUNER_GROUPS
from ft_train.tuner_settings import ModelFacts, tuner_settings


class StreamFlags(ArgumentGroup):
    """The one flag of streaming that rules look at."""

    streaming: bool = False


COMMAND = Command(
    "train",
    "A training command.",
    (
        *TUNER_GROUPS,
        *OPTIMIZER_GROUPS,
        TrainingArguments,
        DistributedArguments,
        RunArguments,
        EvaluationArguments,
        QuantizationArguments,
        StreamFlags,
    ),
    "nowhere:run",
    checks=(check_rules,),
)


def read(text: str) -> Invocation:
    return resolve(COMMAND, text.split(), environ={}, warn=lambda _: None)


BROKEN = {
    ("freeze_parameters", "sft_type"): "--freeze_parameters 0.5",
    (
        "additional_trainable_parameters",
        "sft_type",
    ): "--sft_type ia3 --additional_trainable_parameters lm_head",
    ("lisa_activated_layers", "sft_type"): "--lisa_activated_layers 2",
    (
        "lisa_activated_layers",
        "freeze_parameters",
    ): "--sft_type full --lisa_activated_layers 2 --freeze_parameters 0.1",
    (
        "lisa_activated_layers",
        "use_galore",
    ): "--sft_type full --lisa_activated_layers 2 --use_galore true",
    (
        "lisa_activated_layers",
        "load_best_model_at_end",
    ): "--sft_type full --lisa_activated_layers 2 --load_best_model_at_end true",
    ("use_galore", "sft_type"): "--use_galore true",
    ("use_galore", "optim"): "--sft_type full --use_galore true --optim sgd",
    ("galore_quantization", "use_galore"): "--sft_type full --galore_quantization true",
    (
        "galore_proj_quant",
        "galore_quantization",
    ): "--sft_type full --use_galore true --galore_proj_quant true",
    ("lora_lr_ratio", "sft_type"): "--sft_type vera --lora_lr_ratio 16",
    ("lora_lr_ratio", "optim"): "--lora_lr_ratio 16 --optim adafactor",
    ("init_lora_weights", "quantization_bit"): "--init_lora_weights pissa --quantization_bit 4",
    ("use_dora", "quantization_bit"): "--use_dora true --quantization_bit 8",
    ("init_lora_weights", "use_dora"): "--init_lora_weights olora --use_dora true",
    ("init_lora_weights", "streaming"): "--init_lora_weights eva --streaming true",
    ("tuner_backend", "sft_type"): "--tuner_backend swift --sft_type boft",
    ("tuner_backend", "init_lora_weights"): "--tuner_backend swift --init_lora_weights pissa",
    ("deepspeed", "fsdp"): "--deepspeed zero2 --fsdp full_shard",
    ("sft_type", "deepspeed"): "--sft_type adalora --deepspeed zero1",
    ("sft_type", "fsdp"): "--sft_type adalora --fsdp full_shard",
    (
        "lisa_activated_layers",
        "deepspeed",
    ): "--sft_type full --lisa_activated_layers 2 --deepspeed zero2",
    (
        "lisa_activated_layers",
        "fsdp",
    ): "--sft_type full --lisa_activated_layers 2 --fsdp full_shard",
    ("use_galore", "deepspeed"): "--sft_type full --use_galore true --deepspeed zero2",
    ("use_galore", "fsdp"): "--sft_type full --use_galore true --fsdp shard_grad_op",
    ("optim", "deepspeed"): "--optim adafactor --deepspeed zero2",
    ("optim", "fsdp"): "--optim muon --fsdp full_shard",
    ("quantization_bit", "deepspeed"): "--quantization_bit 4 --deepspeed default-zero3",
    ("quantization_bit", "fsdp"): "--quantization_bit 4 --fsdp full_shard",
    ("predict_with_generate", "deepspeed"): "--predict_with_generate true --deepspeed zero3",
    ("predict_with_generate", "fsdp"): "--predict_with_generate true --fsdp full_shard",
    ("load_best_model_at_end", "deepspeed"): "--load_best_model_at_end true --deepspeed zero3",
    ("load_best_model_at_end", "fsdp"): "--load_best_model_at_end true --fsdp full_shard",
    ("sample_answers", "deepspeed"): "--sample_answers 1 --deepspeed zero3-offload",
    ("sample_answers", "fsdp"): "--sample_answers 1 --fsdp full_shard",
    ("save_on_each_node", "fsdp"): "--save_on_each_node true --fsdp full_shard",
    (
        "neftune_noise_alpha",
        "sequence_parallel_size",
    ): "--neftune_noise_alpha 5 --sequence_parallel_size 2",
    ("sft_type", "sequence_parallel_size"): "--sft_type longlora --sequence_parallel_size 2",
    (
        "acc_strategy",
        "sequence_parallel_size",
    ): "--acc_strategy sentence --sequence_parallel_size 2",
    (
        "boft_block_size",
        "boft_block_num",
    ): "--sft_type boft --boft_block_size 8 --boft_block_num 2",
}

KEPT = (
    "",
    "--sft_type full --freeze_parameters 0.5 --additional_trainable_parameters lm_head",
    "--sft_type full --lisa_activated_layers 2 --lisa_step_interval 3",
    "--sft_type full --use_galore true --galore_quantization true --galore_proj_quant true",
    "--lora_lr_ratio 16 --optim adamw_torch_fused",
    "--init_lora_weights pissa_niter_4",
    "--init_lora_weights gaussian --use_dora true --quantization_bit 4",
    "--tuner_backend swift --sft_type longlora",
    "--sft_type adalora --resume_from_checkpoint output/checkpoint-3",
    "--deepspeed zero2 --quantization_bit 4 --load_best_model_at_end true --sample_answers 2",
    "--fsdp full_shard --optim sgd --sample_answers 0",
    "--deepspeed zero3 --sequence_parallel_size 2 --acc_strategy token",
    "--sft_type boft --boft_block_num 2",
)


def test_each_rule_is_tested() -> None:
    # Rules of other flags than those of tuners and optimizers are tested beside those flags.
    groups = (*TUNER_GROUPS, *OPTIMIZER_GROUPS, DistributedArguments)
    ours = {name for group in groups for name in group.model_fields}
    pairs = [(rule.first, rule.second) for rule in EXCLUSIONS if {rule.first, rule.second} & ours]
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == set(BROKEN)


@pytest.mark.parametrize("pair", BROKEN)
def test_a_broken_rule_names_both_flags(pair: tuple[str, str]) -> None:
    with pytest.raises(UsageError) as caught:
        read(BROKEN[pair])
    message = str(caught.value)
    first, second = (f"--{name} " for name in pair)
    assert first in message and second in message and "can't be used together" in message


@pytest.mark.parametrize("text", KEPT)
def test_what_keeps_the_rules_passes(text: str) -> None:
    assert read(text).command is COMMAND


def test_flags_that_do_nothing_are_told() -> None:
    assert flags_without_effect(read("--sft_type full")) == []
    told = flags_without_effect(
        read(
            "--sft_type adalora --lora_dtype fp32 --lora_alpha 16 --galore_rank 8 --ia3_feedforward_modules x"
        )
    )
    assert told == [
        "--lora_dtype has no effect without --sft_type longlora or lora",
        "--ia3_feedforward_modules has no effect without --sft_type ia3",
        "--galore_rank has no effect without --use_galore",
    ]


def test_conditions_name_flags_that_exist() -> None:
    declared = set(read("").values)
    for condition in CONDITIONS:
        assert set(condition.flags) <= declared


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "--lora_rank 4 --lora_dtype bf16 --init_lora_weights PiSSA --use_rslora true --target_modules a b",
            LoraSettings(
                rank=4, dtype="bf16", init="pissa", use_rslora=True, target_modules=("a", "b")
            ),
        ),
        (
            "--sft_type longlora --modules_to_save lm_head",
            LongLoraSettings(modules_to_save=("lm_head",)),
        ),
        (
            "--sft_type adalora --adalora_target_r 2 --adalora_deltaT 3 --lora_alpha 16",
            AdaLoraSettings(target_r=2, delta_t=3, alpha=16, total_steps=9),
        ),
        ("--sft_type boft --boft_block_num 2", BoftSettings(block_size=0, block_num=2)),
        ("--sft_type full --freeze_parameters 0.5", FullSettings(freeze_parameters=0.5)),
        ("--sft_type llamapro --llamapro_num_groups 2", LlamaProSettings(num_groups=2)),
    ],
)
def test_flags_become_settings(text: str, expected: object) -> None:
    assert tuner_settings(read(text), ModelFacts(total_steps=9)) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("--sft_type adalora --adalora_init_r 4", "--adalora_target_r 8 and --adalora_init_r 4"),
        ("--sft_type adalora --adalora_tinit 9", "--adalora_tinit 9 and --adalora_tfinal 0"),
        ("--sft_type boft --boft_block_size 0", "--boft_block_size 0 and --boft_block_num 0"),
        ("--init_lora_weights loftq", "--init_lora_weights loftq"),
    ],
)
def test_values_that_can_not_work(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        tuner_settings(read(text), ModelFacts(total_steps=9))


def test_unsloth_needs_itself_and_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ft_train.tuner_arguments.find_spec", lambda name: None)
    with pytest.raises(DependencyError, match="--tuner_backend unsloth needs unsloth"):
        read("--tuner_backend unsloth")
