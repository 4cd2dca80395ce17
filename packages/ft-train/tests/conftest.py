"""A place to run tiny trainings in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from ft_core.samples import Sample, Tokens
from ft_core.testing import tiny_model
from ft_train import SftRecipe, TrainData, TrainingPlan, TrainResult, train


class WholeModel:
    """A tuner that trains and saves everything."""

    name = "full"

    def save(self, model: Any, directory: Path, *, safe_serialization: bool = True) -> None:
        model.save_pretrained(directory)


@dataclass(frozen=True)
class Lab:
    """Makes tiny models, rows and plans, and trains."""

    model_directory: Path
    directory: Path

    def model(self, **options: Any) -> Any:
        options = {"dtype": torch.float32, "attn_implementation": "sdpa", **options}
        return AutoModelForCausalLM.from_pretrained(self.model_directory, **options)

    def samples(self, count: int, *, seed: int = 0) -> list[Sample]:
        generator = torch.Generator().manual_seed(seed)
        rows = []
        for row in range(count):
            length = 6 + int(torch.randint(12, (), generator=generator))
            ids = torch.randint(3, 384, (length,), generator=generator).tolist()
            rows.append(Sample((Tokens(ids, [0.0] * 3 + [1.0] * (length - 3)),), row))
        return rows

    def plan(self, **values: Any) -> TrainingPlan:
        settings: dict[str, Any] = {
            "batch_size": 2,
            "gradient_accumulation_steps": 2,
            "steps": 4,
            "learning_rate": 1e-3,
            "logging_steps": 1,
            "save_strategy": "no",
            "disable_tqdm": True,
        }
        return TrainingPlan(**{**settings, **values})

    def run(
        self,
        model: Any,
        plan: TrainingPlan,
        data: TrainData | None = None,
        *,
        name: str = "run",
        recipe: Any = None,
        **options: Any,
    ) -> TrainResult:
        directory = self.directory / name
        directory.mkdir(exist_ok=True)
        return train(
            recipe or SftRecipe(),
            model,
            WholeModel(),
            data or TrainData(self.samples(16)),
            plan,
            directory,
            **options,
        )

    def log(self, name: str = "run") -> list[dict[str, Any]]:
        file = self.directory / name / "logging.jsonl"
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@pytest.fixture(scope="session")
def tiny_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def lab(tiny_directory: Path, tmp_path: Path) -> Lab:
    return Lab(tiny_directory, tmp_path)


@pytest.fixture
def same_weights() -> Any:
    def check(one: torch.nn.Module, other: torch.nn.Module, **tolerance: float) -> None:
        found = weights(other)
        for name, value in weights(one).items():
            if tolerance:
                torch.testing.assert_close(found[name], value, msg=name, **tolerance)
            else:
                assert torch.equal(found[name], value), name

    return check


@pytest.fixture
def decode() -> Any:
    def text(ids: Sequence[int]) -> str:
        return " ".join(f"t{token}" for token in ids)

    return text
