"""Loading models: the one loader of training, inference and export."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from ft_core.checkpoints import SavedCheckpoint, open_checkpoint
from ft_core.errors import ModelError
from ft_core.hub import fetch
from ft_core.hub.cache import Report, report_to_stderr
from ft_core.models.classes import auto_class, saved_with_scores
from ft_core.models.devices import Placement, check_modules
from ft_core.models.modules import linear_names
from ft_core.models.quantization import Quantization, quiet_bitsandbytes, read_stored
from ft_core.models.quantized import (
    check_layers,
    keep_differentiable,
    quantize_by_hqq,
    transformers_config,
)
from ft_core.models.registry import find_by_name
from ft_core.models.remote_code import check_remote_code
from ft_core.models.resolution import ModelSource, resolve_model
from ft_core.models.rope import RopeScaling, read_config, rope_of_checkpoint, scale
from ft_core.tuners import TUNERS


def load_model(
    directory: Path,
    *,
    dtype: torch.dtype,
    attention: str | None = None,
    device: torch.device | str | None = None,
    for_training: bool = False,
    quantization: Quantization | None = None,
    placement: Placement | None = None,
    rope: RopeScaling | None = None,
    name: str | None = None,
    trust_remote_code: bool = False,
    scores: bool = False,
    report: Report | None = None,
) -> PreTrainedModel:
    """Load a language model.

    Weights go from the file to their place one by one, so that no second copy is held.

    Args:
        directory: as ``ft_core.hub.fetch`` returns it.
        dtype: of the weights.
        attention: transformers' name of an attention implementation; ``None`` and ``sdpa`` take torch's
            fused attention, and eager attention for models that can't use it.
        device: where it goes; ``None`` leaves it on the CPU.
        for_training: in training mode with gradients on, else in evaluation mode with gradients off.
            Quantized weights have no gradients: only what is attached to them can be trained.
        quantization: quantize the weights while they are loaded.
        placement: divide the model over devices, in place of ``device``.
        rope: stretch its positions; saved with its configuration.
        name: what adapters saved of this model name as their base (``ModelSource.base_name``).
        trust_remote_code: run Python code from the directory if the model needs it.
        scores: give it one score in place of next tokens; a model without such a head gets a random one.
        report: is told what takes long.

    Raises:
        ModelError: the files are incomplete, damaged or of an unknown architecture, or need code of their
            own and ``trust_remote_code`` is false; or the model gives scores, and ``scores`` is false.
        UsageError: the placement or the settings of layers don't fit the model.
    """
    check_remote_code(directory, name or str(directory), trusted=trust_remote_code)
    stored = read_stored(directory)
    if stored is not None and quantization is not None:
        raise ModelError(f"{name or directory} is quantized already: {stored}")
    config = read_config(directory, trust_remote_code=trust_remote_code)
    if rope is not None:
        scale(config, rope)
    _settle_head(config, name or str(directory), scores=scores)
    if placement is not None or (quantization is not None and quantization.layers):
        _check_structure(
            config, placement, quantization, scores=scores, trust_remote_code=trust_remote_code
        )
    by_hqq = quantization is not None and quantization.method == "hqq"
    settings = None if quantization is None else transformers_config(quantization, dtype)
    quiet_bitsandbytes()
    transformers_logging.disable_progress_bar()  # a command has a progress line of its own
    try:
        with _quiet_about_heads(scores):
            loaded, info = auto_class(config, scores=scores).from_pretrained(
                directory,
                config=config,
                dtype=dtype,
                attn_implementation=None if attention == "sdpa" else attention,
                **({} if by_hqq else _device_map(device, placement)),
                **({} if settings is None else {"quantization_config": settings}),
                trust_remote_code=trust_remote_code,
                local_files_only=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise ModelError(f"the model in {directory} can't be loaded: {error}") from error
    model = cast(PreTrainedModel, loaded)
    inside = f"{model.base_model_prefix}." if scores else ""
    _check_complete(directory, [name for name in info["missing_keys"] if name.startswith(inside)])
    if quantization is not None and by_hqq:
        where = device if placement is None else placement.first
        if report is not None:
            report(f"quantizing {len(linear_names(model)):,} layers by hqq")
        model = quantize_by_hqq(model, quantization, dtype, where or "cpu")
    model.name_or_path = model.config._name_or_path = name or str(directory)
    model.train(for_training)
    if for_training:
        keep_differentiable(model)
    trains = for_training and quantization is None and stored is None
    for parameter in model.parameters():
        if parameter.is_floating_point() or not trains:
            parameter.requires_grad = trains
    return model


def load_with_adapter(
    directory: Path, adapter: SavedCheckpoint, *, trainable: bool = False, **how: Any
) -> PreTrainedModel:
    """Load a base model and attach an adapter to it.

    Args:
        directory: the base model.
        adapter: a checkpoint that holds an adapter.
        trainable: whether the adapter can be trained on.
        **how: as for ``load_model`` (``dtype``, ``attention``, ``device``, ``name``, …). Without ``rope``
            the base's positions are stretched as they were in training.

    Raises:
        ModelError: either can't be loaded, or they don't fit together.
    """
    if how.get("rope") is None:
        how["rope"] = rope_of_checkpoint(
            adapter, directory, trust_remote_code=how.get("trust_remote_code", False)
        )
    if adapter.scores and not how.get("scores"):
        raise ModelError(_no_text(str(adapter.path)))
    base = load_model(directory, for_training=trainable, **how)
    model = TUNERS.get(adapter.kind).load(base, adapter.path, trainable=trainable)
    return model.train(trainable)


def load_checkpoint(
    checkpoint: SavedCheckpoint | str | Path,
    *,
    trainable: bool = False,
    source: ModelSource | None = None,
    report: Report = report_to_stderr,
    **how: Any,
) -> PreTrainedModel:
    """Load what a checkpoint holds: a whole model, or an adapter on its base model.

    Args:
        checkpoint: the checkpoint or its directory.
        trainable: whether it is trained on.
        source: where the base model comes from; ``None`` takes what the checkpoint says.
        report: is told what takes long while the base is fetched.
        **how: as for ``load_model`` (``dtype``, ``attention``, ``device``, …).

    Raises:
        ModelError: it is no checkpoint, or can't be loaded.
        HubError: the base model can't be fetched.
    """
    if not isinstance(checkpoint, SavedCheckpoint):
        checkpoint = open_checkpoint(checkpoint)
    if checkpoint.whole:
        return load_model(checkpoint.path, for_training=trainable, report=report, **how)
    source = source or base_source(checkpoint)
    directory = fetch(source, report=report)
    how.setdefault("name", source.base_name(directory))
    return load_with_adapter(directory, checkpoint, trainable=trainable, report=report, **how)


def base_source(checkpoint: SavedCheckpoint) -> ModelSource:
    """Return where the model of a checkpoint comes from: itself, or the base of an adapter.

    The arguments saved with it win over what the adapter's configuration names, since a registered name
    stays right when caches move.

    Raises:
        ModelError: the checkpoint doesn't say, or what it names is gone.
    """
    saved = checkpoint.arguments
    model_type = saved.get("model_type")
    if model_type is not None and find_by_name(model_type) is None:
        model_type = None
    if checkpoint.whole:
        return resolve_model(model_type, str(checkpoint.path))
    given = saved.get("model_id_or_path")
    if model_type or given:
        return resolve_model(model_type, given, saved.get("model_revision"))
    if not checkpoint.base:
        raise ModelError(
            f"{checkpoint.path} doesn't say which model it adapts; give it with --model_id_or_path"
        )
    return resolve_model(None, checkpoint.base, checkpoint.base_revision)


def _device_map(device: torch.device | str | None, placement: Placement | None) -> dict[str, Any]:
    """Return transformers' arguments that say where weights go."""
    if placement is None:
        return {} if device is None else {"device_map": {"": torch.device(device)}}
    if placement.modules:
        return {
            "device_map": {name: torch.device(item) for name, item in placement.modules.items()}
        }
    return {"device_map": "auto", "max_memory": dict(placement.max_memory)}


