"""What all tuners on peft do alike: find their layers, wrap them, save, load and merge."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftConfig, PeftModel, TaskType, get_peft_model, load_peft_weights
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ft_core.errors import ModelError, UsageError
from ft_core.models.classes import gives_scores
from ft_core.models.modules import Targets, find_targets
from ft_core.tuners.older_layout import as_peft
from ft_core.tuners.targets import TargetSettings
from ft_core.tuners.whole import (
    Whole,
    find_whole_parts,
    fit_rows,
    fold,
    restore_float32,
    settle,
    settle_tie,
    tie_copies,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Aim:
    """What of a model is adapted, and what is trained whole beside.

    Attributes:
        targets: the layers that get an adapter.
        whole: modules and rows that are trained whole.
    """

    targets: Targets
    whole: Whole

    def config(self, model: PreTrainedModel, *, ties: bool = False) -> dict[str, Any]:
        """Return the values that the configurations of all of peft's methods have in common.

        Args:
            model: the plain model.
            ties: whether the method's configuration knows tied modules.
        """
        pattern = self.targets.pattern
        return {
            "task_type": TaskType.SEQ_CLS if gives_scores(model) else TaskType.CAUSAL_LM,
            "target_modules": pattern if isinstance(pattern, str) else list(pattern),
            "base_model_name_or_path": model.name_or_path or None,
            "fan_in_fan_out": any(isinstance(module, Conv1D) for module in model.modules()),
            **self.whole.config(ties=ties),
        }


def take_aim(model: PreTrainedModel, settings: TargetSettings) -> Aim:
    """Find the layers and modules that settings name.

    Raises:
        UsageError: they match nothing, or something is named that can't be trained.
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
    return Aim(targets, whole)


def wrap(model: PreTrainedModel, config: PeftConfig, whole: Whole) -> PeftModel:
    """Attach an adapter; adapters of bf16 and fp16 models are float32, where their small steps count.

    Raises:
        UsageError: the method can't adapt one of the layers.
    """
    with quiet_peft():
        try:
            adapted = cast(PeftModel, get_peft_model(model, config))
        except (ValueError, TypeError) as error:
            name = str(config.peft_type).rpartition(".")[2].lower()
            raise UsageError(f"--sft_type {name} can't be used like this: {error}") from error
    settle(adapted, whole)
    return adapted


def save_adapter(model: PreTrainedModel, directory: Path, *, safe_serialization: bool) -> None:
    """Write the adapter as peft does.

    The base's embedding is never part of it, although peft would add it (and ask the hub about it).
    """
    with warnings.catch_warnings():
        # AdaLoRA leaves some layers no rank at all, which peft takes for a mistake.
        warnings.filterwarnings(
            "ignore", message=r"Adapter '.*': \d+ LoRA tensor\(s\) have invalid"
        )
        peft_model(model).save_pretrained(
            str(directory), safe_serialization=safe_serialization, save_embedding_layers=False
        )


def load_adapter(
    model: PreTrainedModel,
    directory: Path,
    *,
    trainable: bool,
    ready: Callable[[PeftConfig, PreTrainedModel], None] | None = None,
) -> PeftModel:
    """Attach a saved adapter.

    Args:
        model: the plain model.
        directory: of the adapter.
        trainable: whether it is trained on.
        ready: gets its configuration before its layers are made.

    Raises:
        ModelError: the adapter is incomplete, damaged, or made for another model.
    """
    try:
        with as_peft(directory) as plain, quiet_peft():
            # An adapter with holes would answer like the base in places; peft only warns of that.
            warnings.filterwarnings("error", message="Found missing adapter keys")
            fit_rows(model, plain)
            config = PeftConfig.from_pretrained(str(plain))
            if ready is not None:
                ready(config, model)
            adapted = PeftModel.from_pretrained(
                model, str(plain), is_trainable=trainable, config=config
            )
            if trainable:
                restore_float32(adapted, plain)
                tie_copies(adapted)
                _restore_dtypes(adapted, plain)
    except (OSError, ValueError, KeyError, RuntimeError, UserWarning, SafetensorError) as error:
        raise ModelError(
            f"the adapter in {directory} doesn't fit {model.name_or_path}, or is damaged: {error}"
        ) from error
    return adapted


def merge_adapter(model: PreTrainedModel) -> PreTrainedModel:
    """Fold an adapter into the weights, computed in float32 and rounded once.

    Raises:
        ModelError: the base is quantized, or the adapter holds numbers that aren't finite.
    """
    adapted = peft_model(model)
    base = cast(PreTrainedModel, adapted.get_base_model())
    if getattr(base.config, "quantization_config", None) is not None:
        raise ModelError(
            "an adapter can't be merged into quantized weights; load its base model without quantization"
        )
    layers = [module for module in adapted.modules() if isinstance(module, BaseTunerLayer)]
    fold(adapted)
    _untie(base, layers)
    for layer in layers:
        if not layer.merged:
            _merge_layer(layer)
    merged = cast(PreTrainedModel, adapted.unload())
    settle_tie(merged)
    return merged


