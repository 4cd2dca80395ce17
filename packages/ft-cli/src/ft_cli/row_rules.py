"""Which flags of rows exclude each other in a training command, beside the rules of tuners in ``ft_train.rules``.

A few more that need no other package are checked by ft-data's own argument groups.
"""

from __future__ import annotations

from ft_core.command import Invocation
from ft_train.rules import EXCLUSIONS, Exclusion, Values, check_rules

_NEEDS_ALL_ROWS = {
    "dataset_test_ratio": "evaluate with --val_dataset",
    "lazy_tokenize": "rows are encoded when they come anyway",
    "preprocess_num_proc": "use --dataloader_num_workers",
    "train_dataset_sample": "write --dataset NAME#N",
    "val_dataset_sample": "write --val_dataset NAME#N",
    "train_dataset_mix_ratio": "name the rows in --dataset, with --interleave_prob",
    "packing_window": "use --shuffle_buffer_size",
    "group_by_length": "leave one of them out",
    "max_tokens_per_batch": "leave one of them out",
    "test_oom_error": "leave one of them out",
}
"""Flags that need all rows before training, and what to do instead where rows are streamed."""

_NEEDS_LENGTHS = ("group_by_length", "max_tokens_per_batch", "test_oom_error")


def _used(values: Values, name: str) -> bool:
    unused = {"preprocess_num_proc": 1, "train_dataset_sample": -1}
    return bool(values[name]) and values[name] != unused.get(name)


def _streamed(name: str, remedy: str) -> Exclusion:
    return Exclusion(
        *(name, "streaming"),
        lambda values: bool(values["streaming"]) and _used(values, name),
        f"the first needs all rows before training, which a stream doesn't have; {remedy}",
        given=True,
    )


def _lazy(name: str) -> Exclusion:
    return Exclusion(
        *("lazy_tokenize", name),
        lambda values: bool(values["lazy_tokenize"]) and _used(values, name),
        "the second needs the length of every row before training, the first finds it out during training; "
        "leave one of them out",
        given=True,
    )


def _token_batches(name: str) -> Exclusion:
    return Exclusion(
        *(name, "max_tokens_per_batch"),
        lambda values: values["max_tokens_per_batch"] is not None and bool(values[name]),
        "tokens decide how many rows a forward pass has; leave one of them out",
        given=True,
    )


ROW_EXCLUSIONS: tuple[Exclusion, ...] = (
    Exclusion(
        *("streaming", "max_steps"),
        lambda values: bool(values["streaming"]) and values["max_steps"] <= 0,
        "how many rows a stream has is not known, so epochs can't end the run; give --max_steps",
    ),
    *(_streamed(name, remedy) for name, remedy in _NEEDS_ALL_ROWS.items()),
    *(_lazy(name) for name in _NEEDS_LENGTHS),
    *(_token_batches(name) for name in ("packing", "batch_size", "eval_batch_size")),
    Exclusion(
        *("packing_window", "packing"),
        lambda values: values["packing_window"] is not None and not values["packing"],
        "it is a window of rows that are packed; give --packing true, or leave it out",
    ),
    Exclusion(
        *("packing", "max_length"),
        lambda values: bool(values["packing"]) and values["max_length"] == -1,
        "max_length is the length of a pack; give one",
    ),
)
"""Pairs that are refused before anything is loaded."""


def check_training(invocation: Invocation) -> None:
    """Refuse a training command whose flags exclude each other.

    Raises:
        UsageError: with both flags, their values and the remedy.
    """
    check_rules(invocation, (*EXCLUSIONS, *ROW_EXCLUSIONS))
