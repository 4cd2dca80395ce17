"""``ft rlhf --rlhf_type grpo|rloo``: prompts in, answers rewarded while the model is trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import ft_data
from ft_align.arguments import AlignArguments
from ft_align.online.prompts import Prompt, ids_by_text, prompts_of
from ft_align.online_arguments import OnlineArguments
from ft_cli.batches import Batches
from ft_cli.opening import open_model
from ft_cli.recipes import build_recipe
from ft_cli.rows import EncodedData
from ft_cli.training_job import TrainingJob, decide_loading, write_beside
from ft_core.arguments import GenerationArguments, ModelArguments
from ft_core.command import Invocation
from ft_core.errors import DependencyError, UsageError
from ft_core.prepare import Prepared, to_stderr
from ft_core.runs import Run
from ft_core.samples import Sample, Tokens
from ft_data.arguments import DataArguments, MixArguments
from ft_train.tuner_arguments import TunerArguments

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ft_align.online.rewards import Reward, Score
    from ft_core.models.memory import MemoryEstimate
    from ft_train import TrainingPlan, TrainResult


def online_job(invocation: Invocation) -> OnlineTraining:
    """Load model, format and prompts of a run, and settle how it computes.

    Raises:
        UsageError: flags, the chat format and the method don't fit together.
        DataError: a row has nothing to ask.
    """
    prepared, resume = open_for_answers(invocation)
    how = decide_loading(invocation, prepared)
    prompts = _prompts(invocation, prepared)
    groups = invocation.get(OnlineArguments).num_generations
    samples = [
        Sample((Tokens(item.ids, [0.0] * len(item.ids)),), row) for row, item in enumerate(prompts)
    ]
    data = EncodedData(
        [sample for sample in samples for _ in range(groups)],  # one for each answer
        (),
        Batches(),
        Batches(),
        Counter(),
        max(sample.length for sample in samples),
    )
    recipe = build_recipe("sft", invocation)  # tuners look at prompts by its batches
    return OnlineTraining(invocation, prepared, how, recipe, data, resume, prompts)


def open_for_answers(invocation: Invocation) -> tuple[Prepared, str | None]:
    """Open the model that is trained (``open_model``) and answers meanwhile.

    Raises:
        UsageError: the format ends answers in a way that TRL can't wait for.
    """
    prepared, resume = open_model(invocation, to_stderr)
    if not prepared.chosen.template.stop_token_ids:
        raise UsageError(
            f"--template_type {prepared.chosen.template.name} ends answers by text and not by a token, which TRL can't "
            "wait for; choose another"
        )
    return prepared, resume


def load_rows(invocation: Invocation, *, require_answer: bool) -> ft_data.Rows:
    """Load the rows; all of them are trained."""
    flags = invocation.get(DataArguments).model_copy(update={"dataset_test_ratio": 0.0})
    loaded = ft_data.load_given(
        flags,
        seed=invocation.get(ModelArguments).seed,
        mixing=invocation.get(MixArguments),
        require_answer=require_answer,
    )
    for line in loaded.train.report.lines():
        to_stderr(line)
    return loaded.train


def load_for_training(
    training: TrainingJob, plan: TrainingPlan, estimate: MemoryEstimate
) -> PreTrainedModel:
    """Load the weights with their trainable part."""
    from transformers import set_seed

    from ft_core.tuners import count_parameters
    from ft_train import limit_gpu_memory

    training.explain(plan, estimate)
    prepared = training.prepared
    limit_gpu_memory(plan.gpu_memory_fraction, training.how.device)
    set_seed(plan.seed)  # adapters begin with random weights
    model = prepared.load(training.how, for_training=True)
    if prepared.checkpoint is None or prepared.checkpoint.whole:
        model = training.attach(model, plan.steps)
    model.generation_config = prepared.generation_config()
    to_stderr(str(count_parameters(model)))
    return model


def settle_weights_only(
    training: TrainingJob, model: PreTrainedModel
) -> tuple[TrainingPlan, MemoryEstimate]:
    """Settle every value of a run whose checkpoints hold weights only, with the memory it needs."""
    from ft_train import accumulation_steps
    from ft_train.arguments import TrainingArguments

    flags = training.invocation.get(TrainingArguments)
    estimate = training.estimate(model, flags.batch_size, accumulation_steps(flags, 1))
    plan = training.plan(estimate)
    reasons = {**plan.reasons, "save_only_model": "such a run can't be resumed"}
    return replace(plan, save_only_model=True, reasons=reasons), estimate


def _prompts(invocation: Invocation, prepared: Prepared) -> list[Prompt]:
    """Load the rows, and tell what was cut."""
    rows = load_rows(invocation, require_answer=False)
    limit = invocation.get(AlignArguments).max_prompt_length
    prompts = prompts_of(rows.examples, prepared.chosen.template, max_prompt_length=limit)
    if cut := sum(prompt.cut > 0 for prompt in prompts):
        to_stderr(f"{cut:,} prompts are cut to their ends, by --max_prompt_length {limit}")
    lacking = sum(not prompt.answer for prompt in prompts)
    if lacking and "exact" in invocation.get(OnlineArguments).reward_funcs:
        raise UsageError(
            f"--reward_funcs exact: {lacking:,} of {len(prompts):,} rows have no answer to compare with; give them one, or "
            "use another reward"
        )
    return prompts


@dataclass(frozen=True, slots=True)
class OnlineTraining(TrainingJob):
    """A run that learns from rewards; the weights are not loaded yet.

    Attributes:
        prompts: what is asked.
    """

    prompts: Sequence[Prompt] = ()

    def describe(self) -> None:
        """Show what the run would do (``--dry_run``)."""
        from ft_core.tuners import count_parameters

        model = self.shapes()
        print(self.prompts[0].text)
        self.explain(*self.settle(model))
        to_stderr(str(count_parameters(model)))
        to_stderr("dry run: nothing was trained or written")

    def settle(self, model: PreTrainedModel) -> tuple[TrainingPlan, MemoryEstimate]:
        """Settle every value of the run, with the memory it needs.

        Raises:
            UsageError: a step can't be divided into groups of answers.
        """
        plan, estimate = settle_weights_only(self, model)
        groups, rows = self.invocation.get(OnlineArguments).num_generations, plan.rows_per_step
        if rows % groups:
            raise UsageError(
                f"--batch_size {plan.batch_size} and --gradient_accumulation_steps {plan.gradient_accumulation_steps} make "
                f"steps of {rows} answers, which aren't groups of --num_generations {groups}; make their product a "
                "multiple of it"
            )
        return plan, estimate

    def estimate(
        self, model: PreTrainedModel, batch_size: int, accumulation: int
    ) -> MemoryEstimate:
        """Estimate the memory of micro-batches of so many answers."""
        from ft_core.models.memory import estimate_training

        longest = self.invocation.get(OnlineArguments).max_completion_length
        return estimate_training(
            model,
            tokens=batch_size * (self.data.max_length + longest),
            trained=batch_size * longest,
            device=self.how.device,
            weight_bits=self.how.weight_bits,
            accumulates=accumulation > 1,
        )

    def train(self, run: Run) -> TrainResult:
        """Load the weights and train them."""
        from ft_train.guests import train_by

        plan, estimate = self.settle(self.shapes())
        pushing, rewards = self.pushing(run), self.rewards()
        model = load_for_training(self, plan, estimate)
        return train_by(
            partial(self._trainer, model, plan, rewards, run.directory),
            plan,
            run.directory,
            name=self.invocation.get(AlignArguments).rlhf_type,
            callbacks=pushing,
            info={
                "model_info": {"name": self.prepared.name},
                "dataset_info": {"prompts": len(self.prompts)},
            },
        )

    def rewards(self) -> list[Reward]:
        """Return what rewards answers.

        Raises:
            UsageError: a name is unknown, or what it points to is not there.
        """
        from ft_align.online.rewards import Makings, make_rewards

        flags = self.invocation.get(OnlineArguments)
        makings = Makings(
            flags.reward_format,
            flags.max_completion_length,
            ids_by_text(self.prompts),
            flags.judge_model,
            self._reward_model,
        )
        return make_rewards(flags.reward_funcs, makings)

    def _reward_model(self, directory: Path) -> Score:
        from ft_align.online.scoring import RewardModel

        return RewardModel.open(
            directory,
            self.prepared.tokenizer,
            dtype=self.how.dtype.torch,
            device=self.how.device,
        )

    def _trainer(
        self,
        model: PreTrainedModel,
        plan: TrainingPlan,
        rewards: Sequence[Reward],
        directory: Path,
        watchers: Sequence[Any],
    ) -> Any:
        try:
            from ft_align.online.trainers import OnlineJob, online_trainer
        except ImportError as error:
            method = self.invocation.get(AlignArguments).rlhf_type
            raise DependencyError(
                f"--rlhf_type {method}", "TRL", "pip install 'ft-align[online]'"
            ) from error
        flags = self.invocation.get(AlignArguments)
        checkpoint = self.prepared.checkpoint
        job = OnlineJob(
            **job_parts(self, model, plan, directory, self._method_settings()),
            method=flags.rlhf_type,
            base=self.prepared.directory if checkpoint is None else checkpoint.path,
            prompts=self.prompts,
            rewards=rewards,
            weights=self.invocation.get(OnlineArguments).reward_weights,
            beta=flags.strength,
        )
        return online_trainer(job, watchers)

    def _method_settings(self) -> dict[str, Any]:
        """Return what TRL calls the flags of the method and of sampling."""
        flags, sampling = (
            self.invocation.get(OnlineArguments),
            self.invocation.get(GenerationArguments),
        )
        align, given = self.invocation.get(AlignArguments), self.invocation.set_by_a_person
        names = ("temperature", "top_k", "top_p", "repetition_penalty")
        settings: dict[str, Any] = {
            "num_generations": flags.num_generations,
            "max_completion_length": flags.max_completion_length,
            # A reference of whole models is loaded by TRL.
            "model_init_kwargs": {"dtype": self.how.dtype.torch},
            **{name: getattr(sampling, name) for name in names if name in given},
        }
        if align.rlhf_type == "grpo":
            settings["loss_type"] = align.loss(given)
        return settings


def job_parts(
    training: TrainingJob,
    model: PreTrainedModel,
    plan: TrainingPlan,
    directory: Path,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Return what any of TRL's trainers is given of a run, by the names of ``TrainerJob``."""
    from ft_core.tuners.backends import tuner_for
    from ft_train.compat import settings_for_others
    from ft_train.run_options import OPTIMIZERS
    from ft_train.tuning import tuning_of

    invocation, prepared = training.invocation, training.prepared
    flags = invocation.get(TunerArguments)
    tuner, arguments = tuner_for(flags.sft_type, flags.tuner_backend), training.saved_values()

    def write(trained: PreTrainedModel, place: Path) -> None:
        tuner.save(trained, place, safe_serialization=plan.save_safetensors)
        write_beside(prepared, arguments, place)

    factory = tuning_of(invocation, plan).optimizer or OPTIMIZERS.get(plan.optim)
    make = None if factory is None else lambda inner, decayed: factory(inner, plan, decayed)
    return {
        "model": model,
        "tokenizer": _transformers_tokenizer(prepared),
        "settings": {
            **settings_for_others(plan, directory),
            "dataloader_num_workers": 0,
            **settings,
        },
        "write": write,
        "keep": plan.save_total_limit,
        "optimizer": make,
    }


def _transformers_tokenizer(prepared: Prepared) -> Any:
    """Return transformers' own form of the tokenizer, with tokens that were added."""
    from transformers import AutoTokenizer

    with TemporaryDirectory() as folder:
        prepared.tokenizer.save(folder, chat_template=prepared.chosen.template.to_jinja())
        return AutoTokenizer.from_pretrained(folder, padding_side="left")
