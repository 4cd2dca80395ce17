"""The model card of a result: ``README.md`` with what a hub reads at its top."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ft_core.prepare import Prepared
from ft_quant.proof.verdict import Proof

_RELATIONS = {"merged": "finetune", "quantized": "quantized", "gguf": "quantized"}


def write_card(
    directory: Path,
    prepared: Prepared,
    *,
    kind: str,
    title: str,
    how: str,
    usage: str,
    proof: Proof | None,
    data: Mapping[str, Any],
) -> None:
    """Write the card.

    Args:
        directory: of the result.
        prepared: the model it was made from.
        kind: ``merged``, ``quantized`` or ``gguf``.
        title: its heading.
        how: a sentence on how it was made.
        usage: code that loads it.
        proof: how it compares with its source.
        data: which rows were used for what.
    """
    head = yaml.safe_dump(_metadata(prepared, kind), sort_keys=False, allow_unicode=True)
    parts = ["---", head.strip(), "---", "", f"# {title}", "", how, "", *usage.splitlines(), ""]
    checkpoint = prepared.checkpoint
    trained = [] if checkpoint is None else list(checkpoint.arguments.get("dataset") or [])
    facts = {
        "base model": _base(prepared) or prepared.source.name,
        "tuned by": None if checkpoint is None else f"{checkpoint.kind}, {checkpoint.path.name}",
        "trained on": ", ".join(map(str, trained)) or None,
        "chat format": prepared.chosen.template.name,
        **data,
    }
    parts += ["| | |", "|---|---|"]
    parts += [f"| {name} | {_cell(value)} |" for name, value in facts.items() if value]
    if proof is not None:
        parts += ["", "## Verification", "", *_figures(proof)]
    (directory / "README.md").write_text("\n".join(parts) + "\n", encoding="utf-8")


def _metadata(prepared: Prepared, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = {"library_name": "gguf" if kind == "gguf" else "transformers"}
    if base := _base(prepared):
        found["base_model"] = base
        found["base_model_relation"] = _RELATIONS[kind]
    found["tags"] = ["ft", kind]
    return found


def _base(prepared: Prepared) -> str | None:
    """Return the base's id on a hub; a directory of this machine is nobody else's business."""
    source = prepared.source
    if source.hub in ("huggingface", "modelscope"):
        return source.location
    spec = source.spec
    return None if spec is None else spec.huggingface_id or spec.modelscope_id


def _figures(proof: Proof) -> list[str]:
    figures = {
        "perplexity on held-out text, before": f"{proof.before:.4f}",
        "perplexity on held-out text, after": f"{proof.after:.4f}",
        "same token most likely": f"{proof.same_choice:.2%} of {proof.positions:,} positions",
        "same greedy answers": f"{proof.same_answers:.0%}",
        "verdict": proof.verdict,
    }
    rows = ["| figure | value |", "|---|---|"]
    rows += [f"| {name} | {value} |" for name, value in figures.items()]
    for question, answer in proof.answers.items():
        rows += ["", f"> {_cell(question)}", "", f"`{_cell(answer)}`"]
    return rows


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ").replace("`", "'")
