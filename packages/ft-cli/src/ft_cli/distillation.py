"""``ft rlhf --rlhf_type gkd``: a student learns from a teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ft_data
from ft_align.arguments import AlignArguments
from ft_align.online_arguments import OnlineArguments
from ft_cli.batches import Batches
from ft_cli.online import (
    job_parts,
    load_for_training,
    load_rows,
    open_for_answers,
    settle_weights_only,
)
from ft_cli.recipes import build_recipe
from ft_cli.rows import EncodedData
from ft_cli.training_job import TrainingJob, decide_loading
from ft_core.arguments import (
    GenerationArguments,
    LoadingArguments,
    ModelArguments,
    QuantizationArguments,
    TemplateArguments,
)
from ft_core.command import Invocation
from ft_core.errors import DependencyError, UsageError
from ft_core.hub import cache_directory
from ft_core.prepare import Prepared, prepare, to_stderr
from ft_core.runs import Run

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ft_core.models.memory import MemoryEstimate
    from ft_train import TrainingPlan, TrainResult


def distillation_job(invocation: Invocation) -> Distillation:
    """Load models' descriptions and rows of a run, and settle how it computes.

    Raises:
        UsageError: the teacher reads other tokens, or flags don't fit together.
        DataError: no row can be trained.
    """
    prepared, resume = open_for_answers(invocation)
    teacher = _teacher(invocation, prepared)
    how = decide_loading(invocation, prepared)
    recipe = build_recipe("sft", invocation)
    encoded = ft_data.encode(
        load_rows(invocation, require_answer=True).examples,
        recipe,
        prepared.chosen.template,
        cache_dir=cache_directory() / "encoded",
        say=to_stderr,
    )
    for line in encoded.report_lines():
        to_stderr(line)
    limit = invocation.get(TemplateArguments).max_length
    plain = Batches()
    data = EncodedData(encoded.samples, (), plain, plain, encoded.drops, limit)
    return Distillation(invocation, prepared, how, recipe, data, resume, teacher)


def _teacher(invocation: Invocation, student: Prepared) -> Prepared:
    flags = invocation.get(OnlineArguments)
    named = invocation.get(ModelArguments).model_copy(
        update={
            "model_type": flags.teacher_model_type,
            "model_id_or_path": flags.teacher_model_id_or_path,
            "model_revision": None,
        }
    )
    teacher = prepare(
        named,
        invocation.get(TemplateArguments),
        given=invocation.set_by_a_person - {"template_type"},
        say=to_stderr,
    )
    if not teacher.tokenizer.reads_like(student.tokenizer):
        raise UsageError(
            f"the teacher {teacher.name} reads other tokens than {student.name}, so what it would say next can't be "
            "learned; name a model with the same tokenizer"
        )
    return teacher


@dataclass(frozen=True, slots=True)
class Distillation(TrainingJob):
    """A run that learns from a teacher; no weights are loaded yet.

    Attributes:
        teacher: who teaches.
    """

    teacher: Prepared | None = None

    def settle(self, model: PreTrainedModel) -> tuple[TrainingPlan, MemoryEstimate]:
        """Settle every value of the run, with the memory that the student needs."""
        return settle_weights_only(self, model)

    def train(self, run: Run) -> TrainResult:
        """Load the weights and train them."""
        from ft_train.guests import train_by

        plan, estimate = self.settle(self.shapes())
        pushing = self.pushing(run)
        teacher = self.load_teacher()
        model = load_for_training(self, plan, estimate)
        sizes = [item.config.get_text_config().vocab_size for item in (model, teacher)]
        if sizes[0] != sizes[1]:
            raise UsageError(
                f"the teacher gives probabilities of {sizes[1]:,} tokens and the model of {sizes[0]:,}; name a teacher with "
                "as many"
            )
        return train_by(
            partial(self._trainer, model, teacher, plan, run.directory),
            plan,
            run.directory,
            name="gkd",
            callbacks=pushing,
            info={"model_info": {"name": self.prepared.name}, "dataset_info": self.data.counts()},
        )

    def load_teacher(self) -> PreTrainedModel:
        """Load the teacher, frozen."""
        teacher = self.teacher
        assert teacher is not None
        how = teacher.how(
            self.invocation.get(ModelArguments),
            quantized=self.invocation.get(QuantizationArguments),
            loading=self.invocation.get(LoadingArguments),
            max_length=self.invocation.get(TemplateArguments).max_length,
        )
        to_stderr(f"teacher    {teacher.name} ({how.dtype.name})")
        return teacher.load(how)

    def _trainer(
        self,
        model: PreTrainedModel,
        teacher: PreTrainedModel,
        plan: TrainingPlan,
        directory: Path,
        watchers: Sequence[Any],
    ) -> Any:
        try:
            from ft_align.online.distillation import DistillationJob, Lesson, distillation_trainer
        except ImportError as error:
            raise DependencyError(
                "--rlhf_type gkd", "TRL", "pip install 'ft-align[online]'"
            ) from error
        from ft_train.generation import question_of

        sequences = [sample.sequences[0] for sample in self.data.train_data().rows]  # type: ignore[union-attr]
        lessons = [
            Lesson(
                [*map(int, tokens.input_ids)],
                [bool(weight) for weight in tokens.loss_weights],
                [*map(int, question_of(tokens).prompt)],
            )
            for tokens in sequences
        ]
        parts = job_parts(self, model, plan, directory, self._method_settings())
        return distillation_trainer(
            DistillationJob(**parts, teacher=teacher, lessons=lessons), watchers
        )

    def _method_settings(self) -> dict[str, Any]:
        """Return what TRL calls the flags of the method."""
        flags = self.invocation.get(OnlineArguments)
        settings: dict[str, Any] = {
            "beta": self.invocation.get(AlignArguments).strength,
            "lmbda": flags.lmbda,
            "seq_kd": flags.seq_kd,
            "max_new_tokens": flags.max_completion_length,
        }
        if self.invocation.given("temperature"):
            settings["temperature"] = self.invocation.get(GenerationArguments).temperature
        return settings
