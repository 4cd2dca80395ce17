"""Continuing a run: which checkpoint, whether it can be continued, and what must not have changed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path

from ft_core.checkpoints import list_checkpoints
from ft_core.errors import ModelError, UsageError

STATE_FILE = "trainer_state.json"
RUN_STATE_FILE = "ft_state.json"
SCHEDULER_FILE = "scheduler.pt"
RECIPE_STATE_FILE = "recipe_state.json"
NEEDED = ("optimizer.pt", "scheduler.pt", STATE_FILE, RUN_STATE_FILE)
"""Files without which a run can't be continued exactly."""


@dataclass(frozen=True, slots=True)
class RunState:
    """What decides which rows a step sees; a resumed run must agree with it.

    Attributes:
        items: rows or packs of an epoch.
        batch_size, gradient_accumulation_steps, world_size, seed: as in the plan.
        arrangement: how items are put in order.
        stream: fingerprint of the stream that is trained on.
        dataloader_num_workers: as in the plan, where it decides who reads which rows of a stream.
    """

    items: int
    batch_size: int
    gradient_accumulation_steps: int
    world_size: int
    seed: int
    arrangement: str = "random"
    stream: str | None = None
    dataloader_num_workers: int = 0

    def save(self, directory: Path) -> None:
        """Write it into a checkpoint."""
        (directory / RUN_STATE_FILE).write_text(
            json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8"
        )

    def check(self, checkpoint: Path) -> None:
        """Compare with the state saved in a checkpoint.

        Raises:
            UsageError: the run would not continue where the checkpoint stopped; says what differs.
        """
        saved = json.loads((checkpoint / RUN_STATE_FILE).read_text(encoding="utf-8"))
        # A checkpoint of before a value was saved had its default.
        before = {item.name: item.default for item in fields(self) if item.default is not MISSING}
        changed = [
            f"{name} was {saved.get(name, before.get(name))} and is {value}"
            for name, value in asdict(self).items()
            if saved.get(name, before.get(name)) != value
        ]
        if changed:
            raise UsageError(
                f"{checkpoint}: the run can't continue exactly: {', '.join(changed)}; give the same values "
                "and rows, or use --resume_only_model true to start a new run with these weights"
            )


def save_recipe_state(state: Mapping[str, float], directory: Path) -> None:
    """Write what a recipe keeps from step to step into a checkpoint, if it keeps anything."""
    if state:
        text = json.dumps(dict(state), indent=2) + "\n"
        (directory / RECIPE_STATE_FILE).write_text(text, encoding="utf-8")


def recipe_state(checkpoint: Path) -> dict[str, float]:
    """Return what ``save_recipe_state`` wrote; nothing if there was nothing."""
    file = checkpoint / RECIPE_STATE_FILE
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}


def find_checkpoint(value: str, output_dir: str | Path) -> Path:
    """Return the checkpoint that ``--resume_from_checkpoint`` names.

    Args:
        value: a checkpoint, a run directory (its last checkpoint), or ``latest``.
        output_dir: where ``latest`` looks for the newest checkpoint.

    Raises:
        UsageError: there is none.
    """
    if value == "latest":
        root = Path(output_dir).expanduser()
        candidates = _complete(root.rglob("checkpoint-*")) if root.is_dir() else []
        if not candidates:
            raise UsageError(
                f"--resume_from_checkpoint latest: no checkpoint below {output_dir}; give its path"
            )
        return max(candidates, key=lambda path: (path.stat().st_mtime, _step(path))).resolve()
    path = Path(value).expanduser()
    if not path.is_dir():
        raise UsageError(f"--resume_from_checkpoint {value}: no such directory")
    if path.name.startswith("checkpoint-"):
        return path.resolve()
    inside = list_checkpoints(path)
    if not inside:
        raise UsageError(
            f"--resume_from_checkpoint {value}: neither a checkpoint nor a run directory with one"
        )
    return inside[-1].resolve()


def check_resumable(checkpoint: Path) -> None:
    """Refuse a checkpoint that lacks what exact resuming needs.

    Raises:
        ModelError: it holds weights only.
    """
    missing = [name for name in NEEDED if not (checkpoint / name).is_file()]
    if (
        not (checkpoint / "rng_state.pth").is_file()
        and not (checkpoint / "rng_state_0.pth").is_file()
    ):
        missing.append("rng_state.pth")
    if missing:
        raise ModelError(
            f"{checkpoint} can't be resumed: it lacks {', '.join(missing)} (saved with save_only_model, or "
            "not by ft); use --resume_only_model true to start a new run with its weights"
        )


def _complete(paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if path.is_dir() and (path / STATE_FILE).is_file()]


def _step(path: Path) -> int:
    number = path.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1
