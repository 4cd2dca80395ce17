"""``ft sft`` and ``ft pt``: load, encode, plan, train, report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ft_cli.recipes import build_recipe, pt_truncation
from ft_cli.rows import EncodedData, encode_data, show_sample
from ft_core.arguments import (
    LoadingArguments,
    LossArguments,
    ModelArguments,
    QuantizationArguments,
    TemplateArguments,
    VocabularyArguments,
)
from ft_core.checkpoints import open_checkpoint, saved_arguments, write_sidecars
from ft_core.command import Command, Invocation
from ft_core.errors import UsageError
from ft_core.launch import is_main, relaunch, world_size
from ft_core.models.how import How
from ft_core.prepare import Prepared, prepare, to_stderr
from ft_core.runs import Run
from ft_data.arguments import DataArguments, EncodingArguments, MixArguments
from ft_train.arguments import RunArguments, TrainingArguments
from ft_train.optimizer_arguments import OPTIMIZER_GROUPS
from ft_train.rules import check_rules, flags_without_effect
from ft_train.tuner_arguments import TUNER_GROUPS, TunerArguments

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ft_core.recipe import Recipe
    from ft_core.tuner import Tuner
    from ft_train import TrainingPlan, TrainResult

GROUPS = (
    ModelArguments,
    VocabularyArguments,
    QuantizationArguments,
    LoadingArguments,
    TemplateArguments,
    DataArguments,
    MixArguments,
    EncodingArguments,
    LossArguments,
    *TUNER_GROUPS,
    TrainingArguments,
    *OPTIMIZER_GROUPS,
    RunArguments,
)


def run(invocation: Invocation) -> None:
    """Train a model by the command's recipe."""
    if (code := relaunch("ft_cli", invocation.argv)) is not None:
        raise SystemExit(code)
    if not invocation.get(DataArguments).sources():
        raise UsageError(
            f"ft {invocation.command.name} needs rows: give --dataset with a file, a registered name "
            "(`ft list datasets`) or a hub id"
        )
    say = to_stderr if is_main() else _nothing
    recipe = build_recipe(invocation.command.name, invocation)
    for note in flags_without_effect(invocation):
        say(note)
    resume = _checkpoint_to_resume(invocation)
    prepared = prepare(
        invocation.get(ModelArguments),
        invocation.get(TemplateArguments),
        ckpt_dir=resume,
        new_tokens=invocation.get(VocabularyArguments).tokens(),
        given=invocation.set_by_a_person,
        say=say,
    )
    say(f"template   {prepared.chosen.template.name} ({prepared.chosen.reason})")
    how = _how(invocation, prepared)
    data = encode_data(invocation, prepared.chosen.template, recipe, say=say)
    job = _Job(invocation, prepared, how, recipe, data, resume)
    if invocation.dry_run:
        job.describe()
        return
    run = job.open_run()
    with run.recording():
        result = job.train(run)
        run.update(result=_summary(result))
    if is_main():
        _report(result, run.directory)
    if result.interrupted:
        raise KeyboardInterrupt