def peft_model(model: torch.nn.Module) -> PeftModel:
    """Return the model as peft's.

    Raises:
        ModelError: it has no adapter of peft.
    """
    if not isinstance(model, PeftModel):
        raise ModelError("this model has no adapter attached")
    return model


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Keep peft from warning about what is taken care of here."""
    with warnings.catch_warnings():
        # Embeddings that the head shares: ``merge_adapter`` unties them.
        warnings.filterwarnings("ignore", message=r"Model with `tie_word_embeddings=True`")
        warnings.filterwarnings("ignore", message=r"Model has `tie_word_embeddings=True`")
        # Names of experts that it translates without finding any; what was adapted is checked instead.
        warnings.filterwarnings("ignore", message=r"The following (rank|alpha)_pattern keys")
        # It corrects the flag for each layer by itself.
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
        # BOFT's kernel for GPUs is compiled where there is one; without, torch computes the same.
        warnings.filterwarnings("ignore", message="Failed to load the CUDA extension")
        warnings.filterwarnings("ignore", message="Setting boft_n_butterfly_factor to 1")
        yield


@dataclass(frozen=True, slots=True)
class PeftTuner:
    """A tuner whose adapter is one of peft's on linear layers, and whose checkpoint plain peft loads.

    Attributes:
        name: as ``--sft_type`` takes it.
        configure: makes peft's configuration of the plain model, the settings and what is aimed at.
        ties: whether that configuration knows tied modules and rows of tokens, as LoRA's does.
    """

    name: str
    configure: Callable[[PreTrainedModel, Any, Aim], PeftConfig]
    ties: bool = False

    def apply(self, model: PreTrainedModel, settings: Any) -> PreTrainedModel:
        """Attach the adapter and freeze everything else.

        Raises:
            UsageError: the targets match nothing, or layers that this method can't adapt.
        """
        aim = take_aim(model, settings)
        for name in aim.targets.modules:
            if isinstance(model.get_submodule(name), torch.nn.Embedding):
                raise UsageError(
                    f"--target_modules: {name} is an embedding, and --sft_type {self.name} adapts linear layers only; "
                    "leave it out, or train it whole with --modules_to_save EMBEDDING"
                )
        if aim.whole.tokens and not self.ties:
            raise UsageError(
                f"--new_special_tokens: --sft_type {self.name} can't train single rows of the embedding; add "
                "--modules_to_save EMBEDDING lm_head to train them all, or use --sft_type lora"
            )
        adapted = wrap(model, self.configure(model, settings, aim), aim.whole)
        return cast(PreTrainedModel, adapted)

    def save(
        self, model: PreTrainedModel, directory: Path, *, safe_serialization: bool = True
    ) -> None:
        """Write the adapter."""
        save_adapter(model, directory, safe_serialization=safe_serialization)

    def load(
        self, model: PreTrainedModel, directory: Path, *, trainable: bool = False
    ) -> PreTrainedModel:
        """Attach a saved adapter.

        Raises:
            ModelError: the adapter is incomplete, damaged, or made for another model.
        """
        return cast(PreTrainedModel, load_adapter(model, directory, trainable=trainable))

    def merge(self, model: PreTrainedModel) -> PreTrainedModel:
        """Fold the adapter into the weights, computed in float32 and rounded once.

        Raises:
            ModelError: the base is quantized, or the adapter holds numbers that aren't finite.
        """
        return merge_adapter(model)


def _merge_layer(layer: BaseTunerLayer) -> None:
    inner = layer.get_base_layer()
    dtype = next(inner.parameters()).dtype
    inner.to(torch.float32)
    try:
        layer.merge(safe_merge=True)
    except ValueError as error:
        raise ModelError(f"the adapter can't be merged: {error}") from error
    inner.to(dtype)


def _untie(base: PreTrainedModel, layers: list[BaseTunerLayer]) -> None:
    """Give the head its own weights where an adapter changes the embedding that it shares."""
    head, embedding = base.get_output_embeddings(), base.get_input_embeddings()
    adapted = [parameter for layer in layers for parameter in layer.get_base_layer().parameters()]
    if head is None or not any(weight is head.weight for weight in adapted):
        return
    if any(layer is embedding or layer is head for layer in layers):
        plain = head.get_base_layer() if isinstance(head, BaseTunerLayer) else head
        plain.weight = torch.nn.Parameter(plain.weight.detach().clone(), requires_grad=False)
        base.config.tie_word_embeddings = False


def _restore_dtypes(adapted: PeftModel, directory: Path) -> None:
    """Give the adapter's parameters the data type they were saved in, as ``--lora_dtype`` had it."""
    saved = load_peft_weights(str(directory), device="cpu")
    name = adapted.active_adapter
    for full, parameter in adapted.named_parameters():
        value = saved.get(full.replace(f".{name}", ""))
        if value is not None and parameter.requires_grad and value.dtype != parameter.dtype:
            parameter.data = value.to(parameter.device)
