"""``ft infer``: answer rows, or chat in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ft_core.arguments import (
    GenerationArguments,
    LoadingArguments,
    ModelArguments,
    QuantizationArguments,
    TemplateArguments,
)
from ft_core.command import Command, Invocation
from ft_core.errors import UsageError
from ft_core.examples import Example
from ft_core.prepare import Prepared, base_model, prepare, to_stderr
from ft_data.arguments import DataArguments
from ft_quant.arguments import MergeArguments
from ft_serve.arguments import ENGINE_GROUPS, CheckpointArguments, InferArguments
from ft_serve.infer_command import saved

GROUPS = (
    ModelArguments,
    QuantizationArguments,
    LoadingArguments,
    TemplateArguments,
    CheckpointArguments,
    GenerationArguments,
    InferArguments,
    DataArguments,
    MergeArguments,
    *ENGINE_GROUPS,
)

QUANTIZATION = frozenset(QuantizationArguments.model_fields)
"""Flags that say how a model is quantized."""


def run(invocation: Invocation) -> None:
    """Load the model, then answer rows or a person."""
    from ft_serve.infer.session import open_session

    prepared = prepare_answering(invocation)  # first, since a registered file may bring the dataset
    rows = _rows(invocation)
    with open_session(invocation, prepared) as session:
        if rows is None:
            session.chat()
        else:
            session.answer(rows, summarise=compare)


def compare(answers: Sequence[str], labels: Sequence[str]) -> dict[str, float]:
    """Return ROUGE, BLEU and the share of exact matches, each from 0 to 100."""
    from ft_eval.metrics import exact_match
    from ft_train.answer_metrics import answer_scores, answer_sums

    matches = sum(exact_match(text, label) for text, label in zip(answers, labels, strict=True))
    scores = answer_scores(answer_sums(answers, labels))
    return {**scores, "exact match": 100 * matches / len(answers)}


def _rows(invocation: Invocation) -> Sequence[Example] | None:
    """Return the rows to answer; ``None`` where a person asks."""
    data, arguments = invocation.get(DataArguments), invocation.get(InferArguments)
    has_rows = bool(data.sources() or data.val_sources())
    if arguments.eval_human or (arguments.eval_human is None and not has_rows):
        return None
    if not has_rows:
        raise UsageError(
            "--eval_human false needs rows: give --val_dataset with rows to answer, or --dataset with rows of "
            "which --dataset_test_ratio are answered"
        )
    import ft_data

    seed = data.seed_or(invocation.get(ModelArguments).seed)
    loaded = ft_data.load_given(data, seed=seed, require_answer=False)
    for line in (*loaded.train.report.lines(), *loaded.val.report.lines()):
        to_stderr(line)
    rows = loaded.val.examples
    if not rows:
        raise UsageError(
            "--dataset_test_ratio 0 leaves no row to answer; raise it, or give --val_dataset"
        )
    wanted = arguments.show_dataset_sample
    if wanted == -1 or wanted >= len(rows):
        return rows
    return ft_data.sample(rows, wanted, f"{seed}/shown")


def prepare_answering(invocation: Invocation) -> Prepared:
    """Find the model that answers, with the adapter folded into it where that is asked for.

    Raises:
        FtError: there is no such model, or the flags contradict the checkpoint.
    """
    checkpoint = invocation.get(CheckpointArguments)
    merge = invocation.get(MergeArguments)
    directory = checkpoint.ckpt_dir
    if merge.merge_lora:
        if directory is None:
            raise UsageError("--merge_lora true needs --ckpt_dir with the checkpoint of an adapter")
        from ft_quant import merge_checkpoint

        model = invocation.get(ModelArguments)
        report = merge_checkpoint(
            directory,
            device=merge.merge_device_map,
            safe_serialization=merge.save_safetensors,
            overwrite=True,
            source=base_model(model, directory),
            trust_remote_code=model.trust_remote_code,
        )
        to_stderr(str(report))
        directory = str(report.path)
    prepared = prepare(
        invocation.get(ModelArguments),
        invocation.get(TemplateArguments),
        ckpt_dir=directory,
        given=invocation.set_by_a_person,
    )
    kind = None if prepared.checkpoint is None else prepared.checkpoint.kind
    if (
        kind is not None
        and not merge.merge_lora
        and invocation.values["sft_type"].source in ("cli", "config", "env")
        and checkpoint.sft_type != kind
    ):
        raise UsageError(
            f"--sft_type {checkpoint.sft_type}: {directory} was trained with {kind}; leave the flag out"
        )
    return prepared


def saved_unless_merged(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Take over what the checkpoint was made with; a model that is merged into is not quantized."""
    found = saved(values)
    if not values.get("merge_lora"):
        return found
    return {name: value for name, value in found.items() if name not in QUANTIZATION}


COMMAND = Command(
    "infer",
    "Answer a dataset, or chat in the terminal.",
    GROUPS,
    run,
    defaults={"max_length": -1},
    saved=saved_unless_merged,
    epilog="ft infer --ckpt_dir output/smollm2-135m-instruct/v0-20260101-120000/checkpoint-20",
)
