"""What a training command says at its end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ft_train import TrainResult


def summary(result: TrainResult) -> dict[str, Any]:
    """Return what ``run.json`` keeps of a result."""
    return {
        "global_step": result.global_step,
        "final_loss": result.final_loss,
        "best_metric": result.best_metric,
        "best_checkpoint": str(result.best_checkpoint) if result.best_checkpoint else None,
        "last_checkpoint": str(result.last_checkpoint) if result.last_checkpoint else None,
        "memory_gib": result.memory_gib,
        "trained_tokens": result.trained_tokens,
        "batch_size": result.batch_size,
        "wrapped": result.wrapped,
        "interrupted": result.interrupted,
        "log_history": list(result.log_history),
    }


def report(result: TrainResult, directory: Path, *, answers: bool = True) -> None:
    """Print where everything is, and what to try with a model that answers."""
    print(f"run directory: {directory}")
    print(f"best checkpoint: {result.best_checkpoint}")
    print(f"last checkpoint: {result.last_checkpoint}")
    print(f"run card: {directory / 'run_card.md'}")
    if result.best_checkpoint is not None and answers:
        print(f"try it: ft infer --ckpt_dir {result.best_checkpoint}")
    for reason, count in result.dropped.items():
        print(f"dropped while training: {count} ({reason})")
