"""What several test files need: names that are registered for one test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ft_core.registry import Registry
from ft_data import DATASETS, DatasetInfo, registry


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return ``register_dataset`` on a copy of the registry that ends with the test."""
    copy: Registry[DatasetInfo] = Registry("dataset", entry_point_group="ft.datasets")
    for name in DATASETS:
        copy.register(name, DATASETS.get(name))
    for module in ("ft_data.registry", "ft_data.finding", "ft_data.dataset_info"):
        monkeypatch.setattr(f"{module}.DATASETS", copy)
    return registry.register_dataset
