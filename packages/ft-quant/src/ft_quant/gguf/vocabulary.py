"""A tokenizer as GGUF describes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ft_core.errors import ModelError

_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6
"""Kinds of tokens, by ``tokenizer.ggml.token_type``."""

_SPLITS: Mapping[str, str] = {
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+": "llama-bpe",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+": "qwen2",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+": "tekken",
}
"""llama.cpp's names of how text is split before it is tokenized, by the expression of ``tokenizer.json``."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The tokens of a model.

    Attributes:
        model: ``gpt2`` for byte-level BPE, ``llama`` for SentencePiece's.
        split: llama.cpp's name of how text is split before.
        tokens: text of each, as the tokenizer's file has it.
        kinds: of each.
        scores: of each; empty for byte-level BPE.
        merges: pairs, in their order; empty for SentencePiece's.
    """

    model: str
    split: str
    tokens: tuple[str, ...]
    kinds: tuple[int, ...]
    scores: tuple[float, ...]
    merges: tuple[str, ...]


def read_vocabulary(directory: Path, rows: int) -> Vocabulary:
    """Read the tokenizer of a model directory.

    Args:
        directory: holds ``tokenizer.json``.
        rows: of the embedding; ids without a token are filled up.

    Raises:
        ModelError: the tokenizer is of a kind that GGUF has no name for.
    """
    file = directory / "tokenizer.json"
    if not file.is_file():
        raise ModelError(
            f"{directory} has no tokenizer.json, which GGUF's tokenizer is made of; give --llama_cpp_dir with a checkout "
            "of llama.cpp"
        )
    content = json.loads(file.read_text(encoding="utf-8"))
    model = content["model"]
    if model.get("type") != "BPE":
        raise ModelError(
            f"{file}: is a tokenizer of type {model.get('type')}, and ft writes BPE to GGUF; give --llama_cpp_dir with a "
            "checkout of llama.cpp"
        )
    pieces = bool(model.get("byte_fallback"))
    ids: dict[str, int] = dict(model["vocab"])
    added = {int(item["id"]): item for item in content.get("added_tokens", ())}
    texts = {number: text for text, number in ids.items()}
    texts |= {number: item["content"] for number, item in added.items()}
    merges = tuple(_merge(item) for item in model.get("merges", ()))
    tokens = tuple(texts.get(number, f"[PAD{number}]") for number in range(max(rows, len(texts))))
    kinds = tuple(
        _kind(number, text, added, pieces) if number in texts else _UNUSED
        for number, text in enumerate(tokens)
    )
    return Vocabulary(
        "llama" if pieces else "gpt2",
        "default" if pieces else split_name(content, file),
        tokens,
        kinds,
        _scores(tokens, merges) if pieces else (),
        () if pieces else merges,
    )


def split_name(content: Mapping[str, Any], file: Path) -> str:
    """Return llama.cpp's name of how a byte-level tokenizer splits text first.

    Raises:
        ModelError: it splits in a way that has none here.
    """
    steps = _steps(content.get("pre_tokenizer"))
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits"):
        return "smollm"
    if kinds == ["Split", "ByteLevel"]:
        expression = str((steps[0].get("pattern") or {}).get("Regex"))
        if expression in _SPLITS:
            return _SPLITS[expression]
    raise ModelError(
        f"{file}: splits text in a way that llama.cpp's names for it don't tell ({', '.join(kinds) or 'none'}), and "
        "would be read as other tokens; give --llama_cpp_dir with a checkout of llama.cpp, whose converter knows more"
    )


def _steps(item: Any) -> list[dict[str, Any]]:
    if not isinstance(item, dict):
        return []
    if item.get("type") == "Sequence":
        return [step for part in item["pretokenizers"] for step in _steps(part)]
    return [item]


def _merge(item: Any) -> str:
    return item if isinstance(item, str) else " ".join(item)


def _kind(number: int, text: str, added: Mapping[int, Mapping[str, Any]], pieces: bool) -> int:
    if number in added:
        if pieces and text == "<unk>":
            return _UNKNOWN
        return _CONTROL if added[number].get("special") else _USER
    if pieces and len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
        return _BYTE
    return _NORMAL


def _scores(tokens: tuple[str, ...], merges: tuple[str, ...]) -> tuple[float, ...]:
    """Return scores by which SentencePiece's algorithm merges in the order of the file."""
    rank: dict[str, int] = {}
    for number, pair in enumerate(merges):
        rank.setdefault("".join(pair.split(" ", 1)), number)
    return tuple(-float(rank.get(text, len(merges) + at)) for at, text in enumerate(tokens))
