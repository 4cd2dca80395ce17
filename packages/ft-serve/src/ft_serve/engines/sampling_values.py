"""Which values of sampling make sense, whichever engine samples."""

from __future__ import annotations

from math import isfinite

from ft_core.engine import Sampling
from ft_core.errors import UsageError

MOST_LOGPROBS = 100


def check_sampling(sampling: Sampling) -> None:
    """Refuse values that make no sense.

    Raises:
        UsageError: naming the value and what would be one.
    """
    wrong = {
        "max_new_tokens": sampling.max_new_tokens is not None and sampling.max_new_tokens < 1,
        "temperature": not 0 <= sampling.temperature < float("inf"),
        "top_k": sampling.top_k < 0,
        "top_p": not 0 < sampling.top_p <= 1,
        "repetition_penalty": not 0 < sampling.repetition_penalty < float("inf"),
        "num_beams": sampling.num_beams < 1,
        "frequency_penalty": not isfinite(sampling.frequency_penalty),
        "presence_penalty": not isfinite(sampling.presence_penalty),
        "min_p": not 0 <= sampling.min_p <= 1,
        "min_tokens": sampling.min_tokens < 0,
        "logprobs": sampling.logprobs is not None and not 0 <= sampling.logprobs <= MOST_LOGPROBS,
    }
    allowed = {
        "max_new_tokens": "at least 1",
        "temperature": "0 (greedy) or more",
        "top_k": "0 (no limit) or more",
        "top_p": "above 0, at most 1",
        "repetition_penalty": "above 0 (1 changes nothing)",
        "num_beams": "at least 1",
        "frequency_penalty": "that is finite (0 changes nothing)",
        "presence_penalty": "that is finite (0 changes nothing)",
        "min_p": "from 0 (leaves out nothing) to 1",
        "min_tokens": "0 or more",
        "logprobs": f"from 0 to {MOST_LOGPROBS}",
    }
    for name, is_wrong in wrong.items():
        if is_wrong:
            raise UsageError(f"{name} {getattr(sampling, name)}: give a value {allowed[name]}")
    if sampling.num_beams > 1 and (unknown := _not_with_beams(sampling)):
        raise UsageError(
            f"num_beams {sampling.num_beams} can't be used with {', '.join(unknown)}; leave it at 1"
        )


def _not_with_beams(sampling: Sampling) -> list[str]:
    given = {
        "frequency_penalty": sampling.frequency_penalty != 0,
        "presence_penalty": sampling.presence_penalty != 0,
        "logit_bias": bool(sampling.logit_bias),
        "logprobs": sampling.logprobs is not None,
        "constraint": sampling.constraint is not None,
        "min_p": sampling.min_p != 0,
        "min_tokens": sampling.min_tokens != 0,
    }
    return [name for name, is_given in given.items() if is_given]
