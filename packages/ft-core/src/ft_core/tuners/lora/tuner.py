"""LoRA on peft: a checkpoint is a plain peft adapter that ``PeftModel.from_pretrained`` loads."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora.config import CordaConfig
from peft.tuners.lora.corda import preprocess_corda
from transformers import PreTrainedModel

from ft_core.errors import UsageError
from ft_core.models.dtype import TORCH_DTYPES
from ft_core.models.modules import Targets
from ft_core.models.quantized import keep_differentiable
from ft_core.tuners.lora.eva import begin_by_inputs
from ft_core.tuners.lora.experts import has_fused_experts, read_request, settings_for_tensors
from ft_core.tuners.lora.lean import use_lean_layers
from ft_core.tuners.lora.settings import LoraSettings
from ft_core.tuners.lora.taken import (
    give_back,
    has_beginning,
    reads_beginning,
    remember_beginning,
    take_again,
    write_as_plain,
)
from ft_core.tuners.peft_adapter import (
    Aim,
    load_adapter,
    merge_adapter,
    peft_model,
    save_adapter,
    take_aim,
    wrap,
)
from ft_core.tuners.whole import Whole, find_whole_parts

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoraTuner:
    """Trains low-rank adapters beside frozen weights."""

    name: str = "lora"

    def apply(self, model: PreTrainedModel, settings: LoraSettings) -> PreTrainedModel:
        """Attach adapters; the model's answers don't change until they are trained.

        Adapters of bf16 and fp16 models are kept in float32, where their small steps count, unless the
        settings say else. So are layers that are trained whole.

        Raises:
            UsageError: the targets match nothing, or something is named that can't be trained.
        """
        request = read_request(model, () if settings.target_regex else settings.target_modules)
        if request.parameters:
            settings = settings_for_tensors(settings)
            named = replace(settings, target_modules=request.modules)
            aim = (
                take_aim(model, named)
                if request.modules
                else Aim(Targets((), ()), find_whole_parts(model, settings))
            )
            adapted = _attach(model, named, aim, tensors=request.parameters)
        else:
            aim = take_aim(model, settings)
            beside = has_fused_experts(model)
            adapted = (_beside_experts if beside else _attach)(model, settings, aim)
        return cast(PreTrainedModel, adapted)

    def save(
        self, model: PreTrainedModel, directory: Path, *, safe_serialization: bool = True
    ) -> None:
        """Write the adapter; one that began with a part of the weights as one of twice the rank."""
        save_adapter(model, directory, safe_serialization=safe_serialization)
        adapted = peft_model(model)
        if has_beginning(adapted):
            write_as_plain(adapted, directory, safe_serialization=safe_serialization)

    def load(
        self, model: PreTrainedModel, directory: Path, *, trainable: bool = False
    ) -> PreTrainedModel:
        """Attach a saved adapter.

        Raises:
            ModelError: the adapter is incomplete, damaged, or made for another model.
        """
        adapted = load_adapter(
            model, directory, trainable=trainable, ready=use_lean_layers if trainable else None
        )
        if any(config.use_dora for config in adapted.peft_config.values()):
            # Lengths are taken of weights that must not be packed for answering by then.
            keep_differentiable(adapted)
        if trainable and reads_beginning(directory):
            take_again(adapted, directory)
        return cast(PreTrainedModel, adapted)

    def merge(self, model: PreTrainedModel) -> PreTrainedModel:
        """Fold the adapters into the weights, computed in float32 and rounded once.

        Raises:
            ModelError: the base is quantized, or the adapter holds numbers that aren't finite.
        """
        give_back(peft_model(model))
        return merge_adapter(model)


def _attach(
    model: PreTrainedModel, settings: LoraSettings, aim: Aim, *, tensors: tuple[str, ...] = ()
) -> PeftModel:
    alpha = settings.alpha
    init = _initialization(model, settings)
    config = LoraConfig(
        **aim.config(model, ties=True),
        r=settings.rank,
        lora_alpha=int(alpha) if alpha == int(alpha) else alpha,
        lora_dropout=settings.dropout,
        bias=settings.bias,
        use_dora=settings.use_dora,
        use_rslora=settings.use_rslora,
        init_lora_weights=init,
        **({"target_parameters": list(tensors)} if tensors else {}),
        **({"corda_config": CordaConfig(corda_method="kpm")} if init == "corda" else {}),
    )
    if init == "corda":
        _look_for_corda(model, config, settings)
    use_lean_layers(config, model)
    adapted = wrap(model, config, aim.whole)
    if settings.init == "eva" and not next(model.parameters()).is_meta:
        begin_by_inputs(adapted, _rows_of(settings))
    if settings.dtype != "AUTO":
        _cast(adapted, TORCH_DTYPES[settings.dtype])
    if isinstance(init, str) and settings.takes_from_weights:
        remember_beginning(adapted)
    return adapted


def _initialization(model: PreTrainedModel, settings: LoraSettings) -> bool | str:
    """Return peft's name of the beginning; weights that aren't there have no singular vectors."""
    if settings.init in ("true", "false"):
        return settings.init == "true"
    absent = next(model.parameters()).is_meta
    return True if absent or settings.init == "eva" else settings.init


def _look_for_corda(model: PreTrainedModel, config: LoraConfig, settings: LoraSettings) -> None:
    run = _rows_of(settings)
    try:
        preprocess_corda(model, config, run_model=lambda: run(model))
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"--init_lora_weights corda can't begin an adapter of {type(model).__name__}: {error}; use pissa or eva"
        ) from error


def _rows_of(settings: LoraSettings) -> Callable[[PreTrainedModel], None]:
    if settings.run is None:
        raise UsageError(
            f"--init_lora_weights {settings.init} looks at rows of the training data, and there are none here; "
            "use pissa or true"
        )
    return settings.run


def _cast(adapted: PeftModel, dtype: torch.dtype) -> None:
    """Hold the matrices in the data type that was asked for."""
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.to(dtype)


def _beside_experts(model: PreTrainedModel, settings: LoraSettings, aim: Aim) -> PeftModel:
    """Attach adapters to a model with fused experts, which are adapted only if nothing else is named.

    In many of these models peft widens a regular expression to all layers, and takes ``gate_proj``,
    ``up_proj`` and ``down_proj`` for those of the experts, also when it loads an adapter; dense layers and
    shared experts of that name can't be told from them. So what it would adapt is looked at first.
    """
    targets = aim.targets
    plain_settings = replace(settings, dropout=0.0, use_dora=False, init="true")
    probe = _attach(model, plain_settings, Aim(targets, Whole()))
    found = set(probe.targeted_module_names)
    names = {name.rpartition(".")[2] for name in set(targets.modules) - found}
    kept = tuple(name for name in targets.modules if name.rpartition(".")[2] not in names)
    plain = cast(PreTrainedModel, probe.unload())
    if not kept:
        return _attach(plain, settings_for_tensors(settings), aim)
    if names:
        logger.warning(
            "%s get no adapter in this architecture: peft would take them for the experts'; name them alone in "
            "--target_modules to adapt the experts",
            ", ".join(sorted(names)),
        )
    if found != set(targets.modules):
        targets = Targets(kept, kept)
    return _attach(plain, settings, Aim(targets, aim.whole))


LORA = LoraTuner()
