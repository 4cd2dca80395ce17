"""AdaLoRA on peft: a checkpoint is a plain peft adapter."""

from __future__ import annotations

from peft import AdaLoraConfig
from transformers import PreTrainedModel

from ft_core.tuners.adalora.settings import AdaLoraSettings
from ft_core.tuners.peft_adapter import Aim, PeftTuner

_UNKNOWN = 2**31
"""Steps of a run that isn't planned yet; whoever trains sets them before the first."""


def configure(model: PreTrainedModel, settings: AdaLoraSettings, aim: Aim) -> AdaLoraConfig:
    """Return peft's configuration."""
    return AdaLoraConfig(
        **aim.config(model, ties=True),
        target_r=settings.target_r,
        init_r=settings.init_r,
        tinit=settings.tinit,
        tfinal=settings.tfinal,
        deltaT=settings.delta_t,
        beta1=settings.beta1,
        beta2=settings.beta2,
        orth_reg_weight=settings.orth_reg_weight,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        total_step=settings.total_steps or _UNKNOWN,
    )


ADALORA = PeftTuner("adalora", configure, ties=True)
