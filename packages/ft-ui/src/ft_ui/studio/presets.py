"""What a newcomer chooses from: a few settings for each purpose, and the fields that come first."""

from __future__ import annotations

from collections.abc import Mapping

PRESETS: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "sft": {
        "try": {"max_steps": "20", "eval_steps": "10", "save_steps": "10", "logging_steps": "1"},
        "lora": {},
        "qlora": {"quantization_bit": "4", "quant_method": "bnb"},
        "full": {"sft_type": "full", "target_modules": "", "learning_rate": "1e-5"},
        "packed": {"packing": "true", "max_length": "4096"},
    },
    "pt": {"lora": {"sft_type": "lora"}, "full": {}},
    "rlhf": {
        "dpo": {"rlhf_type": "dpo"},
        "orpo": {"rlhf_type": "orpo"},
        "simpo": {"rlhf_type": "simpo"},
        "kto": {"rlhf_type": "kto"},
    },
    "export": {
        "merge": {"merge_lora": "true"},
        "awq": {"quant_method": "awq", "quant_bits": "4"},
        "gptq": {"quant_method": "gptq", "quant_bits": "4"},
        "ollama": {"to_ollama": "true"},
    },
}
"""Values by command and name; a preset that names a flag the command lacks isn't offered."""

FIRST: Mapping[str, tuple[str, ...]] = {
    "sft": (
        *("model_type", "model_id_or_path", "dataset", "val_dataset", "sft_type", "num_train_epochs"),
        *("max_steps", "learning_rate", "batch_size", "max_length", "lora_rank", "output_dir"),
    ),
    "rlhf": (
        *("model_type", "model_id_or_path", "dataset", "rlhf_type", "beta", "sft_type"),
        *("num_train_epochs", "max_steps", "learning_rate", "max_length", "output_dir"),
    ),
    "export": ("ckpt_dir", "merge_lora", "quant_method", "quant_bits", "dataset", "to_gguf", "to_ollama"),
    "merge-lora": ("ckpt_dir", "merge_device_map"),
    "eval": ("ckpt_dir", "model_type", "eval_dataset", "val_dataset", "eval_limit", "eval_output_dir"),
    "deploy": ("ckpt_dir", "model_type", "model_id_or_path", "lora_modules", "port", "infer_backend"),
    "preview": ("model_type", "model_id_or_path", "dataset", "limit"),
}  # fmt: skip
"""The fields that are shown at once; all others are found by searching."""


def presets_of(command: str, known: frozenset[str]) -> dict[str, dict[str, str]]:
    """Return the presets of a command whose flags it has."""
    return {
        name: dict(values)
        for name, values in PRESETS.get(command, {}).items()
        if set(values) <= known
    }


def first_of(command: str, known: frozenset[str]) -> list[str]:
    """Return the fields that come first for a command."""
    names = FIRST.get(command, FIRST["sft"])
    return [name for name in names if name in known]