@dataclass(frozen=True, slots=True)
class _Job:
    """Everything a run needs, resolved; the weights are not loaded yet."""

    invocation: Invocation
    prepared: Prepared
    how: How
    recipe: Recipe
    data: EncodedData
    resume: str | None

    def describe(self) -> None:
        """Show what the run would do (``--dry_run``)."""
        model = self.attach(self.prepared.shapes(self.how))
        show_sample(self.prepared.chosen.template, self.data)
        self.explain(model, loaded=False)
        to_stderr("dry run: nothing was trained or written")

    def train(self, run: Run) -> TrainResult:
        """Load the weights and train them."""
        from transformers import set_seed

        from ft_core.tuners.backends import tuner_for
        from ft_train import train
        from ft_train.extras import Extras
        from ft_train.tuning import tuning_of

        set_seed(self.invocation.get(ModelArguments).seed)  # adapters begin with random weights
        model = self.prepared.load(self.how, for_training=True)
        if self.prepared.checkpoint is None or self.prepared.checkpoint.whole:
            model = self.attach(model)
        plan = self.explain(model, loaded=True)
        tuner, tuning = self.invocation.get(TunerArguments), tuning_of(self.invocation, plan)
        arguments = self.invocation.get(RunArguments)
        return train(
            self.recipe,
            model,
            tuner_for(tuner.sft_type, tuner.tuner_backend),
            self.data.train_data(),
            plan,
            run.directory,
            sidecars=partial(_write_sidecars, self.prepared, self.saved_values()),
            resume=Path(self.resume) if self.resume and not arguments.resume_only_model else None,
            extras=Extras(optimizer=tuning.optimizer, penalty=tuning.penalty),
            callbacks=tuning.watchers,
            info={"model_info": {"name": self.prepared.name}, "dataset_info": self.data.counts()},
        )

    def attach(self, model: PreTrainedModel) -> PreTrainedModel:
        """Make the model trainable."""
        from ft_core.tuners import TUNERS
        from ft_train.looking import run_on_rows
        from ft_train.tuner_settings import ModelFacts, tuner_settings

        spec = self.prepared.source.spec
        tuner: Tuner = TUNERS.get(self.invocation.get(TunerArguments).sft_type)
        facts = ModelFacts(
            default_targets=() if spec is None else spec.target_modules,
            new_token_ids=self.prepared.new_token_ids,
            run=lambda model: run_on_rows(model, self.recipe, self.data.train_data()),
        )
        return tuner.apply(model, tuner_settings(self.invocation, facts))

    def explain(self, model: PreTrainedModel, *, loaded: bool) -> TrainingPlan:
        """Settle the plan and print it."""
        from ft_core.models.memory import estimate_training
        from ft_core.tuners import count_parameters
        from ft_train import derive

        training, how = self.invocation.get(TrainingArguments), self.how
        tokens, trained = self.data.largest(training.batch_size)
        estimate = estimate_training(
            model,
            tokens=tokens,
            trained=trained,
            device=how.device,
            loaded=loaded,
            weight_bits=how.weight_bits,
        )
        plan = derive(
            self.invocation.get(TunerArguments),
            training,
            self.invocation.get(RunArguments),
            items=self.data.train_data().items,
            evaluation_items=len(self.data.evaluation),
            seed=self.invocation.get(ModelArguments).seed,
            given=self.invocation.set_by_a_person,
            world_size=world_size(),
            device=how.device.partition(":")[0],
            dtype=how.dtype.name,
            checkpointing_needed=estimate.needs_checkpointing,
        )
        if is_main():
            for line in (
                *how.lines(),
                *estimate.lines(),
                str(count_parameters(model)),
                *plan.lines(),
            ):
                to_stderr(line)
        return plan

    def saved_values(self) -> dict[str, Any]:
        """Return the arguments a checkpoint keeps, with what was AUTO settled."""
        template = self.prepared.chosen.template
        settled: dict[str, Any] = {
            "dtype": self.how.dtype.name,
            "template_type": template.name,
            "tools_prompt": template.tools_prompt
            if self.invocation.given("tools_prompt")
            else None,
        }
        if self.invocation.command.name == "pt":
            settled["truncation_strategy"] = pt_truncation(self.invocation)
        if self.how.quantization is not None:
            settled["quant_method"] = self.how.quantization.method
            settled["quantization_bit"] = self.how.quantization.bits
        if template.date is not None:
            settled["template_date"] = template.date.isoformat()
        return {**self.invocation.plain(), **settled}

    def open_run(self) -> Run:
        """Make the run directory, or continue in that of the checkpoint."""
        arguments = self.invocation.get(RunArguments)
        command = self.invocation.command.name
        if self.resume is not None and not arguments.resume_only_model:
            directory = Path(self.resume).parent
            return Run.open(
                directory,
                command=command,
                argv=self.invocation.argv,
                arguments=self.invocation.plain(),
            )
        run = Run.create(
            command=command,
            argv=self.invocation.argv,
            arguments=self.invocation.plain(),
            output_dir=arguments.output_dir,
            model_name=self.prepared.name,
            add_suffix=arguments.add_output_dir_suffix,
        )
        run.save_arguments()
        return run


