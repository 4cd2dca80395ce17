"""TRL's trainers of online methods, working on our model, prompts, optimizer and run directory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedModel, TrainerCallback
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from ft_align.online.prompts import Prompt, ids_by_text
from ft_align.online.rewards import Reward
from ft_align.online.running import InOurRun, TrainerJob


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineJob(TrainerJob):
    """What a run is made of.

    Attributes:
        method: ``grpo`` or ``rloo``.
        base: the directory of the weights before training, for the reference of whole models.
        prompts: what is asked.
        rewards: what is rewarded.
        weights: of the rewards; empty weighs each 1.
        beta: how strongly the model is kept near what it was.
    """

    method: str
    base: Path
    prompts: Sequence[Prompt]
    rewards: Sequence[Reward]
    weights: Sequence[float]
    beta: float


class _Rewarded(InOurRun):
    """Asks our prompts, and counts tokens."""

    def __init__(self, job: OnlineJob, **given: Any) -> None:
        self.job, self._ids = job, ids_by_text(job.prompts)
        super().__init__(**given)

    def _tokenize_prompts(
        self, prompts: Sequence[str]
    ) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [list(self._ids[prompt]) for prompt in prompts], None, {}

    def _calculate_rewards(
        self,
        inputs: Any,
        prompts: Sequence[str],
        completions: Sequence[str],
        completion_ids: Sequence[Sequence[int]],
    ) -> Any:
        answers = sum(map(len, completion_ids))
        self.trained_tokens += answers
        self.tokens += answers + sum(len(self._ids[prompt]) for prompt in prompts)
        return super()._calculate_rewards(inputs, prompts, completions, completion_ids)  # type: ignore[misc]


class _Grpo(_Rewarded, GRPOTrainer):  # type: ignore[misc]
    """GRPO (Shao et al. 2024, arXiv:2402.03300)."""


class _Rloo(_Rewarded, RLOOTrainer):  # type: ignore[misc]
    """RLOO (Ahmadian et al. 2024, arXiv:2402.14740)."""


_TRAINERS: Mapping[str, tuple[Any, Any]] = {
    "grpo": (_Grpo, GRPOConfig),
    "rloo": (_Rloo, RLOOConfig),
}


def online_trainer(job: OnlineJob, callbacks: Sequence[TrainerCallback]) -> Any:
    """Return TRL's trainer of a method for a run."""
    trainer_class, config_class = _TRAINERS[job.method]
    adapted = isinstance(job.model, PeftModel)
    # With an adapter the reference is the model without it; TRL would copy the adapter instead.
    settings = {**job.settings, "beta": 0.0 if adapted else job.beta}
    if job.weights:
        settings["reward_weights"] = list(job.weights)
    with _named(job.model, job.base):
        trainer = trainer_class(
            job,
            model=job.model,
            args=config_class(**settings),
            reward_funcs=list(job.rewards),
            train_dataset=Dataset.from_list([prompt.row() for prompt in job.prompts]),
            processing_class=job.tokenizer,
            callbacks=list(callbacks),
        )
    trainer.beta = job.beta
    trainer.drop_printers()
    return trainer


@contextmanager
def _named(model: PreTrainedModel, base: Path) -> Iterator[None]:
    """Let TRL find the weights for a reference, which it looks for by the model's name."""
    before = model.config._name_or_path
    model.config._name_or_path = str(base)
    try:
        yield
    finally:
        model.config._name_or_path = before
