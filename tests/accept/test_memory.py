"""The memory that ``ft sft --dry_run`` names, beside what the run takes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.accept
BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "memory.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("memory_benchmark", BENCHMARK)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("number", range(4))
def test_the_estimate_holds_within_15_percent(
    benchmark: ModuleType, number: int, tmp_path: Path
) -> None:
    estimate, measured = benchmark.measure(
        benchmark.CASES[number], "smollm2-135m-instruct", 2, tmp_path
    )
    assert abs(estimate / measured - 1) < 0.15
