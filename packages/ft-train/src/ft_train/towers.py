"""Training parts of models that see or hear: their encoders, what brings these into the language model, and that."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum

import torch
from transformers import PreTrainedModel

from ft_core.command import Invocation
from ft_core.errors import UsageError
from ft_core.models.groups import ModuleGroups, is_inside, module_groups
from ft_core.models.modules import linear_names
from ft_core.sequences.isolation import language_model
from ft_train.plan import TrainingPlan
from ft_train.tower_arguments import TowerArguments

_FLAGS = tuple(TowerArguments.model_fields)


class ModelPart(StrEnum):
    """A part of a model that sees or hears."""

    ENCODER = "encoder"
    ALIGNER = "aligner"
    LANGUAGE = "language"


def part_of(name: str, groups: ModuleGroups) -> ModelPart:
    """Return the part that a module or parameter belongs to, by its full name."""
    if is_inside(name, groups.projector):
        return ModelPart.ALIGNER
    return ModelPart.ENCODER if is_inside(name, groups.vision) else ModelPart.LANGUAGE


def frozen_parts(flags: TowerArguments) -> frozenset[ModelPart]:
    """Return the parts that stay as they are."""
    wishes = {
        ModelPart.ENCODER: flags.freeze_vit,
        ModelPart.ALIGNER: flags.freeze_aligner,
        ModelPart.LANGUAGE: flags.freeze_llm,
    }
    return frozenset(part for part, frozen in wishes.items() if frozen)


def has_towers(model: PreTrainedModel) -> bool:
    """Whether a model has parts beside its language model."""
    return model.config.get_text_config() is not model.config and bool(module_groups(model).vision)


def check_towers(model: PreTrainedModel, invocation: Invocation) -> None:
    """Refuse flags about parts that the model doesn't have.

    Raises:
        UsageError: naming the flag.
    """
    given = [name for name in _FLAGS if name in invocation.set_by_a_person]
    if given and not has_towers(model):
        raise UsageError(f"--{given[0]}: this model takes texts only; leave it out")


def default_targets(model: PreTrainedModel, flags: TowerArguments) -> str | None:
    """Return the layers that DEFAULT means, as an expression; ``None`` leaves that to the model's registration.

    Raises:
        UsageError: all parts are frozen.
    """
    frozen = frozen_parts(flags)
    if frozen == {ModelPart.ENCODER} or not has_towers(model):
        return None
    groups = module_groups(model)
    names = [name for name in linear_names(model) if part_of(name, groups) not in frozen]
    if not names:
        raise UsageError(_nothing_left(frozen))
    return "|".join(map(re.escape, names))


def freeze(model: PreTrainedModel, flags: TowerArguments) -> None:
    """Take gradients from the parts that stay as they are, of a model whose weights are trained themselves.

    Raises:
        UsageError: nothing is left to train.
    """
    if not has_towers(model):
        return
    frozen, groups = frozen_parts(flags), module_groups(model)
    for name, parameter in model.named_parameters():
        if part_of(name, groups) in frozen:
            parameter.requires_grad = False
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UsageError(_nothing_left(frozen))


def _nothing_left(frozen: frozenset[ModelPart]) -> str:
    flags = {
        ModelPart.ENCODER: "--freeze_vit",
        ModelPart.ALIGNER: "--freeze_aligner",
        ModelPart.LANGUAGE: "--freeze_llm",
    }
    named = ", ".join(flags[part] for part in ModelPart if part in frozen)
    return f"{named}: nothing is left to train; leave one of them out"


def by_part(
    rates: Mapping[ModelPart, float],
    model: torch.nn.Module,
    plan: TrainingPlan,
    decayed: frozenset[str],
) -> torch.optim.Optimizer:
    """Return AdamW with a learning rate for each part.

    Args:
        rates: of parts whose rate isn't that of the plan.
        model: with what is trained.
        plan: of the run.
        decayed: names of parameters that shrink.
    """
    inner = language_model(model)
    groups = module_groups(inner)
    parts = {id(item): part_of(name, groups) for name, item in inner.named_parameters()}
    sorted_: dict[tuple[ModelPart, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = parts.get(id(parameter), ModelPart.LANGUAGE), name in decayed
            sorted_.setdefault(key, []).append(parameter)
    untrained = [part for part in rates if not any(part is found for found, _ in sorted_)]
    if untrained:
        flag = "vit_lr" if untrained[0] is ModelPart.ENCODER else "aligner_lr"
        raise UsageError(
            f"--{flag}: nothing of the {untrained[0]} is trained; leave it out, or see --freeze_vit and --freeze_aligner"
        )
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr": rates.get(part, plan.learning_rate),
                "weight_decay": plan.weight_decay if shrinks else 0.0,
            }
            for (part, shrinks), parameters in sorted_.items()
        ],
        lr=plan.learning_rate,
        betas=(plan.adam_beta1, plan.adam_beta2),
        eps=plan.adam_epsilon,
        fused=plan.device in ("cpu", "cuda"),
    )
