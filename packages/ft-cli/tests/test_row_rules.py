"""The table of flags of rows that exclude each other: each rule is broken once, and kept once."""

from __future__ import annotations

import pytest

from ft_cli.commands.sft import SFT
from ft_cli.row_rules import ROW_EXCLUSIONS
from ft_core.command import Invocation
from ft_core.command.resolve import resolve
from ft_core.errors import UsageError


def read(text: str) -> Invocation:
    words = ("--model_type", "smollm2-135m-instruct", "--dataset", "rows.jsonl", *text.split())
    return resolve(SFT, words, environ={}, warn=lambda _: None)


STREAM = "--streaming true --max_steps 5"
BROKEN = {
    ("streaming", "max_steps"): "--streaming true",
    ("dataset_test_ratio", "streaming"): f"{STREAM} --dataset_test_ratio 0.1",
    ("lazy_tokenize", "streaming"): f"{STREAM} --lazy_tokenize true",
    ("preprocess_num_proc", "streaming"): f"{STREAM} --preprocess_num_proc 2",
    ("train_dataset_sample", "streaming"): f"{STREAM} --train_dataset_sample 10",
    ("val_dataset_sample", "streaming"): f"{STREAM} --val_dataset_sample 10",
    ("train_dataset_mix_ratio", "streaming"): f"{STREAM} --train_dataset_mix_ratio 0.5",
    ("packing_window", "streaming"): f"{STREAM} --packing true --packing_window 100",
    ("group_by_length", "streaming"): f"{STREAM} --group_by_length true",
    ("max_tokens_per_batch", "streaming"): f"{STREAM} --max_tokens_per_batch 900",
    ("test_oom_error", "streaming"): f"{STREAM} --test_oom_error true",
    ("lazy_tokenize", "group_by_length"): "--lazy_tokenize true --group_by_length true",
    ("lazy_tokenize", "max_tokens_per_batch"): "--lazy_tokenize true --max_tokens_per_batch 900",
    ("lazy_tokenize", "test_oom_error"): "--lazy_tokenize true --test_oom_error true",
    ("packing", "max_tokens_per_batch"): "--packing true --max_tokens_per_batch 900",
    ("batch_size", "max_tokens_per_batch"): "--batch_size 4 --max_tokens_per_batch 900",
    ("eval_batch_size", "max_tokens_per_batch"): "--eval_batch_size 4 --max_tokens_per_batch 900",
    ("packing_window", "packing"): "--packing_window 100",
    ("packing", "max_length"): "--packing true --max_length -1",
}

KEPT = (
    "",
    f"{STREAM} --packing true",
    f"{STREAM} --dataset_test_ratio 0 --preprocess_num_proc 1 --lazy_tokenize false",
    "--packing true --packing_window 100 --max_length 512",
    "--lazy_tokenize false --packing true",
    "--max_tokens_per_batch 900",
    "--test_oom_error true --batch_size 4",
)


def test_each_rule_is_tested() -> None:
    assert set(BROKEN) == {(rule.first, rule.second) for rule in ROW_EXCLUSIONS}


@pytest.mark.parametrize("pair", BROKEN)
def test_a_broken_rule_names_both_flags(pair: tuple[str, str]) -> None:
    with pytest.raises(UsageError) as caught:
        read(BROKEN[pair])
    message = str(caught.value)
    assert all(f"--{name} " in message for name in pair)
    assert "can't be used together" in message


@pytest.mark.parametrize("text", KEPT)
def test_what_keeps_the_rules_passes(text: str) -> None:
    assert read(text).command is SFT
