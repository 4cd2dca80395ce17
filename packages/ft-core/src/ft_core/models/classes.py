"""Which of transformers' classes loads a model: one of texts, one that also sees or hears, or one that gives scores."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMultimodalLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MULTIMODAL_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
)

from ft_core.errors import ModelError

_SCORING = "ForSequenceClassification"
"""How transformers ends the names of classes with a head that gives scores."""


def auto_class(config: PreTrainedConfig, *, scores: bool = False) -> Any:
    """Return the class whose ``from_pretrained`` and ``from_config`` make the model of a configuration.

    A model with towers is loaded with them. Code of a model's own repository says itself what it is loaded by.

    Args:
        config: of the model.
        scores: whether it gives a text one score, as a reward model does, in place of next tokens.

    Raises:
        ModelError: transformers has no class of this architecture that gives scores.
    """
    remote = getattr(config, "auto_map", None) or {}
    if scores:
        name = "AutoModelForSequenceClassification"
        if name not in remote and type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
            raise ModelError(
                f"transformers has no class for {config.model_type} models that gives scores, so none can be a reward "
                "model; take a text model of another family"
            )
        return AutoModelForSequenceClassification
    if "AutoModelForCausalLM" in remote:
        return AutoModelForCausalLM
    kind = type(config)
    if kind in MODEL_FOR_MULTIMODAL_LM_MAPPING and (
        config.get_text_config() is not config or kind not in MODEL_FOR_CAUSAL_LM_MAPPING
    ):
        return AutoModelForMultimodalLM
    return AutoModelForCausalLM


def gives_scores(model: torch.nn.Module) -> bool:
    """Whether a model of transformers gives scores in place of next tokens."""
    return type(model).__name__.endswith(_SCORING)


def saved_with_scores(config: PreTrainedConfig) -> bool:
    """Whether the weights beside a configuration are those of a model that gives scores."""
    return any(name.endswith(_SCORING) for name in config.architectures or ())
