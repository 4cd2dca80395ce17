"""The card of a run: what was trained on what with which result, as Markdown and JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ft_core.runs import write_json
from ft_train.plan import TrainingPlan
from ft_train.sample_answers import SampleAnswer

JSON_FILE, MARKDOWN_FILE = "run_card.json", "run_card.md"

_PACKAGES = (
    *("ft-core", "ft-data", "ft-train", "ft-align", "ft-cli", "torch", "transformers", "peft"),
    *("accelerate", "tokenizers", "safetensors", "bitsandbytes", "liger-kernel"),
)


def card_of(
    plan: TrainingPlan,
    *,
    recipe: str,
    result: Mapping[str, Any],
    info: Mapping[str, Any],
    answers: Sequence[SampleAnswer],
) -> dict[str, Any]:
    """Gather what a card says.

    Args:
        plan: every value of the run, with the reasons of those that were derived.
        recipe: its name.
        result: how the run ended, as plain values.
        info: ``model_info`` and ``dataset_info`` of whoever started the run.
        answers: sample answers.
    """
    values = asdict(plan)
    reasons = values.pop("reasons")
    return {
        "recipe": recipe,
        "model": _mapping(info.get("model_info", "a model")),
        "data": _mapping(info.get("dataset_info", {})),
        "result": dict(result),
        "seed": plan.seed,
        "settings": values,
        "reasons": reasons,
        "versions": installed_versions(),
        "hardware": hardware(plan.world_size),
        "answers": [asdict(item) for item in answers],
    }


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {"name": value}


def write_card(directory: Path, card: Mapping[str, Any]) -> None:
    """Write ``run_card.json`` and ``run_card.md`` into a run directory."""
    write_json(directory / JSON_FILE, card)
    (directory / MARKDOWN_FILE).write_text(to_markdown(card), encoding="utf-8")


def installed_versions() -> dict[str, str]:
    """Return the versions of what a run's numbers depend on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def hardware(processes: int) -> dict[str, Any]:
    """Return what a run computed on."""
    found: dict[str, Any] = {
        "system": platform.platform(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processes": processes,
    }
    if torch.cuda.is_available():
        found["gpus"] = [
            torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())
        ]
    return found


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def to_markdown(card: Mapping[str, Any]) -> str:
    """Write a card for people."""
    parts = [f"# {card['recipe']} run of {card['model']['name']}", ""]
    parts += [*_table("Result", card["result"]), *_table("Data", card["data"])]
    reasons = card["reasons"]
    settings = {
        name: f"{value} ({reasons[name]})" if name in reasons else value
        for name, value in card["settings"].items()
    }
    parts += _answers(card["answers"])
    parts += [*_table("Settings", settings), *_table("Versions", card["versions"])]
    parts += _table("Hardware", card["hardware"])
    return "\n".join(parts)


def _table(title: str, values: Mapping[str, Any]) -> list[str]:
    if not values:
        return []
    rows = [f"| {name} | {_cell(value)} |" for name, value in values.items()]
    return [f"## {title}", "", "| | |", "|---|---|", *rows, ""]


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{name} {_cell(item)}" for name, item in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_cell, value)) or "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "none" if value is None else str(value).replace("|", "\\|").replace("\n", " ")


def _answers(answers: Sequence[Mapping[str, Any]]) -> list[str]:
    if not answers:
        return []
    parts = ["## Answers", ""]
    for item in answers:
        for title, key in (
            ("Prompt", "prompt"),
            ("The row's answer", "reference"),
            ("Before training", "before"),
            ("After training", "after"),
        ):
            if item[key] is not None:
                parts += [f"**{title}**", "", *_fenced(item[key]), ""]
    return parts


def _fenced(text: str) -> list[str]:
    fence = "```"
    while fence in text:
        fence += "`"
    return [fence + "text", text, fence]
