"""What methods that learn from answers of their own can't do beside: refused by name before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping

from ft_align.arguments import AlignArguments
from ft_align.loss_types import ONLINE
from ft_align.online_arguments import OnlineArguments
from ft_core.arguments import GenerationArguments
from ft_core.command import Invocation
from ft_core.errors import UsageError
from ft_core.launch import world_size
from ft_core.prepare import to_stderr
from ft_train.arguments import RunArguments
from ft_train.tuner_arguments import TunerArguments

_REFUSED: Mapping[str, str] = {
    **dict.fromkeys(
        (
            *("packing", "group_by_length", "max_tokens_per_batch", "test_oom_error"),
            *("lazy_tokenize", "log_source_loss"),
        ),
        "TRL's trainer makes batches of its own; leave it out",
    ),
    "streaming": "all prompts are held; leave it out, and choose rows with --dataset NAME#N",
    **dict.fromkeys(
        ("deepspeed", "fsdp"), "answers are made by one process with the whole model; leave it out"
    ),
    **dict.fromkeys(
        (
            *("val_dataset", "predict_with_generate", "load_best_model_at_end"),
            *("early_stopping_patience", "metric_for_best_model", "dataset_test_ratio"),
        ),
        "the log is about the rows that are trained, and nothing is held out; leave it out",
    ),
    "use_liger_kernel": "TRL's loss has no such kernel here; leave it out",
    "auto_find_batch_size": "micro-batches are fixed; lower --batch_size instead",
    "neftune_noise_alpha": "noise would change the answers that the model makes; leave it out",
    "lisa_activated_layers": "layers would change between an answer and what it teaches; leave it out",
    "max_new_tokens": "answers in training are as long as --max_completion_length; use that",
    "precompute_ref_logps": "answers aren't known before; leave it out",
    **dict.fromkeys(
        ("ref_model_type", "ref_model_id_or_path"),
        "the reference is the model as it was before; leave it out",
    ),
}
"""Flags that have no place here, and what to do instead."""

_REWARDED = ("reward_funcs", "reward_weights", "reward_format", "judge_model", "num_generations")
_TAUGHT = ("teacher_model_type", "teacher_model_id_or_path", "lmbda", "seq_kd")


def _unused(method: str) -> tuple[str, ...]:
    if method == "gkd":
        return ("sample_answers", "acc_strategy", "max_prompt_length", "top_k", "top_p", *_REWARDED)
    return ("sample_answers", "truncation_strategy", "loss_scale", "acc_strategy", *_TAUGHT)


def check_online(invocation: Invocation) -> None:
    """Refuse flags that these methods can't obey, and methods without their rewards or their teacher.

    Raises:
        UsageError: with the flag, its value and the remedy.
    """
    method, flags = invocation.get(AlignArguments).rlhf_type, invocation.get(OnlineArguments)
    if method not in ONLINE:
        for name in OnlineArguments.model_fields:
            if invocation.given(name):
                to_stderr(f"--{name} has no effect without --rlhf_type grpo, rloo or gkd")
        return
    if method == "gkd":
        if not (flags.teacher_model_type or flags.teacher_model_id_or_path):
            raise UsageError(
                "--rlhf_type gkd learns from a teacher: name it with --teacher_model_type or --teacher_model_id_or_path"
            )
    elif not flags.reward_funcs:
        raise UsageError(
            f"--rlhf_type {method} learns from rewards: give --reward_funcs with format, exact, length, regex:PATTERN, "
            "file:PATH.py:FUNCTION, model:DIR or judge:URL"
        )
    for name, why in _REFUSED.items():
        if invocation.given(name) and (value := invocation.values[name].value):
            raise UsageError(
                f"--{name} {value} and --rlhf_type {method} can't be used together: {why}"
            )
    _check_values(invocation, method)
    for name in _unused(method):
        if invocation.given(name):
            to_stderr(f"--{name} has no effect with --rlhf_type {method}")


def _check_values(invocation: Invocation, method: str) -> None:
    tuner, run = invocation.get(TunerArguments).sft_type, invocation.get(RunArguments)
    sampling = invocation.get(GenerationArguments)
    together = f"and --rlhf_type {method} can't be used together"
    if tuner not in ("lora", "full"):
        raise UsageError(f"--sft_type {tuner} {together}; use lora or full")
    if world_size() > 1:
        raise UsageError(
            f"NPROC_PER_NODE or NNODES {together}: answers are made by one process; unset them"
        )
    if run.resume_from_checkpoint is not None and not run.resume_only_model:
        raise UsageError(
            f"--resume_from_checkpoint {run.resume_from_checkpoint} {together}: checkpoints hold weights only; add "
            "--resume_only_model true to start a new run with them"
        )
    if invocation.given("save_only_model") and run.save_only_model is False:
        raise UsageError(
            f"--save_only_model false {together}: such a run can't be resumed; leave it out"
        )
    greedy = not sampling.do_sample or (
        invocation.given("temperature") and sampling.temperature == 0
    )
    if greedy or sampling.num_beams > 1:
        raise UsageError(
            f"--do_sample false, --temperature 0 and --num_beams {together}: answers to one prompt must differ; leave "
            "them out"
        )
