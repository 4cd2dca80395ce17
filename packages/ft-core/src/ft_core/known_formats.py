"""Which chat format the registry knows for a model that is not told by its own template."""

from __future__ import annotations

import json
import re
from pathlib import Path

from ft_core.models.registry import family_template
from ft_core.models.resolution import ModelSource
from ft_core.templates import TEMPLATES
from ft_core.tokenizer import Tokenizer

_MARK = re.compile(r"<[^<>\s]+>")


def registered_format(
    source: ModelSource, directory: Path, tokenizer: Tokenizer
) -> tuple[str | None, str]:
    """Return the chat format that the registry knows for a model, and why it is this one."""
    spec = source.spec
    if spec is not None and (spec.ids or spec.package):
        return spec.template, "the model is registered with it"
    because = "all registered models of its architecture have it"
    if spec is not None:
        return spec.template, because
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    name = family_template(config)
    return name if name is not None and _has_marks(tokenizer, name) else None, because


def _has_marks(tokenizer: Tokenizer, template_type: str) -> bool:
    """Whether a tokenizer has the special tokens of a format, such as ``<|im_end|>``.

    A directory of a known architecture may still hold a model that was never trained on conversations.
    """
    record = TEMPLATES.get(template_type)
    for element in (*record.prefix, *record.prompt, *record.suffix):
        if isinstance(element, str):
            if any(tokenizer.token_to_id(mark) is None for mark in _MARK.findall(element)):
                return False
        elif any(
            tokenizer.id_to_token(item) is None
            if isinstance(item, int)
            else tokenizer.named_token_id(item.removesuffix("_id")) is None
            for item in element
        ):
            return False
    return True
