"""Continuing a run: which checkpoint, whether it can be continued, and what must not have changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import TypeVar

from ft_core.checkpoints import list_checkpoints
from ft_core.divided_checkpoints import ENGINE_POINTER, check_engine_parts
from ft_core.errors import ModelError, UsageError
from ft_core.samples import Dropped, Sample
from ft_train.data import TrainData

T = TypeVar("T")

STATE_FILE = "trainer_state.json"
RUN_STATE_FILE = "ft_state.json"
SCHEDULER_FILE = "scheduler.pt"
OPTIMIZER_DIRECTORY = "optimizer"
"""Where the parts of FSDP2's optimizer state lie in a checkpoint, one file a process."""

RECIPE_STATE_FILE = "recipe_state.json"
NEEDED = ("optimizer.pt", SCHEDULER_FILE, STATE_FILE, RUN_STATE_FILE)
"""Files without which a run of whole models can't be continued exactly."""

_SHOWN = {
    "items": "the number of rows or packs",
    "rows": "the content of the rows (--dataset and what encodes it)",
    "stream": "the stream (--dataset and what encodes it)",
    "arrangement": "the order (--group_by_length, --test_oom_error)",
    "division": "how processes divide the run (--deepspeed, --fsdp)",
    "processes": "the number of processes (NPROC_PER_NODE, NNODES)",
    "world_size": "the number of processes with rows of their own",
}
_A_STEP = ("batch_size", "gradient_accumulation_steps", "world_size")


@dataclass(frozen=True, slots=True)
class RunState:
    """What decides which rows a step sees, and who holds what; a resumed run must agree with it.

    Attributes:
        items: rows or packs of an epoch.
        batch_size, gradient_accumulation_steps, seed: as in the plan.
        world_size: processes with rows of their own.
        arrangement: how items are put in order.
        stream: fingerprint of the stream that is trained on.
        dataloader_num_workers: as in the plan, where it decides who reads which rows of a stream.
        rows: fingerprint of the rows.
        processes: of the run.
        division: how they divide it: ``DDP``, ``ZeRO-2``, ``FSDP2``, ….
    """

    items: int
    batch_size: int
    gradient_accumulation_steps: int
    world_size: int
    seed: int
    arrangement: str = "random"
    stream: str | None = None
    dataloader_num_workers: int = 0
    rows: str | None = None
    processes: int = 1
    division: str = "DDP"

    def save(self, directory: Path) -> None:
        """Write it into a checkpoint."""
        (directory / RUN_STATE_FILE).write_text(
            json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8"
        )

    @property
    def rows_per_step(self) -> int:
        """Rows (with packing, packs) of an optimizer step."""
        return self.batch_size * self.gradient_accumulation_steps * self.world_size

    def check(self, checkpoint: Path) -> str | None:
        """Compare with the state saved in a checkpoint.

        Returns:
            A sentence where the run goes on with the same rows in each step, and yet not to the bit.

        Raises:
            UsageError: the run would not continue where the checkpoint stopped; says what differs.
        """
        saved = json.loads((checkpoint / RUN_STATE_FILE).read_text(encoding="utf-8"))
        # What a checkpoint doesn't know yet can't be compared; what had no other value then, had its default.
        before = {
            item.name: item.default for item in fields(self) if item.default is not MISSING
        } | {"rows": self.rows, "processes": saved["world_size"]}
        old = RunState(**{name: saved.get(name, before.get(name)) for name in asdict(self)})
        changed = {
            name: (was, now)
            for name, now in asdict(self).items()
            if (was := getattr(old, name)) != now
        }
        harmless = self._harmless(old, changed)
        if changed.keys() - harmless:
            raise UsageError(
                f"{checkpoint}: the run can't continue exactly: {_differences(changed)}; give the same values "
                "and rows, or use --resume_only_model true to start a new run with these weights"
            )
        if not changed:
            return None
        return (
            f"{_differences(changed)}; each step still sees the same rows, while sums are rounded otherwise and dropout "
            "is drawn anew"
        )

    def _harmless(self, old: RunState, changed: Collection[str]) -> set[str]:
        """Return which changes leave each step its rows and can be read back."""
        if self.rows_per_step != old.rows_per_step or self.stream is not None:
            return set()
        if self.arrangement == "by_length" and {"batch_size", "world_size"} & set(changed):
            return set()  # these decide among which rows those of equal length are looked for
        # DeepSpeed keeps one file for each process, and reads them back into as many.
        return {*_A_STEP} if self.division.startswith("ZeRO") else {*_A_STEP, "processes"}


def rows_fingerprint(data: TrainData) -> str | None:
    """Return a hash of some rows and packs spread over all of them; ``None`` for a stream, which has its own."""
    if data.stream is not None:
        return None
    digest = hashlib.sha256(str(len(data.rows)).encode())
    for row in _spread(data.rows):
        for item in (row,) if isinstance(row, (Sample, Dropped)) else row:
            if isinstance(item, Sample):
                for tokens in item.sequences:
                    content = (list(tokens.input_ids), [float(w) for w in tokens.loss_weights])
                    digest.update(repr(content).encode())
            else:
                digest.update(item.reason.encode())
    for group in _spread(data.groups or ()):
        digest.update(repr(list(map(int, group))).encode())
    return digest.hexdigest()[:16]


def _spread(rows: Sequence[T], most: int = 64) -> Iterable[T]:
    """Return some of the rows, at equal distances."""
    step = max(1, len(rows) // most)
    return (rows[index] for index in range(0, len(rows), step))


def _differences(changed: Mapping[str, tuple[object, object]]) -> str:
    hidden = ("rows", "stream")
    return ", ".join(
        f"{_SHOWN[name]} changed"
        if name in hidden
        else f"{_SHOWN.get(name, name)} was {was} and is {now}"
        for name, (was, now) in changed.items()
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
    parts = checkpoint / OPTIMIZER_DIRECTORY / ".metadata"
    missing = [name for name in NEEDED if not (checkpoint / name).is_file()]
    if parts.is_file() or (checkpoint / ENGINE_POINTER).is_file():
        missing = [name for name in missing if name != "optimizer.pt"]
    if not any((checkpoint / name).is_file() for name in ("rng_state.pth", "rng_state_0.pth")):
        missing.append("rng_state.pth")
    if (checkpoint / ENGINE_POINTER).is_file():
        check_engine_parts(checkpoint)
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
