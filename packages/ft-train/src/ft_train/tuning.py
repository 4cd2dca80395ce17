"""What the flags of tuners and optimizers ask of a run: its optimizer, watchers, and a penalty."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from transformers import PreTrainedModel, TrainerCallback

from ft_core.command import Invocation
from ft_core.errors import UsageError
from ft_core.models.groups import embedding_names
from ft_core.models.modules import find_targets, linear_names
from ft_train.callbacks.adalora import KeepRanks, ShareRanks, orthogonality
from ft_train.callbacks.lisa import Lisa
from ft_train.callbacks.neftune import Neftune
from ft_train.optimizer_arguments import GaLoreArguments, LisaArguments, NeftuneArguments
from ft_train.optimizers import GaLoreAdamW, GaLoreSettings, galore_groups, lora_plus_groups
from ft_train.plan import TrainingPlan
from ft_train.run_options import Keeper, OptimizerFactory
from ft_train.tower_arguments import TowerArguments
from ft_train.towers import ModelPart, by_part
from ft_train.tuner_arguments import LoraArguments, TunerArguments


@dataclass(frozen=True, slots=True)
class Tuning:
    """What a run needs for its tuner and its way to optimize.

    Attributes:
        optimizer: makes the optimizer instead of ``plan.optim``.
        watchers: of the run.
        penalty: a term that each step's loss gets once.
        keeper: keeps what the tuner needs to go on.
    """

    optimizer: OptimizerFactory | None = None
    watchers: tuple[TrainerCallback, ...] = ()
    penalty: Callable[[torch.nn.Module], torch.Tensor] | None = None
    keeper: Keeper | None = None


def tuning_of(invocation: Invocation, plan: TrainingPlan) -> Tuning:
    """Read the flags.

    Raises:
        UsageError: adapters in fp16 where the computation needs their gradients in float32.
    """
    tuner, lora = invocation.get(TunerArguments), invocation.get(LoraArguments)
    if lora.lora_dtype == "fp16" and plan.mixed_precision == "fp16":
        raise UsageError(
            "--lora_dtype fp16: gradients are scaled in this run, as its model is fp16, and that needs adapters in fp32; "
            "leave it out"
        )
    adalora = tuner.sft_type == "adalora"
    return Tuning(
        optimizer=_optimizer(invocation),
        watchers=_watchers(invocation, plan, adalora=adalora),
        penalty=orthogonality if adalora else None,
        keeper=KeepRanks() if adalora else None,
    )


def _watchers(
    invocation: Invocation, plan: TrainingPlan, *, adalora: bool
) -> tuple[TrainerCallback, ...]:
    lisa, neftune = invocation.get(LisaArguments), invocation.get(NeftuneArguments)
    watchers: list[TrainerCallback] = []
    if lisa.lisa_activated_layers:
        watchers.append(Lisa(lisa.lisa_activated_layers, lisa.lisa_step_interval, plan.seed))
    if neftune.neftune_noise_alpha is not None:
        watchers.append(Neftune(neftune.neftune_noise_alpha, neftune.neftune_backend))
    if adalora:
        watchers.append(ShareRanks())
    return tuple(watchers)


def _optimizer(invocation: Invocation) -> OptimizerFactory | None:
    galore, ratio = invocation.get(GaLoreArguments), invocation.get(LoraArguments).lora_lr_ratio
    if rates := _rates(invocation.get(TowerArguments)):
        if galore.use_galore or ratio is not None:
            other = "use_galore" if galore.use_galore else "lora_lr_ratio"
            raise UsageError(f"--vit_lr and --aligner_lr can't go with --{other}; drop one of them")
        return partial(by_part, rates)
    if galore.use_galore:
        return partial(_galore, galore)
    return None if ratio is None else partial(_lora_plus, ratio)


def _rates(flags: TowerArguments) -> dict[ModelPart, float]:
    wishes = {ModelPart.ENCODER: flags.vit_lr, ModelPart.ALIGNER: flags.aligner_lr}
    return {part: rate for part, rate in wishes.items() if rate is not None}


def _galore(
    flags: GaLoreArguments, model: PreTrainedModel, plan: TrainingPlan, decayed: frozenset[str]
) -> GaLoreAdamW:
    settings = GaLoreSettings(
        rank=flags.galore_rank,
        update_proj_gap=flags.galore_update_proj_gap,
        scale=flags.galore_scale,
        proj_type=flags.galore_proj_type,
        lazy=flags.galore_quantization,
        quantize_bits=flags.galore_proj_bits if flags.galore_proj_quant else None,
        quantize_group=flags.galore_proj_group_size,
        cos_threshold=flags.galore_cos_threshold,
        gamma_proj=flags.galore_gamma_proj,
        queue_size=flags.galore_queue_size,
    )
    names = projected_names(
        model, flags.galore_target_modules, embeddings=flags.galore_with_embedding
    )
    widest = max(min(model.get_parameter(name).shape) for name in names)
    if widest <= settings.rank:
        raise UsageError(
            f"--galore_rank {settings.rank} projects nothing: no matrix has a shorter side above {widest}; give a lower "
            "rank"
        )
    groups = galore_groups(
        model.named_parameters(),
        names,
        settings,
        weight_decay=plan.weight_decay,
        decayed=decayed,
        per_parameter=flags.galore_optim_per_parameter,
    )
    return GaLoreAdamW(
        groups,
        lr=plan.learning_rate,
        betas=(plan.adam_beta1, plan.adam_beta2),
        eps=plan.adam_epsilon,
        free_gradients=flags.galore_optim_per_parameter,
    )


def projected_names(
    model: PreTrainedModel, requested: list[str] | None, *, embeddings: bool
) -> tuple[str, ...]:
    """Return the names of the matrices that GaLore projects.

    Args:
        model: plain.
        requested: names of modules; ``None`` takes all linear layers but the head.
        embeddings: project embeddings and the head too.

    Raises:
        UsageError: a module doesn't exist.
    """
    if requested is None:
        modules = linear_names(model)
    else:
        try:
            modules = find_targets(model, requested).modules
        except UsageError as error:
            raise UsageError(
                str(error).replace("--target_modules", "--galore_target_modules")
            ) from error
    names = [f"{name}.weight" for name in modules]
    if embeddings:
        names += [f"{name}.weight" for name in embedding_names(model)]
        head = model.get_output_embeddings()
        names += [f"{name}.weight" for name, module in model.named_modules() if module is head]
    return tuple(names)


def _lora_plus(
    ratio: float, model: PreTrainedModel, plan: TrainingPlan, decayed: frozenset[str]
) -> torch.optim.Optimizer:
    groups = lora_plus_groups(
        model.named_parameters(),
        learning_rate=plan.learning_rate,
        ratio=ratio,
        weight_decay=plan.weight_decay,
        decayed=decayed,
    )
    return torch.optim.AdamW(
        groups,
        lr=plan.learning_rate,
        betas=(plan.adam_beta1, plan.adam_beta2),
        eps=plan.adam_epsilon,
        fused=plan.device in ("cpu", "cuda"),
    )
