"""What TRL's trainers are given of our runs: checkpoints and optimizers as everywhere in ft."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from ft_core.checkpoints import atomic_directory, prune

Write = Callable[[PreTrainedModel, Path], None]
MakeOptimizer = Callable[[PreTrainedModel, frozenset[str]], torch.optim.Optimizer]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerJob:
    """What a run of any of these trainers is made of.

    Attributes:
        model: with its trainable part attached; its generation config says what ends an answer.
        tokenizer: transformers' own, for decoding and padding.
        settings: values of transformers' training arguments and of the method, by name.
        write: writes the model into a checkpoint.
        keep: how many checkpoints stay; ``None`` keeps all.
        optimizer: makes the optimizer in place of the one that settings name.
    """

    model: PreTrainedModel
    tokenizer: Any
    settings: Mapping[str, Any]
    write: Write
    keep: int | None = None
    optimizer: MakeOptimizer | None = None


class InOurRun:
    """Goes before one of TRL's trainers.

    Attributes:
        tokens: that the model went through so far.
        trained_tokens: those of them that it learned from.
    """

    job: TrainerJob
    model: PreTrainedModel
    args: Any
    state: Any
    accelerator: Any
    optimizer: Any
    callback_handler: Any
    last_checkpoint: Path | None = None
    tokens = 0
    trained_tokens = 0

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

    def drop_printers(self) -> None:
        """Leave the progress line to the run."""
        for callback in self.callback_handler.callbacks.copy():
            if type(callback).__name__ in ("PrinterCallback", "ProgressCallback"):
                self.remove_callback(callback)  # type: ignore[attr-defined]
