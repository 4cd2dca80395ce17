"""From flags to the settings of the tuner that ``--sft_type`` names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ft_core.command import Invocation
from ft_core.tuners import (
    AdaLoraSettings,
    AdapterSettings,
    BoftSettings,
    FourierFtSettings,
    FullSettings,
    Ia3Settings,
    LlamaProSettings,
    LongLoraSettings,
    LoraSettings,
    VeraSettings,
)
from ft_train.tuner_arguments import (
    AdaLoraArguments,
    AdapterArguments,
    LoraArguments,
    TunerArguments,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What settings take from the model and the run instead of flags.

    Attributes:
        default_targets: what ``DEFAULT`` means for the model.
        new_token_ids: tokens that the model didn't have (``--new_special_tokens``): an adapter trains their
            rows of the embedding and the head. A tuner that can't refuses them by name.
        total_steps: optimizer steps of the run; ``None`` where they aren't known yet.
        max_length: tokens that texts are cut to; ``None`` where they aren't.
        run: runs the model on rows of the training data.
    """

    default_targets: tuple[str, ...] | str = ()
    new_token_ids: tuple[int, ...] = ()
    total_steps: int | None = None
    max_length: int | None = None
    run: Callable[[PreTrainedModel], None] | None = None


def tuner_settings(invocation: Invocation, facts: ModelFacts) -> Any:
    """Return what the tuner named by ``--sft_type`` takes.

    Raises:
        UsageError: values that can't work, with their flags.
    """
    return _MAKERS[invocation.get(TunerArguments).sft_type](invocation, facts)


def _targets(invocation: Invocation, facts: ModelFacts) -> dict[str, Any]:
    tuner = invocation.get(TunerArguments)
    return {
        "target_modules": tuple(tuner.target_modules),
        "target_regex": tuner.target_regex,
        "modules_to_save": tuple(tuner.modules_to_save),
        "default_targets": facts.default_targets,
        "new_token_ids": facts.new_token_ids,
    }


def _lora_values(invocation: Invocation, facts: ModelFacts) -> dict[str, Any]:
    lora = invocation.get(LoraArguments)
    return {
        **_targets(invocation, facts),
        "rank": lora.lora_rank,
        "alpha": lora.lora_alpha,
        "dropout": lora.lora_dropout,
        "bias": lora.lora_bias_trainable,
        "use_dora": lora.use_dora,
        "use_rslora": lora.use_rslora,
        "init": lora.init_lora_weights.lower(),
        "dtype": lora.lora_dtype,
        "run": facts.run,
    }


def _lora(invocation: Invocation, facts: ModelFacts) -> LoraSettings:
    return LoraSettings(**_lora_values(invocation, facts))


def _longlora(invocation: Invocation, facts: ModelFacts) -> LongLoraSettings:
    return LongLoraSettings(**_lora_values(invocation, facts), context_length=facts.max_length)


def _full(invocation: Invocation, facts: ModelFacts) -> FullSettings:
    tuner = invocation.get(TunerArguments)
    return FullSettings(
        freeze_parameters=tuner.freeze_parameters,
        additional_trainable_parameters=tuple(tuner.additional_trainable_parameters),
        new_token_ids=facts.new_token_ids,
    )


def _adalora(invocation: Invocation, facts: ModelFacts) -> AdaLoraSettings:
    ada, lora = invocation.get(AdaLoraArguments), invocation.get(LoraArguments)
    return AdaLoraSettings(
        **_targets(invocation, facts),
        target_r=ada.adalora_target_r,
        init_r=ada.adalora_init_r,
        tinit=ada.adalora_tinit,
        tfinal=ada.adalora_tfinal,
        delta_t=ada.adalora_deltaT,
        beta1=ada.adalora_beta1,
        beta2=ada.adalora_beta2,
        orth_reg_weight=ada.adalora_orth_reg_weight,
        alpha=lora.lora_alpha,
        dropout=lora.lora_dropout,
        total_steps=facts.total_steps,
    )


def _ia3(invocation: Invocation, facts: ModelFacts) -> Ia3Settings:
    names = invocation.get(AdapterArguments).ia3_feedforward_modules
    return Ia3Settings(**_targets(invocation, facts), feedforward_modules=tuple(names))


def _vera(invocation: Invocation, facts: ModelFacts) -> VeraSettings:
    flags = invocation.get(AdapterArguments)
    return VeraSettings(
        **_targets(invocation, facts),
        rank=flags.vera_rank,
        save_projection=flags.vera_projection_prng_key,
        dropout=flags.vera_dropout,
        d_initial=flags.vera_d_initial,
    )


def _boft(invocation: Invocation, facts: ModelFacts) -> BoftSettings:
    flags = invocation.get(AdapterArguments)
    # A number that is given replaces the default of the size.
    by_number = bool(flags.boft_block_num) and not invocation.given("boft_block_size")
    return BoftSettings(
        **_targets(invocation, facts),
        block_size=0 if by_number else flags.boft_block_size,
        block_num=flags.boft_block_num,
        dropout=flags.boft_dropout,
    )


def _fourierft(invocation: Invocation, facts: ModelFacts) -> FourierFtSettings:
    flags = invocation.get(AdapterArguments)
    return FourierFtSettings(
        **_targets(invocation, facts),
        n_frequency=flags.fourier_n_frequency,
        scaling=flags.fourier_scaling,
    )


def _adapter(invocation: Invocation, facts: ModelFacts) -> AdapterSettings:
    flags = invocation.get(AdapterArguments)
    return AdapterSettings(
        length=flags.adapter_length, act=flags.adapter_act, new_token_ids=facts.new_token_ids
    )


def _llamapro(invocation: Invocation, facts: ModelFacts) -> LlamaProSettings:
    flags = invocation.get(AdapterArguments)
    return LlamaProSettings(
        num_new_blocks=flags.llamapro_num_new_blocks,
        num_groups=flags.llamapro_num_groups,
        new_token_ids=facts.new_token_ids,
    )


_MAKERS: Mapping[str, Callable[[Invocation, ModelFacts], Any]] = {
    "lora": _lora,
    "longlora": _longlora,
    "full": _full,
    "adalora": _adalora,
    "ia3": _ia3,
    "vera": _vera,
    "boft": _boft,
    "fourierft": _fourierft,
    "adapter": _adapter,
    "llamapro": _llamapro,
}
