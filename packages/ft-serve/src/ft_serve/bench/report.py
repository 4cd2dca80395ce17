"""What rounds of a load test come to, as a table and as JSON with the names that ``vllm bench serve`` uses."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from ft_serve.bench.load import Round


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which a share of the values lies, between neighbours where it must be."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def summary(measured: Round) -> dict[str, Any]:
    """Return a round's figures: tokens per second, and times in milliseconds."""
    good = measured.good
    figures: dict[str, Any] = {
        "max_concurrency": measured.clients,
        "completed": len(good),
        "failed": len(measured.seen) - len(good),
        "duration": measured.seconds,
        "total_output_tokens": sum(item.tokens for item in good),
        "output_throughput": measured.speed,
        "request_throughput": len(good) / measured.seconds,
    }
    between = [
        later - earlier
        for item in good
        for earlier, later in zip(item.events, item.events[1:], strict=False)
    ]
    for name, values in (
        ("ttft", [item.first for item in good]),
        ("tpot", [item.per_token for item in good]),
        ("itl", between),
        ("e2el", [item.whole for item in good]),
    ):
        if values:
            figures[f"mean_{name}_ms"] = 1000 * statistics.fmean(values)
            figures[f"p50_{name}_ms"] = 1000 * percentile(values, 0.5)
            figures[f"p99_{name}_ms"] = 1000 * percentile(values, 0.99)
    return figures


def table(rounds: Sequence[Round]) -> Table:
    """Return the figures of all rounds, one line for each number of clients."""
    made = Table()
    for heading in (
        *("clients", "answers", "failed", "tokens/s", "first token p50", "p99"),
        *("per token p50", "p99", "whole p50", "p99"),
    ):
        made.add_column(heading, justify="right")
    for measured in rounds:
        found = summary(measured)
        times = [
            f"{found[f'p{share}_{name}_ms']:,.0f} ms" if f"p50_{name}_ms" in found else "-"
            for name in ("ttft", "tpot", "e2el")
            for share in (50, 99)
        ]
        made.add_row(
            str(measured.clients),
            str(found["completed"]),
            str(found["failed"]),
            f"{measured.speed:,.1f}",
            *times,
        )
    return made
