"""A training command with everything resolved: what it will do, and doing it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ft_cli.alignment import align, check_step, learns_scores, settled_values
from ft_cli.recipes import pt_truncation
from ft_cli.rows import EncodedData, show_sample
from ft_core.arguments import (
    GenerationArguments,
    LoadingArguments,
    ModelArguments,
    QuantizationArguments,
    TemplateArguments,
)
from ft_core.checkpoints import write_sidecars
from ft_core.command import Invocation
from ft_core.errors import UsageError
from ft_core.launch import is_main, world_size
from ft_core.models.how import How
from ft_core.prepare import Prepared, to_stderr
from ft_core.runs import Run
from ft_train.arguments import RunArguments, TrainingArguments
from ft_train.distributed_arguments import DistributedArguments
from ft_train.evaluation_arguments import EvaluationArguments
from ft_train.push_arguments import PushArguments
from ft_train.tower_arguments import TowerArguments
from ft_train.tuner_arguments import TunerArguments

if TYPE_CHECKING:
    from transformers import PreTrainedModel, TrainerCallback

    from ft_core.models.memory import MemoryEstimate
    from ft_core.recipe import Recipe
    from ft_core.tuner import Tuner
    from ft_train import TrainingPlan, TrainResult
    from ft_train.duration import Duration
    from ft_train.generation import AnswerSettings


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """Everything a run needs; the weights are not loaded yet.

    Attributes:
        invocation: the command with its arguments.
        prepared: the model, its tokenizer and chat format.
        how: how the weights are loaded.
        recipe: what is learned.
        data: the rows.
        resume: the checkpoint to go on from.
    """

    invocation: Invocation
    prepared: Prepared
    how: How
    recipe: Recipe
    data: EncodedData
    resume: str | None

    def describe(self) -> None:
        """Show what the run would do (``--dry_run``)."""
        from ft_core.tuners import count_parameters

        model = self.shapes()
        show_sample(self.prepared.chosen.template, self.data)
        plan, estimate = self.settle(model)
        self.explain(plan, estimate)
        to_stderr(self.duration(model, plan).line())
        to_stderr(str(count_parameters(model)))
        to_stderr("dry run: nothing was trained or written")

    def train(self, run: Run) -> TrainResult:
        """Load the weights and train them."""
        from transformers import set_seed

        from ft_core.tuners import count_parameters
        from ft_core.tuners.backends import tuner_for
        from ft_train import Extras, limit_gpu_memory, train
        from ft_train.tuning import tuning_of

        plan, estimate = self.settle(self.shapes())
        self.explain(plan, estimate)
        pushing = self.pushing(run)
        limit_gpu_memory(plan.gpu_memory_fraction, self.how.device)
        set_seed(plan.seed)  # adapters begin with random weights
        # Weights that are divided over processes never lie whole on a GPU.
        how = replace(self.how, device="cpu") if plan.division.divides_weights else self.how
        model = self.prepared.load(how, for_training=True)
        if self.prepared.checkpoint is None or self.prepared.checkpoint.whole:
            model = self.attach(model, plan.steps)
        if is_main():
            to_stderr(str(count_parameters(model)))
        aligned = align(self.invocation, self.prepared, self.how, model, self.data.train_data())
        new_run = self.invocation.get(RunArguments).resume_only_model
        tuner, tuning = self.invocation.get(TunerArguments), tuning_of(self.invocation, plan)
        return train(
            self.recipe,
            model,
            tuner_for(tuner.sft_type, tuner.tuner_backend),
            aligned.data,
            plan,
            run.directory,
            sidecars=partial(write_beside, self.prepared, self.saved_values()),
            resume=Path(self.resume) if self.resume and not new_run else None,
            reference=aligned.reference,
            extras=Extras(
                optimizer=tuning.optimizer,
                penalty=tuning.penalty,
                answers=self.answers(),
                name_row=self.data.place_of,
                estimate=estimate,
                keeper=tuning.keeper,
            ),
            callbacks=(*tuning.watchers, *pushing, *aligned.watchers),
            info={"model_info": {"name": self.prepared.name}, "dataset_info": self.data.counts()},
        )

    def shapes(self) -> PreTrainedModel:
        """Return the model with what is trained attached, but without weights."""
        return self.attach(self.prepared.shapes(self.how))

    def attach(self, model: PreTrainedModel, steps: int | None = None) -> PreTrainedModel:
        """Make the model trainable, for so many optimizer steps."""
        from ft_core.tuners import TUNERS
        from ft_train.towers import check_towers, default_targets, freeze
        from ft_train.tuner_settings import ModelFacts, tuner_settings

        spec, towers = self.prepared.source.spec, self.invocation.get(TowerArguments)
        check_towers(model, self.invocation)
        chosen = default_targets(model, towers)
        registered = () if spec is None else spec.target_modules
        tuner: Tuner = TUNERS.get(self.invocation.get(TunerArguments).sft_type)
        longest = self.invocation.get(TemplateArguments).max_length
        facts = ModelFacts(
            default_targets=registered if chosen is None else chosen,
            new_token_ids=self.prepared.new_token_ids,
            total_steps=steps,
            max_length=longest if longest > 0 else None,
            run=self.run_on_rows,
        )
        attached = tuner.apply(model, tuner_settings(self.invocation, facts))
        if self.invocation.get(TunerArguments).sft_type == "full":
            freeze(attached, towers)
        return attached

    def readers(self) -> int:
        """Return how many processes, or groups that hold sequences together, have rows of their own."""
        size = self.invocation.get(DistributedArguments).sequence_parallel_size
        return max(1, world_size() // size)

    def run_on_rows(self, model: PreTrainedModel) -> None:
        """Run the model on the first rows, for tuners that look at what goes through it."""
        from ft_train.looking import run_on_rows

        run_on_rows(model, self.recipe, self.data.train_data())

    def settle(self, model: PreTrainedModel) -> tuple[TrainingPlan, MemoryEstimate]:
        """Settle every value of the run, with the memory it needs."""
        from ft_cli.joining import join
        from ft_train import accumulation_steps

        def estimate(plan: TrainingPlan) -> MemoryEstimate:
            return self.estimate(model, plan.batch_size, plan.gradient_accumulation_steps)

        training = self.invocation.get(TrainingArguments)
        steps = accumulation_steps(training, self.readers())
        plan = self.plan(self.estimate(model, training.batch_size, steps))
        plan = join(self, model, plan, estimate)
        return plan, estimate(plan)

    def estimate(
        self, model: PreTrainedModel, batch_size: int, accumulation: int
    ) -> MemoryEstimate:
        """Estimate the memory of micro-batches of so many rows, so many a step."""
        from ft_core.models.memory import estimate_training

        tokens, trained = self.data.largest(batch_size)
        if self.how.scores:
            trained = 0  # there are no logits
        return estimate_training(
            model,
            tokens=tokens,
            trained=trained,
            device=self.how.device,
            weight_bits=self.how.weight_bits,
            accumulates=accumulation > 1,
        )

    def duration(self, model: PreTrainedModel, plan: TrainingPlan) -> Duration:
        """Estimate the time of the run."""
        from ft_train.duration import estimate_duration

        typical = self.data.typical()
        tokens, trained = typical or self.data.largest(1)
        return estimate_duration(
            model,
            plan,
            tokens=tokens,
            trained=trained,
            dtype=self.how.dtype.torch,
            at_most=typical is None,
        )

    def plan(self, estimate: MemoryEstimate) -> TrainingPlan:
        """Settle every value of the run, with the micro-batches that were asked for."""
        from ft_train import derive

        data = self.data.train_data()
        plan = derive(
            self.invocation.get(TunerArguments),
            self.invocation.get(TrainingArguments),
            self.invocation.get(RunArguments),
            self.invocation.get(EvaluationArguments),
            items=data.items,
            evaluation_items=data.evaluation_items,
            seed=self.invocation.get(ModelArguments).seed,
            given=self.invocation.set_by_a_person,
            world_size=world_size(),
            device=self.how.device.partition(":")[0],
            dtype=self.how.dtype.name,
            checkpointing_needed=estimate.needs_checkpointing,
            division=self.invocation.get(DistributedArguments).division(),
        )
        check_step(self.invocation, plan)
        return plan

    def explain(self, plan: TrainingPlan, estimate: MemoryEstimate) -> None:
        """Say what was decided and why."""
        if is_main():
            for line in (
                *self.how.lines(),
                *estimate.lines(checkpointing=plan.gradient_checkpointing),
                *plan.lines(),
            ):
                to_stderr(line)

    def answers(self) -> AnswerSettings | None:
        """Return how the model answers while it is trained; ``None`` where it gives scores."""
        if self.how.scores:
            return None
        from ft_train.generation import AnswerSettings

        tokenizer, template = self.prepared.tokenizer, self.prepared.chosen.template
        return AnswerSettings(
            partial(tokenizer.decode, skip_special_tokens=True),
            template.stop_token_ids,
            template.stop_strings,
            tokenizer.pad_token_id or 0,
            self.invocation.get(GenerationArguments).sampling(),
        )

    def pushing(self, run: Run) -> tuple[TrainerCallback, ...]:
        """Return what pushes checkpoints to a hub; its repository is opened now, before time is spent."""
        arguments = self.invocation.get(PushArguments)
        if not arguments.push_to_hub or not is_main():
            return ()
        from ft_core.hub import open_destination
        from ft_core.models.resolution import use_hugging_face
        from ft_train.callbacks.push import PushCheckpoints

        sft_type = self.invocation.get(TunerArguments).sft_type
        destination = open_destination(
            arguments.hub_model_id or f"{self.prepared.name}-{sft_type}",
            hub="huggingface" if use_hugging_face() else "modelscope",
            token=arguments.hub_token,
            private=arguments.hub_private_repo,
        )
        to_stderr(f"hub        {destination} ({arguments.push_hub_strategy})")
        return (PushCheckpoints(destination, arguments.push_hub_strategy, run.directory),)

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
        return {**self.invocation.plain(), **settled, **settled_values(self.invocation)}

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


def decide_loading(invocation: Invocation, prepared: Prepared) -> How:
    """Decide how the weights are loaded, and refuse what can't work before rows are encoded.

    Raises:
        UsageError: flags that can't work together, with this model or on this machine.
        DependencyError: what quantization needs is not installed.
    """
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
    return replace(how, scores=learns_scores(invocation))


def write_beside(prepared: Prepared, arguments: Mapping[str, Any], directory: Path) -> None:
    """Write what belongs beside the weights of a checkpoint."""
    write_sidecars(
        directory,
        tokenizer=prepared.tokenizer,
        chat_template=prepared.chosen.template.to_jinja(),
        generation_config=prepared.generation_config(),
        arguments=arguments,
        processor=None if prepared.media is None else prepared.media.directory,
    )
