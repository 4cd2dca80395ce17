"""Configurations that transformers 4 reads too: it looks for some values under other names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_TOKENIZER_CLASSES = {"TokenizersBackend": "PreTrainedTokenizerFast"}
"""Classes of version 5 that version 4 doesn't have."""


def make_readable_by_v4(directory: Path) -> None:
    """Add what transformers 4 looks for; version 5 still reads the result.

    ``rope_theta``, ``rope_scaling`` and ``torch_dtype`` go into ``config.json``, the chat template and a known
    class name into ``tokenizer_config.json``.
    """
    file = directory / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    for part in (config, config.get("text_config")):
        if isinstance(part, dict):
            _add_older_names(part)
    _write(file, config)
    file = directory / "tokenizer_config.json"
    if not file.is_file():
        return
    settings = json.loads(file.read_text(encoding="utf-8"))
    name = settings.get("tokenizer_class")
    settings["tokenizer_class"] = _TOKENIZER_CLASSES.get(name, name)
    if isinstance(extra := settings.get("extra_special_tokens"), list):
        # Version 4 takes names for them; what has none is an additional token there.
        settings["additional_special_tokens"] = extra
        del settings["extra_special_tokens"]
    template = directory / "chat_template.jinja"
    if template.is_file():
        settings["chat_template"] = template.read_text(encoding="utf-8")
    _write(file, settings)


def _add_older_names(config: dict[str, Any]) -> None:
    if isinstance(config.get("dtype"), str):
        config.setdefault("torch_dtype", config["dtype"])
    rope = config.get("rope_parameters")
    if not isinstance(rope, dict):
        return
    # Models whose kinds of layers turn differently have one entry a kind.
    whole = rope if "rope_type" in rope else rope.get("full_attention", {})
    if "rope_theta" in whole:
        config.setdefault("rope_theta", whole["rope_theta"])
    sliding = rope.get("sliding_attention")
    if isinstance(sliding, dict) and "rope_theta" in sliding:
        config.setdefault("rope_local_base_freq", sliding["rope_theta"])
    if whole.get("rope_type", "default") != "default":
        scaling = {name: value for name, value in whole.items() if name != "rope_theta"}
        config.setdefault("rope_scaling", scaling)


def _write(file: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")
