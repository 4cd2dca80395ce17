"""``ft rlhf`` from words to a checkpoint: margins grow, the checkpoint answers and merges, bad input is named."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from ft_cli.main import main

Ft = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("rlhf")]

WORDS = ("ba", "ce", "di", "fo", "gu", "ha", "je", "ki", "lo", "mu")
PAIRS = [
    {"query": f"say {word}", "response": word * 2, "rejected_response": word[::-1]}
    for word in WORDS
]
LABELLED = [
    {"query": f"say {word}", "response": word * 2 if good else word[::-1], "label": good}
    for word in WORDS
    for good in (True, False)
]


def write(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def preferences(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("preferences")
    pairs = write(directory / "pairs.jsonl", PAIRS)
    labelled = write(directory / "labelled.jsonl", LABELLED)
    return {**dict.fromkeys(("dpo", "orpo", "simpo", "cpo"), pairs), "kto": labelled}


def words(method: str, model: Path, rows: Path, output: Path, *more: object) -> list[str]:
    settings = {
        "rlhf_type": method,
        "model_id_or_path": model,
        "template_type": "chatml",
        "dataset": rows,
        "dataset_test_ratio": 0.2,
        "output_dir": output,
        "batch_size": 2,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-2,
        "max_steps": 8,
        "eval_steps": 4,
        "logging_steps": 1,
        "sample_answers": 1,
        "lora_dropout": 0,
        "dtype": "fp32",
        "dataloader_num_workers": 0,
    }
    flags = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    return ["rlhf", *flags, *map(str, more)]


def run_of(output: Path) -> Path:
    return next(output.glob("*/v0-*"))


def log_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "logging.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def aligned(
    model: Path, preferences: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """One run of each method; returns their directories."""
    runs = {}
    for method, rows in preferences.items():
        output = tmp_path_factory.mktemp(method)
        assert main(words(method, model, rows, output)) == 0
        runs[method] = run_of(output)
    return runs


@pytest.mark.parametrize("method", ["dpo", "orpo", "simpo", "cpo", "kto"])
def test_margins_grow_and_are_in_log_curves_and_evaluation(
    aligned: dict[str, Path], method: str
) -> None:
    log = log_of(aligned[method])
    margins = [row["rewards/margins"] for row in log if "rewards/margins" in row]
    # A step of kto may hold answers of one kind only.
    assert len(margins) >= (5 if method == "kto" else 8)
    assert sum(margins[-2:]) > sum(margins[:2])
    wanted = {"rewards/chosen", "rewards/rejected", "rewards/accuracies", "nll_loss"}
    assert wanted <= set().union(*log)
    evaluated = [row for row in log if "eval_loss" in row]
    assert len(evaluated) == 2
    margins = [row["eval_rewards/margins"] for row in evaluated]
    # A random model learns nothing from those rows that holds for the few left out.
    assert all(map(math.isfinite, margins))
    assert (aligned[method] / "images" / "train_rewards_margins.png").is_file()
    saved = json.loads((aligned[method] / "checkpoint-8" / "sft_args.json").read_text())
    assert saved["rlhf_type"] == method and saved["beta"] == (2.0 if method == "simpo" else 0.1)
    assert saved["loss_type"] == {"orpo": "orpo", "simpo": "simpo", "kto": "kto"}.get(
        method, "sigmoid"
    )


def test_the_checkpoint_answers_and_merges(
    ft: Ft, aligned: dict[str, Path], model: Path, preferences: dict[str, Path]
) -> None:
    checkpoint = aligned["dpo"] / "checkpoint-8"
    asked = ("--val_dataset", preferences["dpo"], "--temperature", 0, "--max_new_tokens", 4)
    ft("infer", "--ckpt_dir", checkpoint, *asked, "--show_dataset_sample", 2)
    ft("merge-lora", "--ckpt_dir", checkpoint)
    merged = AutoModelForCausalLM.from_pretrained(
        checkpoint.with_name("checkpoint-8-merged"), dtype=torch.float32
    )
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    ids = torch.arange(3, 20)[None]
    plain = base(input_ids=ids).logits
    adapted = PeftModel.from_pretrained(base, checkpoint)(input_ids=ids).logits
    torch.testing.assert_close(merged(input_ids=ids).logits, adapted, rtol=1e-3, atol=1e-3)
    assert (adapted - plain).abs().max() > 1e-2


@pytest.mark.parametrize(("method", "loss"), [("dpo", "sigmoid"), ("kto", "bco")])
def test_a_resumed_run_ends_like_one_that_went_through(
    model: Path, preferences: dict[str, Path], tmp_path: Path, method: str, loss: str
) -> None:
    rows = preferences[method]
    more = ("--loss_type", loss, "--save_steps", 4, "--lr_scheduler_type", "constant")
    assert main(words(method, model, rows, tmp_path / "whole", *more)) == 0
    whole = run_of(tmp_path / "whole")
    assert main([*words(method, model, rows, tmp_path / "half", *more), "--max_steps", "4"]) == 0
    half = run_of(tmp_path / "half")
    resumed = ("--resume_from_checkpoint", half / "checkpoint-4")
    assert main(words(method, model, rows, tmp_path / "half", *more, *resumed)) == 0
    weights = [
        (run / "checkpoint-8" / "adapter_model.safetensors").read_bytes() for run in (whole, half)
    ]
    assert weights[0] == weights[1]
    if loss == "bco":
        means = [(run / "checkpoint-8" / "recipe_state.json").read_text() for run in (whole, half)]
        assert means[0] == means[1] and json.loads(means[0])["count"] == 8 * 4


def test_a_reference_known_before_gives_the_same_run(
    model: Path,
    preferences: dict[str, Path],
    aligned: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FT_CACHE", str(tmp_path / "cache"))
    losses = [row["loss"] for row in log_of(aligned["dpo"]) if "loss" in row]
    for number, computed in enumerate((True, False)):
        output = tmp_path / str(number)
        flags = ("--precompute_ref_logps", "true")
        assert main(words("dpo", model, preferences["dpo"], output, *flags)) == 0
        assert ("computing what it gives" in capsys.readouterr().err) is computed
        found = [row["loss"] for row in log_of(run_of(output)) if "loss" in row]
        assert found == pytest.approx(losses, abs=2e-3)


@pytest.mark.parametrize("named", [False, True])
def test_whole_models_are_compared_with_a_copy(
    model: Path,
    preferences: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    named: bool,
) -> None:
    more = ("--sft_type", "full", "--max_steps", 4, "--learning_rate", 1e-2)
    reference = ("--ref_model_id_or_path", model) if named else ()
    assert main(words("dpo", model, preferences["dpo"], tmp_path, *more, *reference)) == 0
    said = "reference  tiny-llama (" if named else "reference  a frozen copy"
    assert said in capsys.readouterr().err
    first, *_, last = (
        row["rewards/margins"] for row in log_of(run_of(tmp_path)) if "rewards/margins" in row
    )
    assert first == pytest.approx(0, abs=1e-3) != last


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--loss_type", "kto"), "it is one of kto"),
        (("--loss_type", "hinge", "--label_smoothing", 0.1), "no meaning for the loss hinge"),
        (("--beta", 0), "--beta 0"),
        (("--sft_beta", 1), "--sft_beta"),
        (("--sequence_parallel_size", 2), "--sequence_parallel_size 2"),
        (("--max_prompt_length", 0), "--max_prompt_length 0"),
        (("--precompute_ref_logps", "true", "--lazy_tokenize", "true"), "needs all rows encoded"),
    ],
)
def test_flags_that_cant_work_are_refused(
    model: Path,
    preferences: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: tuple[object, ...],
    message: str,
) -> None:
    assert main(words("dpo", model, preferences["dpo"], tmp_path, *flags)) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("method", "rows", "message"),
    [
        ("kto", [row for row in LABELLED if row["label"]], "all 8 answers are desirable"),
        ("kto", [{"query": "a", "response": "b"}] * 4, "missing_label"),
        ("dpo", [{"query": "a", "response": "b"}] * 4, "missing_rejected"),
        (
            "dpo",
            [{"query": "a", "response": "b", "rejected_response": "b"}] * 4,
            "equal_answers",
        ),
    ],
)
def test_rows_that_cant_work_are_named(
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    method: str,
    rows: list[dict[str, Any]],
    message: str,
) -> None:
    file = write(tmp_path / "rows.jsonl", rows)
    assert main(words(method, model, file, tmp_path / "output")) == 1
    assert message in capsys.readouterr().err


def test_flags_without_effect_are_told(
    model: Path, preferences: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--simpo_gamma", 0.5, "--ref_model_type", "smollm2-135m-instruct", "--dry_run")
    assert main(words("orpo", model, preferences["orpo"], tmp_path, *flags)) == 0
    error = capsys.readouterr().err
    assert "--simpo_gamma has no effect without the loss simpo" in error
    assert "--ref_model_type has no effect" in error


def test_one_row_a_step_is_too_few_for_kto(
    model: Path, preferences: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--batch_size", 1, "--gradient_accumulation_steps", 1)
    assert main(words("kto", model, preferences["kto"], tmp_path, *flags)) == 2
    assert "make one of them at least 2" in capsys.readouterr().err
