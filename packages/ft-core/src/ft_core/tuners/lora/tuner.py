"""LoRA on peft: a checkpoint is a plain peft adapter that ``PeftModel.from_pretrained`` loads."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ft_core.errors import ModelError, UsageError
from ft_core.models.modules import Targets, find_targets
from ft_core.tuners.lora.settings import LoraSettings
from ft_core.tuners.lora.whole import (
    Whole,
    find_whole_parts,
    fit_rows,
    fold,
    restore_float32,
    settle,
    settle_tie,
)

logger = logging.getLogger(__name__)


class LoraTuner:
    """Trains low-rank adapters beside frozen weights."""

    name = "lora"

    def apply(self, model: PreTrainedModel, settings: LoraSettings) -> PreTrainedModel:
        """Attach adapters; the model's answers don't change until they are trained.

        Adapters of bf16 and fp16 models are kept in float32, where their small steps count. So are layers
        that are trained whole.

        Raises:
            UsageError: the targets match nothing, or something is named that can't be trained.
        """
        whole = find_whole_parts(model, settings)
        targets = find_targets(
            model,
            settings.target_modules,
            regex=settings.target_regex,
            default=settings.default_targets,
            whole=whole.modules,
        )
        if rows := set(whole.tokens) & set(targets.modules):
            raise UsageError(
                f"--target_modules: {rows.pop()} can't have an adapter where rows of new tokens are trained; leave it "
                "out, or train all rows with --modules_to_save EMBEDDING lm_head"
            )
        for note in (targets.note, *whole.notes):
            if note:
                logger.warning(note)
        if _has_fused_experts(model):
            return cast(PreTrainedModel, _beside_experts(model, settings, targets, whole))
        return cast(PreTrainedModel, _attach(model, settings, targets.pattern, whole))

    def save(
        self, model: PreTrainedModel, directory: Path, *, safe_serialization: bool = True
    ) -> None:
        """Write the adapter.

        The base's embedding is never part of it, although peft would add it (and ask the hub about it).
        """
        _peft(model).save_pretrained(
            str(directory), safe_serialization=safe_serialization, save_embedding_layers=False
        )

    def load(
        self, model: PreTrainedModel, directory: Path, *, trainable: bool = False
    ) -> PreTrainedModel:
        """Attach a saved adapter.

        Raises:
            ModelError: the adapter is incomplete, damaged, or made for another model.
        """
        try:
            with _tied_embeddings_are_handled():
                # An adapter with holes would answer like the base in places; peft only warns of that.
                warnings.filterwarnings("error", message="Found missing adapter keys")
                fit_rows(model, directory)
                adapted = PeftModel.from_pretrained(model, str(directory), is_trainable=trainable)
                if trainable:
                    restore_float32(adapted, directory)
        except (OSError, ValueError, KeyError, RuntimeError, UserWarning, SafetensorError) as error:
            raise ModelError(
                f"the adapter in {directory} doesn't fit {model.name_or_path}, or is damaged: {error}"
            ) from error
        return cast(PreTrainedModel, adapted)

    def merge(self, model: PreTrainedModel) -> PreTrainedModel:
        """Fold the adapters into the weights, computed in float32 and rounded once.

        Raises:
            ModelError: the base is quantized, or the adapter holds numbers that aren't finite.
        """
        adapted = _peft(model)
        base = cast(PreTrainedModel, adapted.get_base_model())
        if getattr(base.config, "quantization_config", None) is not None:
            raise ModelError(
                "an adapter can't be merged into quantized weights; load its base model without quantization"
            )
        layers = [module for module in adapted.modules() if isinstance(module, LoraLayer)]
        fold(adapted)
        _untie(base, layers)
        for layer in layers:
            _merge_layer(layer)
        merged = cast(PreTrainedModel, adapted.unload())
        settle_tie(merged)
        return merged


def _attach(
    model: PreTrainedModel,
    settings: LoraSettings,
    pattern: tuple[str, ...] | str,
    whole: Whole,
) -> PeftModel:
    alpha = settings.alpha
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=settings.rank,
        lora_alpha=int(alpha) if alpha == int(alpha) else alpha,
        lora_dropout=settings.dropout,
        target_modules=pattern if isinstance(pattern, str) else list(pattern),
        bias=settings.bias,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        base_model_name_or_path=model.name_or_path or None,
        **whole.config(),
    )
    with _tied_embeddings_are_handled():
        # Names of experts that it translates without finding any; what was adapted is checked instead.
        warnings.filterwarnings("ignore", message=r"The following (rank|alpha)_pattern keys")
        # It corrects the flag for each layer by itself.
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
        adapted = cast(PeftModel, get_peft_model(model, config))
    settle(adapted, whole)
    return adapted


def _has_fused_experts(model: PreTrainedModel) -> bool:
    """Whether the experts of a layer are one tensor of three dimensions."""
    return any(
        ".experts." in name and parameter.ndim == 3 for name, parameter in model.named_parameters()
    )


def _beside_experts(
    model: PreTrainedModel, settings: LoraSettings, targets: Targets, whole: Whole
) -> PeftModel:
    """Attach adapters to a model with fused experts, which are adapted only if nothing else is named.

    In many of these models peft widens a regular expression to all layers, and takes ``gate_proj``,
    ``up_proj`` and ``down_proj`` for those of the experts, also when it loads an adapter; dense layers and
    shared experts of that name can't be told from them. So what it would adapt is looked at first.
    """
    probe = _attach(model, replace(settings, dropout=0.0), targets.pattern, Whole())
    found = set(probe.targeted_module_names)
    names = {name.rpartition(".")[2] for name in set(targets.modules) - found}
    kept = tuple(name for name in targets.modules if name.rpartition(".")[2] not in names)
    if not kept:
        if settings.dropout:
            logger.warning("--lora_dropout has no effect: peft adapts experts without dropout")
        plain = cast(PreTrainedModel, probe.unload())
        return _attach(plain, replace(settings, dropout=0.0), targets.pattern, whole)
    if names:
        logger.warning(
            "%s get no adapter in this architecture: peft would take them for the experts'; name them alone in "
            "--target_modules to adapt the experts",
            ", ".join(sorted(names)),
        )
    plain = cast(PreTrainedModel, probe.unload())
    pattern = targets.pattern if found == set(targets.modules) else kept
    return _attach(plain, settings, pattern, whole)


def _merge_layer(layer: LoraLayer) -> None:
    inner = layer.get_base_layer()
    dtype = inner.weight.dtype
    inner.to(torch.float32)
    try:
        layer.merge(safe_merge=True)
    except ValueError as error:
        raise ModelError(f"the adapter can't be merged: {error}") from error
    inner.to(dtype)


def _untie(base: PreTrainedModel, layers: list[LoraLayer]) -> None:
    """Give the head its own weights where an adapter changes the embedding that it shares."""
    head, embedding = base.get_output_embeddings(), base.get_input_embeddings()
    adapted = [layer.get_base_layer().weight for layer in layers]
    if head is None or not any(weight is head.weight for weight in adapted):
        return
    if any(layer is embedding or layer is head for layer in layers):
        plain = head.get_base_layer() if isinstance(head, LoraLayer) else head
        plain.weight = torch.nn.Parameter(plain.weight.detach().clone(), requires_grad=False)
        base.config.tie_word_embeddings = False


def _peft(model: PreTrainedModel) -> PeftModel:
    if not isinstance(model, PeftModel):
        raise ModelError("this model has no adapter attached")
    return model


@contextmanager
def _tied_embeddings_are_handled() -> Iterator[None]:
    """Keep peft from warning about adapted embeddings that the head shares: ``merge`` unties them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Model with `tie_word_embeddings=True`")
        warnings.filterwarnings("ignore", message=r"Model has `tie_word_embeddings=True`")
        yield


LORA = LoraTuner()
