"""Which of transformers' classes loads a model: one of texts, or one that also sees or hears."""

from __future__ import annotations

from typing import Any

from transformers import AutoModelForCausalLM, AutoModelForMultimodalLM, PreTrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MULTIMODAL_LM_MAPPING,
)


def auto_class(config: PreTrainedConfig) -> Any:
    """Return the class whose ``from_pretrained`` and ``from_config`` make the model of a configuration.

    A model with towers is loaded with them. Code of a model's own repository says itself what it is loaded by.
    """
    remote = getattr(config, "auto_map", None) or {}
    if "AutoModelForCausalLM" in remote:
        return AutoModelForCausalLM
    kind = type(config)
    if kind in MODEL_FOR_MULTIMODAL_LM_MAPPING and (
        config.get_text_config() is not config or kind not in MODEL_FOR_CAUSAL_LM_MAPPING
    ):
        return AutoModelForMultimodalLM
    return AutoModelForCausalLM
