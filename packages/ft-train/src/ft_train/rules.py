"""Which flags exclude each other, and which have no effect: two tables that are read from top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ft_core.command import Invocation
from ft_core.errors import UsageError
from ft_core.tuners.lora.settings import needs_rows, takes_from_weights
from ft_train.distributed.deepspeed_config import read_deepspeed, stage_of

Values = Mapping[str, Any]
"""The value of each flag of a command."""

_LORA = frozenset({"lora", "longlora"})
_LORA_LIKE = _LORA | {"adalora"}
_TARGETED = _LORA_LIKE | {"ia3", "vera", "boft", "fourierft"}


@dataclass(frozen=True, slots=True)
class Exclusion:
    """Two flags whose values can't be used together.

    Attributes:
        first, second: the flags; a command that lacks one isn't concerned.
        broken: whether the values of a command break the rule.
        remedy: why, and what to do.
        given: the rule counts only where a person gave the first flag.
    """

    first: str
    second: str
    broken: Callable[[Values], bool]
    remedy: str
    given: bool = False


def _needs(flag: str, kinds: Collection[str]) -> Callable[[Values], bool]:
    """Break where a flag is used with a tuner that isn't one of ``kinds``."""
    return lambda values: bool(values[flag]) and values["sft_type"] not in kinds


def _both(first: str, second: str) -> Callable[[Values], bool]:
    """Break where both flags are used."""
    return lambda values: bool(values[first]) and bool(values[second])


def _alone(first: str, second: str) -> Callable[[Values], bool]:
    """Break where the first flag is used without the second."""
    return lambda values: bool(values[first]) and not values[second]


def _other_optimizer(flag: str) -> Callable[[Values], bool]:
    return lambda values: bool(values[flag]) and not values["optim"].startswith("adamw_torch")


ELEMENTWISE = ("adamw_torch", "adamw_torch_fused", "sgd", "adagrad", "rmsprop")
"""Optimizers that work on single numbers, so that they can work on parts of matrices."""


def _with_slices(flag: str) -> Callable[[Values], bool]:
    """Break where a flag is used and each process holds a slice of a sequence."""
    return lambda values: bool(values[flag]) and values["sequence_parallel_size"] > 1


def _not_divided(
    flag: str, used: Callable[[Values], bool], remedy: str
) -> tuple[Exclusion, Exclusion]:
    """Refuse what DeepSpeed or FSDP2 would take the gradients away from."""
    return (
        Exclusion(flag, "deepspeed", lambda v: used(v) and v["deepspeed"] is not None, remedy),
        Exclusion(flag, "fsdp", lambda v: used(v) and bool(v["fsdp"]), remedy),
    )


def _not_whole(
    flag: str, used: Callable[[Values], bool], remedy: str, *, given: bool = False
) -> tuple[Exclusion, Exclusion]:
    """Refuse what needs a whole model in each process."""

    def zero3(values: Values) -> bool:
        config = values["deepspeed"]
        return used(values) and config is not None and stage_of(read_deepspeed(config)) == 3

    return (
        Exclusion(flag, "deepspeed", zero3, remedy, given),
        Exclusion(flag, "fsdp", lambda v: used(v) and bool(v["fsdp"]), remedy, given),
    )


