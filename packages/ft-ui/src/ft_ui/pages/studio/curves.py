"""Rows of pictures, with numbers as numbers even where there are none yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from ft_ui.studio.metrics import CURVES, Progress, smoothed


def curve_rows(rows: Sequence[dict[str, Any]], group: str) -> pd.DataFrame:
    """Return rows of ``step``, ``value`` and ``group`` as a picture takes them.

    A picture keeps the kinds of its first columns: an empty one must say that steps and values are numbers.
    """
    frame = pd.DataFrame(rows, columns=["step", "value", group])
    return frame.astype({"step": "int64", "value": "float64", group: "object"})


def curves(progress: Progress, picture: str, weight: float) -> pd.DataFrame:
    """Return the rows of a run's picture: step, value and which metric it is."""
    rows = [
        {"step": step, "value": value, "metric": metric}
        for metric in CURVES[picture]
        for step, value in smoothed(progress.curve(metric), weight)
    ]
    return curve_rows(rows, "metric")
