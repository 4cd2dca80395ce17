"""The threads of OpenMP, which torch computes with on a CPU.

Each thread that computes keeps a team of threads of its own. With more of them than processors, GNU's OpenMP lets a
team sleep where it would wait a moment for its next work, and every operation of a model pays for waking it. So the thread that has loaded a model gives its team up before another runs it.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch

_SOFT = 1
"""OpenMP 5.0's ``omp_pause_soft``: threads end, settings stay."""


def end_team() -> bool:
    """End the team of the calling thread; it gets another one when it computes again.

    Returns:
        Whether there is GNU's OpenMP in torch, and it did.
    """
    for file in (Path(torch.__file__).parent / "lib").glob("libgomp*.so*"):
        pause = getattr(ctypes.CDLL(str(file)), "omp_pause_resource_all", None)
        if pause is not None:
            return bool(pause(_SOFT) == 0)
    return False