EXCLUSIONS: tuple[Exclusion, ...] = (
    Exclusion(
        *("freeze_parameters", "sft_type"),
        _needs("freeze_parameters", {"full"}),
        "only training of all weights leaves some to freeze; give --sft_type full",
    ),
    Exclusion(
        *("additional_trainable_parameters", "sft_type"),
        _needs("additional_trainable_parameters", {"full"}),
        "give --sft_type full, or name modules with --modules_to_save",
    ),
    Exclusion(
        *("lisa_activated_layers", "sft_type"),
        _needs("lisa_activated_layers", {"full"}),
        "LISA draws among layers whose weights are trained; give --sft_type full",
    ),
    Exclusion(
        *("lisa_activated_layers", "freeze_parameters"),
        _both("lisa_activated_layers", "freeze_parameters"),
        "LISA itself decides what is frozen; leave one of them out",
    ),
    Exclusion(
        *("lisa_activated_layers", "use_galore"),
        _both("lisa_activated_layers", "use_galore"),
        "subspaces of layers that are trained now and then go stale; leave one of them out",
    ),
    Exclusion(
        *("lisa_activated_layers", "load_best_model_at_end"),
        _both("lisa_activated_layers", "load_best_model_at_end"),
        "only the layers trained at that moment could be put back; load the best checkpoint instead",
    ),
    Exclusion(
        *("use_galore", "sft_type"),
        _needs("use_galore", {"full"}),
        "GaLore projects the gradients of whole matrices; give --sft_type full",
    ),
    Exclusion(
        *("use_galore", "optim"),
        _other_optimizer("use_galore"),
        "GaLore brings its own AdamW; leave --optim out",
    ),
    Exclusion(
        *("galore_quantization", "use_galore"),
        _alone("galore_quantization", "use_galore"),
        "it is a form of GaLore; give --use_galore true too",
    ),
    Exclusion(
        *("galore_proj_quant", "galore_quantization"),
        _alone("galore_proj_quant", "galore_quantization"),
        "projections are stored in few bits by Q-GaLore; give --galore_quantization true too",
    ),
    Exclusion(
        *("lora_lr_ratio", "sft_type"),
        _needs("lora_lr_ratio", _LORA),
        "LoRA+ lets the matrices B of LoRA learn faster; give --sft_type lora",
    ),
    Exclusion(
        *("lora_lr_ratio", "optim"),
        _other_optimizer("lora_lr_ratio"),
        "LoRA+ trains by AdamW; leave --optim out",
    ),
    Exclusion(
        *("init_lora_weights", "quantization_bit"),
        lambda values: (
            bool(values["quantization_bit"])
            and takes_from_weights(values["init_lora_weights"].lower())
        ),
        "these adapters begin with a part of the plain weights; use true or eva, or leave quantization out",
    ),
    Exclusion(
        *("use_dora", "quantization_bit"),
        lambda values: (
            bool(values["use_dora"])
            and values["quantization_bit"] == 8
            and values["quant_method"] in (None, "bnb")
        ),
        "peft can't take the lengths of bnb's 8-bit weights; give --quantization_bit 4 or --quant_method hqq",
    ),
    Exclusion(
        *("init_lora_weights", "use_dora"),
        lambda values: (
            bool(values["use_dora"]) and takes_from_weights(values["init_lora_weights"].lower())
        ),
        "what is taken out of the weights changes their lengths, which DoRA trains; leave one of them out",
    ),
    Exclusion(
        *("init_lora_weights", "streaming"),
        lambda values: (
            bool(values["streaming"]) and needs_rows(values["init_lora_weights"].lower())
        ),
        "these adapters look at rows before they begin, and a stream is read once; use pissa or true",
    ),
    Exclusion(
        *("tuner_backend", "sft_type"),
        lambda values: values["tuner_backend"] == "swift" and values["sft_type"] not in _LORA,
        "the older layout is one of LoRA's adapters; leave --tuner_backend out, or give --sft_type lora or longlora",
    ),
    Exclusion(
        *("tuner_backend", "init_lora_weights"),
        lambda values: (
            values["tuner_backend"] == "swift"
            and takes_from_weights(values["init_lora_weights"].lower())
        ),
        "the older layout has no place for how these adapters began; leave --tuner_backend out",
    ),
    Exclusion(
        *("deepspeed", "fsdp"),
        _both("deepspeed", "fsdp"),
        "both divide the model over processes; leave one of them out",
    ),
    *_not_divided(
        "sft_type",
        lambda values: values["sft_type"] == "adalora",
        "AdaLoRA looks at whole gradients to share out ranks; leave it out, processes of DDP can",
    ),
    *_not_divided(
        "lisa_activated_layers",
        lambda values: bool(values["lisa_activated_layers"]),
        "LISA frees the optimizer's memory of frozen layers by itself, in one process; leave one of them out",
    ),
    *_not_divided(
        "use_galore",
        lambda values: bool(values["use_galore"]),
        "GaLore projects whole matrices, and no process holds their gradients; leave one of them out",
    ),
    *_not_divided(
        "optim",
        lambda values: values["optim"] not in ELEMENTWISE,
        f"it needs whole matrices, and no process holds them; use one of {', '.join(ELEMENTWISE)}",
    ),
    *_not_whole(
        "quantization_bit",
        lambda values: bool(values["quantization_bit"]),
        "packed weights can't be divided; use --deepspeed default-zero2, which divides the optimizer",
    ),
    *_not_whole(
        "predict_with_generate",
        lambda values: bool(values["predict_with_generate"]),
        "no process holds the whole model to answer with; run `ft infer` on the checkpoints",
    ),
    *_not_whole(
        "load_best_model_at_end",
        lambda values: bool(values["load_best_model_at_end"]),
        "no process holds the whole model; the best checkpoint is on disk in any case",
    ),
    *_not_whole(
        "sample_answers",
        lambda values: bool(values["sample_answers"]),
        "no process holds the whole model to answer with; leave it out",
        given=True,
    ),
    Exclusion(
        *("save_on_each_node", "fsdp"),
        _both("save_on_each_node", "fsdp"),
        "the parts of FSDP2's optimizer are read back by all processes; write to a disk that all nodes share",
    ),
    Exclusion(
        *("neftune_noise_alpha", "sequence_parallel_size"),
        _with_slices("neftune_noise_alpha"),
        "the noise depends on the length of a document, of which a process sees a slice; leave one of them out",
    ),
    Exclusion(
        *("sft_type", "sequence_parallel_size"),
        lambda values: (
            values["sequence_parallel_size"] > 1 and values["sft_type"] in ("longlora", "adalora")
        ),
        "LongLoRA has an attention of its own, and AdaLoRA's penalty isn't divided; use --sft_type lora",
    ),
    Exclusion(
        *("acc_strategy", "sequence_parallel_size"),
        lambda values: (
            values["sequence_parallel_size"] > 1 and values["acc_strategy"] == "sentence"
        ),
        "a process sees a slice of each sentence; use --acc_strategy token",
    ),
    Exclusion(
        *("boft_block_size", "boft_block_num"),
        lambda values: values["boft_block_num"] > 0 and values["boft_block_size"] not in (0, 4),
        "one follows from the other; leave one of them out",
    ),
)
"""Pairs that are refused before anything is loaded."""


