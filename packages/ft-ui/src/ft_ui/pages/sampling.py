"""The controls of sampling on a page, and what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from ft_core.engine import Sampling
from ft_core.errors import UsageError
from ft_ui.words import Words


def sampling_controls(start: Sampling, words: Words) -> tuple[gr.components.Component, ...]:
    """Put the fields on the page that is being built, in the order that ``sampling_of`` takes them."""
    longest = start.max_new_tokens or 2048
    return (
        gr.Slider(
            0,
            2,
            start.temperature,
            step=0.05,
            label=words("chat.temperature"),
            info=words("chat.temperature_info"),
        ),
        gr.Slider(0.01, 1, start.top_p, step=0.01, label=words("chat.top_p")),
        gr.Slider(
            0, 200, start.top_k, step=1, label=words("chat.top_k"), info=words("chat.top_k_info")
        ),
        gr.Slider(1, max(8192, longest), longest, step=1, label=words("chat.max_new_tokens")),
        gr.Slider(
            0.5, 2, start.repetition_penalty, step=0.01, label=words("chat.repetition_penalty")
        ),
        gr.Textbox("", label=words("chat.seed"), info=words("chat.seed_info"), max_length=18),
    )


def sampling_of(values: Sequence[Any]) -> Sampling:
    """Return what the fields say.

    Raises:
        UsageError: the seed isn't a number.
    """
    temperature, top_p, top_k, longest, penalty, seed = values
    seed = str(seed or "").strip()
    if seed and not seed.lstrip("-").isdigit():
        raise UsageError(f"seed {seed!r}: write a whole number, or leave it empty")
    return Sampling(
        max_new_tokens=int(longest),
        temperature=float(temperature),
        top_k=int(top_k),
        top_p=float(top_p),
        repetition_penalty=float(penalty),
        seed=int(seed) if seed else None,
    )
