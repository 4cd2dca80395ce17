"""Bottleneck adapters: a checkpoint holds their weights and needs ft to be used."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from ft_core.checkpoints import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from ft_core.errors import ModelError
from ft_core.tuner import UNMERGEABLE
from ft_core.tuners.adapter.bottleneck import bottlenecks, find_sublayers, insert
from ft_core.tuners.adapter.settings import AdapterSettings


@dataclass(frozen=True, slots=True)
class AdapterTuner:
    """Trains bottlenecks after the attention and the feed-forward part of each layer."""

    name: str = "adapter"

    def apply(self, model: PreTrainedModel, settings: AdapterSettings) -> PreTrainedModel:
        """Insert bottlenecks that begin as nothing, and freeze everything else."""
        model.requires_grad_(False)
        insert(model, find_sublayers(model), settings.length, settings.act)
        return model

    def save(
        self, model: PreTrainedModel, directory: Path, *, safe_serialization: bool = True
    ) -> None:
        """Write the bottlenecks, and a configuration that says where they go."""
        inserted = bottlenecks(model)
        if not inserted:
            raise ModelError("this model has no bottleneck adapters")
        first = next(iter(inserted.values()))
        config = {
            "ft_tuner": self.name,
            "base_model_name_or_path": model.name_or_path or None,
            "length": first.down.out_features,
            "act": type(first.act).__name__.lower(),
            "after": list(inserted),
        }
        (directory / ADAPTER_CONFIG).write_text(
            json.dumps(config, indent=2) + "\n", encoding="utf-8"
        )
        weights = {
            f"{name}.{key}": value.detach().cpu().contiguous()
            for name, module in inserted.items()
            for key, value in module.state_dict().items()
        }
        if safe_serialization:
            save_file(weights, directory / ADAPTER_WEIGHTS[0], metadata={"format": "pt"})
        else:
            torch.save(weights, directory / ADAPTER_WEIGHTS[1])

    def load(
        self, model: PreTrainedModel, directory: Path, *, trainable: bool = False
    ) -> PreTrainedModel:
        """Insert saved bottlenecks.

        Raises:
            ModelError: they are incomplete, damaged, or made for another model.
        """
        try:
            config = json.loads((directory / ADAPTER_CONFIG).read_text(encoding="utf-8"))
            weights = _read(directory)
            model.requires_grad_(False)
            insert(model, tuple(config["after"]), config["length"], config["act"])
            for name, module in bottlenecks(model).items():
                module.load_state_dict(
                    {key: weights.pop(f"{name}.{key}") for key in module.state_dict()}
                )
                module.requires_grad_(trainable)
            if weights:
                raise ValueError(f"there is no place for {next(iter(weights))}")
        except (
            *(OSError, ValueError, KeyError, RuntimeError, AttributeError, TypeError),
            SafetensorError,
        ) as error:
            raise ModelError(
                f"the adapter in {directory} doesn't fit {model.name_or_path}, or is damaged: {error}"
            ) from error
        return model

    def merge(self, model: PreTrainedModel) -> PreTrainedModel:
        """Refuse: a matrix can't hold a bottleneck.

        Raises:
            ModelError: always.
        """
        raise ModelError(
            f"--sft_type adapter can't be merged: {UNMERGEABLE[self.name]}; use the checkpoint as it is"
        )


def _read(directory: Path) -> dict[str, Any]:
    safe, pickled = (directory / name for name in ADAPTER_WEIGHTS)
    if safe.is_file():
        return dict(load_file(safe))
    return dict(torch.load(pickled, map_location="cpu", weights_only=True))


ADAPTER = AdapterTuner()
