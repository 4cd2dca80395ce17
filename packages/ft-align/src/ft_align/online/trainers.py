"""TRL's trainers of online methods, working on our model, prompts, optimizer and run directory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedModel, TrainerCallback
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from ft_align.online.prompts import Prompt, ids_by_text
from ft_align.online.rewards import Reward
from ft_core.checkpoints import atomic_directory, prune

Write = Callable[[PreTrainedModel, Path], None]
MakeOptimizer = Callable[[PreTrainedModel, frozenset[str]], torch.optim.Optimizer]


@dataclass(frozen=True, slots=True)
class OnlineJob:
    """What a run is made of.

    Attributes:
        method: ``grpo`` or ``rloo``.
        model: with its trainable part attached; its generation config says what ends an answer.
        base: the directory of its weights before training, for the reference of whole models.
        tokenizer: transformers' own, for decoding.
        prompts: what is asked.
        rewards: what is rewarded.
        weights: of the rewards; empty weighs each 1.
        beta: how strongly the model is kept near what it was.
        settings: values of transformers' training arguments and of the method, by name.
        write: writes the model into a checkpoint.
        keep: how many checkpoints stay; ``None`` keeps all.
        optimizer: makes the optimizer in place of the one that settings name.
    """

    method: str
    model: PreTrainedModel
    base: Path
    tokenizer: Any
    prompts: Sequence[Prompt]
    rewards: Sequence[Reward]
    weights: Sequence[float]
    beta: float
    settings: Mapping[str, Any]
    write: Write
    keep: int | None = None
    optimizer: MakeOptimizer | None = None


class _InOurRun:
    """Goes before one of TRL's trainers: prompts are tokenized, and checkpoints written, as everywhere in ft."""

    model: PreTrainedModel
    args: Any
    state: Any
    accelerator: Any
    optimizer: Any
    last_checkpoint: Path | None = None

    def __init__(self, job: OnlineJob, **given: Any) -> None:
        self.job, self._ids = job, ids_by_text(job.prompts)
        super().__init__(**given)

    def _tokenize_prompts(
        self, prompts: Sequence[str]
    ) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [list(self._ids[prompt]) for prompt in prompts], None, {}

    def create_optimizer(self, model: Any = None) -> Any:
        """Make the optimizer: ours, or the one that the settings name."""
        if self.job.optimizer is not None and self.optimizer is None:
            decayed = frozenset(self.get_decay_parameter_names(self.model))  # type: ignore[attr-defined]
            self.optimizer = self.job.optimizer(self.model, decayed)
        return super().create_optimizer(model)  # type: ignore[misc]

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        run = Path(self.args.output_dir)
        target = run / f"checkpoint-{self.state.global_step}"
        if target == self.last_checkpoint:
            return
        with atomic_directory(target) as directory:
            self.job.write(self.accelerator.unwrap_model(self.model), directory)
            self.state.save_to_json(str(directory / "trainer_state.json"))
        prune(run, self.job.keep, last=target)
        self.last_checkpoint = target


class _Grpo(_InOurRun, GRPOTrainer):  # type: ignore[misc]
    """GRPO (Shao et al. 2024, arXiv:2402.03300)."""


class _Rloo(_InOurRun, RLOOTrainer):  # type: ignore[misc]
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
    for callback in trainer.callback_handler.callbacks.copy():
        if type(callback).__name__ in ("PrinterCallback", "ProgressCallback"):
            trainer.remove_callback(callback)
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
