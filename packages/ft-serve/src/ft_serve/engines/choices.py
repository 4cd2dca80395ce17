"""Several answers to one prompt."""

from __future__ import annotations

from dataclasses import replace

from ft_core.engine import GenerationRequest
from ft_core.errors import UsageError

MOST_CHOICES = 128


def choices(request: GenerationRequest, n: int) -> list[GenerationRequest]:
    """Return a request for each of ``n`` answers, to be given to the engine at the same time.

    The first has the request's own seed and the others those that follow, so each answer can be had
    again alone. Where there is no seed the engine draws one for each.

    Raises:
        UsageError: ``n`` is out of range.
    """
    if not 1 <= n <= MOST_CHOICES:
        raise UsageError(f"n {n}: give 1 to {MOST_CHOICES}")
    seed = request.sampling.seed
    if seed is None:
        return [request] * n
    return [
        replace(request, sampling=replace(request.sampling, seed=seed + index))
        for index in range(n)
    ]
