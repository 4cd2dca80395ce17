"""``ft export``: merge, quantize, convert and publish a model, and prove that it still works."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ft_cli.commands.infer import GROUPS as INFER_GROUPS
from ft_cli.commands.infer import QUANTIZATION
from ft_core.arguments import (
    GenerationArguments,
    ModelArguments,
    QuantizationArguments,
    TemplateArguments,
)
from ft_core.command import Command, Invocation
from ft_core.prepare import Prepared, prepare, to_stderr
from ft_quant.arguments import MergeArguments
from ft_quant.export_arguments import (
    ConvertArguments,
    ProofArguments,
    PublishArguments,
    QuantizeArguments,
)
from ft_quant.plan import Plan, plan_export
from ft_serve.arguments import CheckpointArguments
from ft_serve.infer_command import saved

OWN = (QuantizeArguments, ConvertArguments, ProofArguments, PublishArguments)

GROUPS = (*(group for group in INFER_GROUPS if group is not QuantizationArguments), *OWN)

EFFECTIVE = frozenset(
    {
        *(name for group in (*OWN, MergeArguments, ModelArguments) for name in group.model_fields),
        *(
            name
            for group in (CheckpointArguments, TemplateArguments)
            for name in group.model_fields
        ),
        *("dataset", "val_dataset", "dataset_seed", "check_dataset_strategy"),
        *("custom_dataset_info", "model_name", "model_author", "self_cognition_sample"),
        *("custom_train_dataset_path", "custom_val_dataset_path", "ignore_args_error"),
    }
) - {"use_flash_attn", "load_dataset_config"}
"""Flags that say something about every export."""

SAMPLING = frozenset({"temperature", "top_k", "top_p", "repetition_penalty", "do_sample"})
"""Flags that a Modelfile takes over."""


def run(invocation: Invocation) -> None:
    """Decide what is made, make it, say where it is."""
    from ft_cli.export_texts import texts_of
    from ft_quant.source_checks import check_source

    _say_what_has_no_effect(invocation)
    prepared = _prepare(invocation)
    plan = _plan(invocation, prepared)
    for note in plan.notes:
        to_stderr(note)
    check_source(
        prepared,
        plan,
        invocation.get(QuantizeArguments),
        invocation.get(ConvertArguments),
        invocation.get(ProofArguments),
    )
    if invocation.dry_run:
        from ft_quant.dry_run import describe

        for line in describe(
            prepared, plan, invocation.get(QuantizeArguments), invocation.get(ConvertArguments)
        ):
            print(line)
        to_stderr("dry run: nothing was made or written")
        return
    from ft_quant.export import ExportJob, export
    from ft_quant.publish import check_pushable, open_repository, publish

    publishing = invocation.get(PublishArguments)
    if publishing.push_to_hub:
        check_pushable(prepared, makes=bool(set(plan.targets) - {"ollama"}))
    repository = open_repository(publishing)
    texts = texts_of(invocation, prepared, plan)
    job = ExportJob(
        prepared=prepared,
        plan=plan,
        texts=texts,
        quantize=invocation.get(QuantizeArguments),
        convert=invocation.get(ConvertArguments),
        proof=invocation.get(ProofArguments),
        sampling=invocation.get(GenerationArguments),
        say=to_stderr,
        merge_device=invocation.get(MergeArguments).merge_device_map,
        safetensors=invocation.get(MergeArguments).save_safetensors,
        max_length=invocation.get(TemplateArguments).max_length,
    )
    made = export(job)
    for item in made:
        print(item)
    if repository is not None:
        publish(repository, made, prepared, message=publishing.commit_message, say=to_stderr)


def _prepare(invocation: Invocation) -> Prepared:
    """Find the model; a checkpoint's own arguments are those of the invocation."""
    return prepare(
        invocation.get(ModelArguments),
        invocation.get(TemplateArguments),
        ckpt_dir=invocation.get(CheckpointArguments).ckpt_dir,
        given=invocation.set_by_a_person,
    )


def _plan(invocation: Invocation, prepared: Prepared) -> Plan:
    return plan_export(
        prepared.name,
        prepared.checkpoint,
        merge_lora=invocation.get(MergeArguments).merge_lora,
        quantize=invocation.get(QuantizeArguments),
        convert=invocation.get(ConvertArguments),
        push=invocation.get(PublishArguments).push_to_hub,
    )


def _say_what_has_no_effect(invocation: Invocation) -> None:
    """Exporting takes the flags of infer, of which many say how to answer."""
    effective = EFFECTIVE - invocation.get(QuantizeArguments).without_effect()
    if invocation.get(ConvertArguments).to_ollama:
        effective |= SAMPLING
    for name, item in invocation.values.items():
        if item.source in ("cli", "config", "env") and name not in effective:
            to_stderr(f"--{name} has no effect on this export")


def _saved(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Take over what the checkpoint was made with, but not that its base was quantized."""
    return {name: value for name, value in saved(values).items() if name not in QUANTIZATION}


COMMAND = Command(
    "export",
    "Merge, quantize, convert and publish a model, and prove that it works.",
    GROUPS,
    run,
    defaults={"max_length": -1},
    saved=_saved,
    dry_run=True,
    epilog="ft export --ckpt_dir output/smollm2-135m-instruct/v0-20260101-120000/checkpoint-20 "
    "--merge_lora true --quant_bits 4 --quant_method gptq",
)
