"""Where the data of lm-eval's tasks comes from, and what to do where it can't be had."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import httpx

from ft_core.errors import DataError, FtError

ENDPOINT = "https://huggingface.co"


@cache
def hub_reachable() -> bool:
    """Whether the Hugging Face hub answers; asked once, for three seconds at most."""
    if os.environ.get("HF_HUB_OFFLINE", "") in ("1", "true", "TRUE", "yes"):
        return False
    try:
        httpx.head(os.environ.get("HF_ENDPOINT", ENDPOINT), timeout=3)
    except httpx.HTTPError:
        return False
    return True


@contextmanager
def no_waiting() -> Iterator[None]:
    """Keep the data library from asking a hub that can't be reached, again and again."""
    if hub_reachable():
        yield
        return
    import datasets
    import huggingface_hub

    modules: tuple[Any, ...] = (datasets.config, huggingface_hub.constants)
    before = [module.HF_HUB_OFFLINE for module in modules]
    for module in modules:
        module.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for module, value in zip(modules, before, strict=True):
            module.HF_HUB_OFFLINE = value


def missing_data(name: str, dataset: str, error: Exception) -> FtError:
    """Return the error for a task whose data can't be had.

    Args:
        name: the task.
        dataset: its data set's id on the hub.
        error: what the data library said.
    """
    reason = str(error).split("\n")[0]
    if hub_reachable():
        return DataError(f"the data of {name}, {dataset}, can't be had: {reason}", rule="no_data")
    folder = f"datasets--{dataset.replace('/', '--')}"
    return DataError(
        f"the data of {name} is {dataset} on the Hugging Face hub, which can't be reached from here. On a machine "
        f"with a network: hf download --repo-type dataset {dataset}; then copy ~/.cache/huggingface/hub/{folder} "
        "into $HF_HOME/hub of this machine. Or set HF_ENDPOINT to a mirror, or give questions of your own with "
        "--custom_eval_config",
        rule="no_data",
    )
