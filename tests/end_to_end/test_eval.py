"""Evaluation from the command line: a model, its checkpoints, both backends, and the harness as an oracle."""

from __future__ import annotations

import asyncio
import csv
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ft_core.errors import UsageError
from ft_core.testing import tiny_model

Ft = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("end_to_end")]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Forty questions with two to four choices in the layout of C-Eval."""
    folder = tmp_path / "choices"
    folder.mkdir()
    with (folder / "default_val.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "question", "A", "B", "C", "D", "answer"])
        for number in range(40):
            texts = [f"{number + step}" for step in range(2 + number % 3)]
            right = "ABCD"[number % len(texts)]
            writer.writerow([number, f"What is {number}?", *texts, *[""] * (4 - len(texts)), right])
    entry = {"name": "mc", "pattern": "ceval", "dataset": "choices", "subset_list": ["default"]}
    config = tmp_path / "config.json"
    config.write_text(json.dumps([entry]), encoding="utf-8")
    return config


def results(output: Path, name: str = "defaults") -> dict[str, Any]:
    """Return the results of the newest run."""
    newest = max((output / name).iterdir())
    data: dict[str, Any] = json.loads((newest / "results.json").read_text("utf-8"))
    return data


def test_both_backends_find_the_same_and_a_run_can_be_repeated(
    ft: Ft, model: Path, config: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ("eval", "--model_id_or_path", model, "--template_type", "chatml", "--dtype", "fp32")
    words = (*words, "--custom_eval_config", config, "--eval_output_dir", out)
    shown = ft(*words, "--temperature", 0.5)
    assert "backend    builtin" in shown.stderr
    assert "--temperature has no effect" in shown.stderr
    ft(*words, "--eval_backend", "lm_eval", "--name", "lm")
    one, other = results(out), results(out, "lm")
    assert one["results"][0]["metrics"] == other["results"][0]["metrics"]
    identity = one["models"][model.name]
    assert {"weights", "template_hash", "dtype"} <= set(identity)
    assert {"seed", "versions", "arguments"} <= set(one["setup"])
    again = ft(*words, "--eval_use_cache", "true")
    assert "40 answers were known" in again.stderr
    assert results(out)["results"][0]["metrics"] == one["results"][0]["metrics"]


def test_a_runs_checkpoints_and_the_base_share_weights_and_are_compared(
    ft: Ft, model: Path, rows: Path, config: Path, tmp_path: Path
) -> None:
    ft(
        *("sft", "--model_id_or_path", model, "--template_type", "chatml", "--dataset", rows),
        *("--max_steps", 3, "--save_steps", 1, "--save_total_limit", -1, "--dtype", "fp32"),
        *("--learning_rate", 0.05, "--dataset_test_ratio", 0.2, "--sample_answers", 0),
        *("--output_dir", tmp_path / "run", "--report_to", "none"),
    )
    (run,) = (tmp_path / "run" / "tiny-llama").glob("v0-*")
    out = tmp_path / "out"
    shown = ft(
        *("eval", "--ckpt_dir", run, "--eval_base", "true", "--custom_eval_config", config),
        *("--eval_output_dir", out),
    )
    assert shown.stderr.count("template  ") == 1  # loaded once
    found = results(out)
    names = [model.name, "checkpoint-1", "checkpoint-2", "checkpoint-3"]
    assert list(found["models"]) == names
    assert found["steps"] == {f"checkpoint-{step}": step for step in (1, 2, 3)}
    adapters = [found["models"][name].get("adapter") for name in names]
    assert adapters[0] is None
    assert len(set(adapters)) == 4
    compared = found["comparisons"]
    assert [(item["first"], item["second"]) for item in compared] == [
        (names[0], name) for name in names[1:]
    ]
    directory = max((out / "defaults").iterdir())
    assert (directory / "steps.svg").read_text("utf-8").startswith("<svg")
    alone = ft(
        *("eval", "--ckpt_dir", run / "checkpoint-3", "--custom_eval_config", config),
        *("--eval_output_dir", tmp_path / "alone"),
    )
    assert "checkpoint-3" in alone.stdout
    last = next(item for item in found["results"] if item["model"] == "checkpoint-3")
    assert results(tmp_path / "alone")["results"][0]["metrics"] == last["metrics"]


@pytest.fixture
def wait() -> Iterator[Callable[[Any], Any]]:
    with asyncio.Runner() as runner:
        yield runner.run


def pair(directory: Path, wait: Callable[[Any], Any]) -> tuple[Any, Any, Callable[[], None]]:
    """Return the harness's own backend and ours over the same weights, and what closes the engine."""
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForCausalLM

    from ft_core.templates import choose_template
    from ft_core.tokenizer import Tokenizer
    from ft_eval.backends.lm_eval.model import RespondentLM
    from ft_eval.respondents.engine import EngineRespondent
    from ft_serve.engines.pt import PtEngine

    loaded = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    tokenizer = Tokenizer.from_directory(directory)
    template = choose_template("chatml", tokenizer, registered=None, prefers_record=False).template
    engine = PtEngine(loaded, tokenizer, stop_token_ids=template.stop_token_ids)
    respondent = EngineRespondent("tiny", engine, template, chat=False)
    return (
        HFLM(pretrained=loaded, tokenizer=str(directory), batch_size=2),
        RespondentLM(respondent, wait, batch_size=2, seed=0),
        lambda: wait(engine.close()),
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_likelihoods_are_those_of_the_harness_own_backend(
    model: Path, wait: Callable[[Any], Any]
) -> None:
    from lm_eval.api.instance import Instance

    pairs = [
        ("The capital of France is", " Paris."),
        ("The capital of France is", " London"),
        ("Count: 1, 2, 3,", " 4"),
        ("Count: 1, 2, 3,", " 5"),
        ("A trailing space ", "word"),
        ("你好，", "请问你是谁？"),
        ("", "The quick brown fox"),
    ]
    requests = [
        Instance("loglikelihood", {}, pair, index, metadata=("t", index, 1))
        for index, pair in enumerate(pairs)
    ]
    theirs, ours, close = pair(model, wait)
    want, got = theirs.loglikelihood(requests), ours.loglikelihood(requests)
    close()
    for (value, greedy), (other, other_greedy), asked in zip(got, want, pairs, strict=True):
        assert value == pytest.approx(other, abs=1e-3), asked
        assert greedy == other_greedy


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_texts_longer_than_the_model_are_scored_in_the_windows_of_the_harness(
    tmp_path: Path, wait: Callable[[Any], Any]
) -> None:
    from lm_eval.api.instance import Instance

    directory = tiny_model(tmp_path / "short", max_position_embeddings=16, initializer_range=0.3)
    texts = ["Short.", "The quick brown fox jumps over the lazy dog. " * 5, "abcdefghijklmnop"]
    requests = [
        Instance("loglikelihood_rolling", {}, (text,), index, metadata=("t", index, 1))
        for index, text in enumerate(texts)
    ]
    theirs, ours, close = pair(directory, wait)
    assert theirs.max_length == 16
    want, got = theirs.loglikelihood_rolling(requests), ours.loglikelihood_rolling(requests)
    assert got == pytest.approx(want, abs=1e-3)
    long = Instance("loglikelihood", {}, (texts[1], " yes"), 0, metadata=("t", 0, 1))
    with pytest.raises(UsageError, match="tokens: this model takes 16"):
        ours.loglikelihood([long])
    close()


def test_mistakes_are_found_before_anything_is_loaded(ft: Ft, model: Path, tmp_path: Path) -> None:
    words = ("eval", "--model_id_or_path", model)
    assert "no such file" in ft(*words, "--custom_eval_config", "nowhere.json", code=2).stderr
    assert "--eval_base true compares" in ft(*words, "--eval_base", "true", code=2).stderr
    done = ft(*words, "--eval_backend", "builtin", "--eval_dataset", "humaneval", code=2)
    assert "--run_code true" in done.stderr
    done = ft(*words, "--eval_backend", "evalscope", "--evalscope_python", "nowhere", code=2)
    assert "--evalscope_python nowhere" in done.stderr
