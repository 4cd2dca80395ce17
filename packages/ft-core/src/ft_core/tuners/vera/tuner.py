"""VeRA on peft: a checkpoint is a plain peft adapter."""

from __future__ import annotations

from peft import VeraConfig
from transformers import PreTrainedModel

from ft_core.tuners.peft_adapter import Aim, PeftTuner
from ft_core.tuners.vera.settings import VeraSettings


def configure(model: PreTrainedModel, settings: VeraSettings, aim: Aim) -> VeraConfig:
    """Return peft's configuration."""
    return VeraConfig(
        **aim.config(model),
        r=settings.rank,
        projection_prng_key=settings.seed,
        save_projection=settings.save_projection,
        vera_dropout=settings.dropout,
        d_initial=settings.d_initial,
    )


VERA = PeftTuner("vera", configure)