def _how(invocation: Invocation, prepared: Prepared) -> How:
    """Decide how the weights are loaded, and refuse what can't work before rows are encoded."""
    how = prepared.how(
        invocation.get(ModelArguments),
        quantized=invocation.get(QuantizationArguments),
        loading=invocation.get(LoadingArguments),
        max_length=invocation.get(TemplateArguments).max_length,
        sft_type=invocation.get(TunerArguments).sft_type,
    )
    if how.placement is not None and world_size() > 1:
        raise UsageError(
            "--device_map_config_path and --device_max_memory divide one model over GPUs of one process, and "
            f"{world_size()} processes train here, each with a model of its own; leave them or NPROC_PER_NODE out"
        )
    return how


def _checkpoint_to_resume(invocation: Invocation) -> str | None:
    arguments = invocation.get(RunArguments)
    if arguments.resume_from_checkpoint is None:
        return None
    from ft_train import find_checkpoint

    path = find_checkpoint(arguments.resume_from_checkpoint, arguments.output_dir)
    kind, wanted = open_checkpoint(path).kind, invocation.get(TunerArguments).sft_type
    if kind != wanted:
        raise UsageError(
            f"--resume_from_checkpoint {path}: was trained with --sft_type {kind}, not {wanted}; give the same"
        )
    return str(path)


def _saved(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Take from the checkpoint that is resumed what decides about its model."""
    if values.get("resume_from_checkpoint") is None:
        return {}
    from ft_train import find_checkpoint

    return saved_arguments(find_checkpoint(values["resume_from_checkpoint"], values["output_dir"]))


def _write_sidecars(prepared: Prepared, arguments: Mapping[str, Any], directory: Path) -> None:
    write_sidecars(
        directory,
        tokenizer=prepared.tokenizer,
        chat_template=prepared.chosen.template.to_jinja(),
        generation_config=prepared.generation_config(),
        arguments=arguments,
    )


def _summary(result: TrainResult) -> dict[str, Any]:
    return {
        "global_step": result.global_step,
        "final_loss": result.final_loss,
        "best_metric": result.best_metric,
        "best_checkpoint": str(result.best_checkpoint) if result.best_checkpoint else None,
        "last_checkpoint": str(result.last_checkpoint) if result.last_checkpoint else None,
        "memory_gib": result.memory_gib,
        "trained_tokens": result.trained_tokens,
        "interrupted": result.interrupted,
        "log_history": list(result.log_history),
    }


def _report(result: TrainResult, directory: Path) -> None:
    print(f"run directory: {directory}")
    print(f"best checkpoint: {result.best_checkpoint}")
    print(f"last checkpoint: {result.last_checkpoint}")
    if result.best_checkpoint is not None:
        print(f"try it: ft infer --ckpt_dir {result.best_checkpoint}")
    for reason, count in result.dropped.items():
        print(f"dropped while training: {count} ({reason})")


def _nothing(text: str) -> None:
    """Say nothing: only the first process speaks."""


SFT = Command(
    "sft",
    "Fine-tune a model on conversations.",
    GROUPS,
    run,
    saved=_saved,
    checks=(check_rules,),
    dry_run=True,
    epilog="ft sft --model_type smollm2-135m-instruct --dataset rows.jsonl --lora_rank 16",
)

PT = Command(
    "pt",
    "Continue pre-training a model on plain text.",
    GROUPS,
    run,
    defaults={
        "sft_type": "full",
        "target_modules": ["ALL"],
        "lazy_tokenize": True,
        "eval_steps": 500,
    },
    saved=_saved,
    checks=(check_rules,),
    dry_run=True,
    epilog="ft pt --model_type smollm2-135m-instruct --dataset texts.jsonl --max_length 1024",
)