@dataclass(frozen=True, slots=True)
class Condition:
    """When flags have an effect.

    Attributes:
        flags: those that depend on it.
        holds: whether the values of a command give them one.
        words: the condition, as in ``has no effect without …``.
    """

    flags: tuple[str, ...]
    holds: Callable[[Values], bool]
    words: str


def _for(kinds: Collection[str], *flags: str) -> Condition:
    return Condition(
        flags,
        lambda values: values["sft_type"] in kinds,
        f"--sft_type {' or '.join(sorted(kinds))}",
    )


def _with(switch: str, *flags: str) -> Condition:
    return Condition(flags, lambda values: bool(values[switch]), f"--{switch}")


CONDITIONS: tuple[Condition, ...] = (
    _for(_TARGETED, "target_modules", "target_regex", "modules_to_save"),
    _for(_LORA, "lora_rank", "lora_dtype", "init_lora_weights", "use_dora", "use_rslora"),
    _for(_LORA_LIKE, "lora_alpha", "lora_dropout", "lora_bias_trainable"),
    _for(
        {"adalora"},
        *("adalora_target_r", "adalora_init_r", "adalora_tinit", "adalora_tfinal"),
        *("adalora_deltaT", "adalora_beta1", "adalora_beta2", "adalora_orth_reg_weight"),
    ),
    _for({"ia3"}, "ia3_feedforward_modules"),
    _for({"vera"}, "vera_rank", "vera_projection_prng_key", "vera_dropout", "vera_d_initial"),
    _for({"boft"}, "boft_block_size", "boft_block_num", "boft_dropout"),
    _for({"fourierft"}, "fourier_n_frequency", "fourier_scaling"),
    _for({"adapter"}, "adapter_length", "adapter_act"),
    _for({"llamapro"}, "llamapro_num_new_blocks", "llamapro_num_groups"),
    _with(
        "use_galore",
        *("galore_target_modules", "galore_rank", "galore_update_proj_gap", "galore_scale"),
        *("galore_proj_type", "galore_optim_per_parameter", "galore_with_embedding"),
    ),
    _with("galore_quantization", "galore_cos_threshold", "galore_gamma_proj", "galore_queue_size"),
    _with("galore_proj_quant", "galore_proj_bits", "galore_proj_group_size"),
    _with("lisa_activated_layers", "lisa_step_interval"),
    _with("neftune_noise_alpha", "neftune_backend"),
    _with("fsdp", "fsdp_config"),
)
"""Flags that are told to have no effect where their condition doesn't hold."""


def check_rules(invocation: Invocation, rules: Sequence[Exclusion] = EXCLUSIONS) -> None:
    """Refuse a command whose flags exclude each other.

    Raises:
        UsageError: with both flags, their values and the remedy.
    """
    values = {name: item.value for name, item in invocation.values.items()}
    for rule in rules:
        if rule.first not in values or rule.second not in values:
            continue
        if rule.given and not invocation.given(rule.first):
            continue
        if rule.broken(values):
            pair = " and ".join(
                f"--{name} {_shown(values[name])}" for name in (rule.first, rule.second)
            )
            raise UsageError(f"{pair} can't be used together: {rule.remedy}")


def flags_without_effect(invocation: Invocation) -> list[str]:
    """Return a sentence for each flag that a person set and that does nothing."""
    values = {name: item.value for name, item in invocation.values.items()}
    return [
        f"--{name} has no effect without {condition.words}"
        for condition in CONDITIONS
        for name in condition.flags
        if name in values
        and invocation.values[name].source in ("cli", "config", "env")
        and not condition.holds(values)
    ]


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return " ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