def _check_structure(
    config: PreTrainedConfig,
    placement: Placement | None,
    quantization: Quantization | None,
    *,
    scores: bool,
    trust_remote_code: bool,
) -> None:
    """Refuse what names modules that the model doesn't have, before its weights are read."""
    with torch.device("meta"):
        model = auto_class(config, scores=scores).from_config(
            copy.deepcopy(config), trust_remote_code=trust_remote_code
        )
    if placement is not None:
        check_modules(model, placement)
    if quantization is not None:
        check_layers(model, quantization)


def _settle_head(config: PreTrainedConfig, name: str, *, scores: bool) -> None:
    """Ask for one score, or refuse to look for next tokens where there are only scores."""
    if scores:
        config.num_labels = 1
    elif saved_with_scores(config):
        raise ModelError(_no_text(name))


@contextmanager
def _quiet_about_heads(scores: bool) -> Iterator[None]:
    """Keep transformers from listing that a head is new; weights that are missing elsewhere are refused later."""
    before = transformers_logging.get_verbosity()
    if scores:
        transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)


def _no_text(name: str) -> str:
    return (
        f"{name} is a reward model: it gives a score and no text. Use it with --reward_funcs model:DIR of ft rlhf, or "
        "load it with transformers' AutoModelForSequenceClassification (num_labels=1)"
    )


def _check_complete(directory: Path, names: list[str]) -> None:
    if missing := sorted(names):
        shown = ", ".join(missing[:4]) + (", …" if len(missing) > 4 else "")
        raise ModelError(
            f"the weights in {directory} lack {len(missing)} tensors of the model ({shown}); fetch them again"
        )
