"""Metric against training step over the checkpoints of a run, as an SVG picture with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ft_eval.results import Evaluation, MetricResult

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 460, 260, 62, 42, 34, 20

Point = tuple[int, MetricResult]


def curves(evaluation: Evaluation) -> str | None:
    """Return one picture for each task and metric side by side; ``None`` with fewer than two steps."""
    if len(set(evaluation.steps.values())) < 2:
        return None
    pictures = [
        _curve(f"{title}, {name}", points)
        for title in evaluation.titles
        for name, points in _by_metric(evaluation, title).items()
    ]
    columns = min(2, len(pictures))
    rows = -(-len(pictures) // columns)
    placed = "".join(
        f'<g transform="translate({index % columns * WIDTH} {index // columns * HEIGHT})">{picture}</g>'
        for index, picture in enumerate(pictures)
    )
    size = f'width="{columns * WIDTH}" height="{rows * HEIGHT}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">'
        f'<rect width="100%" height="100%" fill="#fff"/>{placed}</svg>'
    )


def _by_metric(evaluation: Evaluation, title: str) -> dict[str, list[Point]]:
    found: dict[str, list[Point]] = {}
    for model, step in evaluation.steps.items():
        if result := evaluation.find(model, title):
            for metric in result.metrics:
                found.setdefault(metric.name, []).append((step, metric))
    return {name: sorted(points, key=lambda point: point[0]) for name, points in found.items()}


def _curve(title: str, points: Sequence[Point]) -> str:
    steps = [step for step, _ in points]
    lows = [metric.value if metric.low is None else metric.low for _, metric in points]
    highs = [metric.value if metric.high is None else metric.high for _, metric in points]
    bottom, top = min(lows), max(highs)
    margin = (top - bottom) * 0.05 or 0.05
    bottom, top = bottom - margin, top + margin

    def x(step: float) -> float:
        span = max(steps) - min(steps) or 1
        return LEFT + (step - min(steps)) / span * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return TOP + (top - value) / (top - bottom) * (HEIGHT - TOP - BOTTOM)

    band = [(x(s), y(v)) for s, v in zip(steps, highs, strict=True)]
    band += [(x(s), y(v)) for s, v in reversed(list(zip(steps, lows, strict=True)))]
    line = [(x(step), y(metric.value)) for step, metric in points]
    ticks = "".join(
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(v):.1f}" y2="{y(v):.1f}" stroke="#e5e5e5"/>'
        f'<text x="{LEFT - 6}" y="{y(v) + 4:.1f}" text-anchor="end">{v:.3g}</text>'
        for v in (bottom + (top - bottom) * part / 4 for part in range(5))
    )
    labels = "".join(
        f'<text x="{x(step):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{step}</text>'
        for step in steps
    )
    dots = "".join(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="#2563eb"/>' for a, b in line)
    return (
        f'<text x="{LEFT}" y="18" font-size="13">{escape(title)}</text>{ticks}{labels}'
        f'<polygon points="{_points(band)}" fill="#2563eb" opacity="0.15"/>'
        f'<polyline points="{_points(line)}" fill="none" stroke="#2563eb" stroke-width="2"/>{dots}'
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">step</text>'
    )


def _points(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
