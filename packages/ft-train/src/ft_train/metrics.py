"""Numbers of a run as they come up: sums over logging intervals, speed, memory."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.distributed as dist

from ft_core.recipe import LossOutput, Totals


@dataclass(slots=True)
class Tally:
    """Sums of named metrics, tokens and optimizer steps, over one logging interval or one evaluation."""

    sums: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    counts: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    tokens: int = 0
    trained: int = 0
    steps: int = 0

    def add(self, output: LossOutput, tokens: int, trained: int) -> None:
        """Add one micro-batch."""
        for name, (total, count) in output.metrics.items():
            self.sums[name] += total
            self.counts[name] += count
        self.tokens += tokens
        self.trained += trained

    def means(self) -> dict[str, float]:
        """Return ``sum / count`` of each metric over all ranks."""
        sums, counts = reduce_sums(self.sums), reduce_sums(self.counts)
        return {name: sums[name] / counts[name] for name in sums if counts[name]}


class Clock:
    """Speed since the start of a run and since the last look, without the time of evaluation."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self._last = self.start
        self._paused = 0.0
        self.idle = 0.0

    def lap(self) -> float:
        """Return the seconds of training since the last lap."""
        now = time.monotonic()
        seconds = now - self._last - self._paused
        self._last, self._paused = now, 0.0
        return max(seconds, 1e-9)

    def pause(self, seconds: float) -> None:
        """Leave these seconds out of the lap."""
        self._paused += seconds
        self.idle += seconds

    def elapsed(self) -> float:
        """Return the seconds since the start, evaluations included."""
        return time.monotonic() - self.start


def named_by_source(metrics: Mapping[str, float], sources: Sequence[str]) -> dict[str, float]:
    """Put the names of data sets in place of their numbers: ``source_1_loss`` becomes ``wiki_loss``."""
    prefixes = {f"source_{number}_": f"{name}_" for number, name in enumerate(sources)}
    return {
        next(
            (new + key[len(old) :] for old, new in prefixes.items() if key.startswith(old)), key
        ): value
        for key, value in metrics.items()
    }


def reduce_sums(values: Mapping[str, float]) -> dict[str, float]:
    """Add up named numbers over all ranks; every rank gets the result."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return dict(values)
    gathered: list[Mapping[str, float]] = [{}] * dist.get_world_size()
    dist.all_gather_object(gathered, dict(values))
    names = sorted({name for part in gathered for name in part})
    return {name: sum(part.get(name, 0.0) for part in gathered) for name in names}


def merge_totals(parts: Iterable[Totals]) -> dict[str, float]:
    """Add up counts by name."""
    result: dict[str, float] = defaultdict(float)
    for part in parts:
        for name, value in part.items():
            result[name] += value
    return dict(result)


def memory_gib(device: str) -> float:
    """Return the most memory used so far in GiB: reserved on the GPU, else resident in this process."""
    if device == "cuda":
        return float(torch.cuda.max_memory_reserved()) / 2**30
    if sys.platform == "win32":
        return 0.0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def duration(seconds: float) -> str:
    """Format a duration: ``42s``, ``3m 5s``, ``2h 7m``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60}s"
    return f"{whole // 3600}h {whole % 3600 // 60}m"
