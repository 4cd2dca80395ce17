"""Which parts of a model that sees are trained, and how fast each learns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from ft_core.errors import UsageError
from ft_core.media.testing import tiny_multimodal
from ft_core.models.groups import module_groups
from ft_core.models.loading import load_model
from ft_core.models.modules import find_targets
from ft_core.testing import tiny_model
from ft_train.tower_arguments import TowerArguments
from ft_train.towers import ModelPart, by_part, default_targets, freeze, has_towers, part_of


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_multimodal(tmp_path_factory.mktemp("llava"), "llava")


@dataclass(frozen=True)
class Plan:
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    adam_beta1: float = 0.9
    adam_beta2: float = 0.95
    adam_epsilon: float = 1e-8
    device: str = "cpu"


def parts_of(model: torch.nn.Module, names: object) -> set[ModelPart]:
    groups = module_groups(model)  # type: ignore[arg-type]
    return {part_of(name, groups) for name in names}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("flags", "trained"),
    [
        ({}, {ModelPart.ALIGNER, ModelPart.LANGUAGE}),
        ({"freeze_vit": False}, set(ModelPart)),
        ({"freeze_aligner": True}, {ModelPart.LANGUAGE}),
        ({"freeze_llm": True}, {ModelPart.ALIGNER}),
        ({"freeze_llm": True, "freeze_aligner": True, "freeze_vit": False}, {ModelPart.ENCODER}),
    ],
)
def test_parts_that_are_not_frozen_are_trained(
    directory: Path, flags: dict[str, bool], trained: set[ModelPart]
) -> None:
    model = load_model(directory, dtype=torch.float32, for_training=True)
    given = TowerArguments(**flags)  # type: ignore[arg-type]
    targets = find_targets(model, ["DEFAULT"], default=default_targets(model, given) or ())
    assert parts_of(model, targets.modules) == trained
    freeze(model, given)
    live = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert parts_of(model, live) == trained


def test_something_must_be_left_to_train(directory: Path) -> None:
    model = load_model(directory, dtype=torch.float32, for_training=True)
    all_frozen = TowerArguments(freeze_aligner=True, freeze_llm=True)
    for refuse in (default_targets, freeze):
        with pytest.raises(UsageError, match="nothing is left to train"):
            refuse(model, all_frozen)


def test_each_part_learns_at_its_own_rate(directory: Path) -> None:
    model = load_model(directory, dtype=torch.float32, for_training=True)
    freeze(model, TowerArguments(freeze_vit=False))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed = frozenset(name for name in names.values() if name.endswith("weight"))
    rates = {ModelPart.ENCODER: 1e-5, ModelPart.ALIGNER: 1e-4}
    optimizer = by_part(rates, model, Plan(), decayed)  # type: ignore[arg-type]
    groups = module_groups(model)
    seen = 0
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            assert group["lr"] == rates.get(part_of(name, groups), 1e-3)
            assert group["weight_decay"] == (0.1 if name in decayed else 0.0)
            seen += 1
    assert seen == len(names)


def test_a_rate_of_what_is_frozen_is_refused(directory: Path) -> None:
    model = load_model(directory, dtype=torch.float32, for_training=True)
    freeze(model, TowerArguments())
    with pytest.raises(UsageError, match="--vit_lr: nothing of the encoder is trained"):
        by_part({ModelPart.ENCODER: 1e-5}, model, Plan(), frozenset())  # type: ignore[arg-type]


def test_a_model_of_texts_has_no_towers(tmp_path: Path) -> None:
    model = load_model(tiny_model(tmp_path), dtype=torch.float32, for_training=True)
    assert not has_towers(model)
    assert default_targets(model, TowerArguments(freeze_vit=False)) is None
