"""Comparisons: paired bootstrap, McNemar's test, and the compare command."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import pytest

from ft_core.errors import UsageError
from ft_eval.compare import compare_results, mcnemar_exact, two_sided
from ft_eval.console import main
from ft_eval.reports import write_reports
from ft_eval.reports.plot import curves
from ft_eval.respondents.protocol import Prompt
from ft_eval.results import Evaluation, SampleResult, Statistics, TaskResult, summarise


def result(model: str, right: list[bool], *, task: str = "t") -> TaskResult:
    samples = [
        SampleResult(str(i), Prompt.ask(f"q{i}"), ("x",), "x", {"accuracy": (float(ok), 1.0)})
        for i, ok in enumerate(right)
    ]
    metrics = summarise(samples, ("accuracy",), Statistics())
    return TaskResult(model, task, "likelihood", "builtin", metrics, tuple(samples))


def evaluation(*results: TaskResult, steps: dict[str, int] | None = None) -> Evaluation:
    models = {item.model: {"weights": item.model} for item in results}
    return Evaluation(results, models, {}, steps or {})


def test_mcnemar_is_the_binomial_test() -> None:
    for better, worse in ((0, 0), (5, 5), (10, 2), (1, 9), (40, 20)):
        count = better + worse
        tail = sum(math.comb(count, k) for k in range(min(better, worse) + 1)) / 2**count
        assert mcnemar_exact(better, worse) == pytest.approx(min(1.0, 2 * tail))
    assert mcnemar_exact(10, 2) == pytest.approx(0.03857421875)


def test_a_paired_interval_is_that_of_the_differences() -> None:
    source = random.Random(0)
    before = [source.random() < 0.5 for _ in range(400)]
    after = [ok or source.random() < 0.2 for ok in before]
    (found,) = compare_results(result("a", before), result("b", after), Statistics())
    changes = np.asarray(after, float) - np.asarray(before, float)
    error = changes.std() / math.sqrt(len(changes))
    assert found.difference == pytest.approx(changes.mean())
    assert found.low == pytest.approx(changes.mean() - 1.96 * error, abs=0.01)
    assert found.high == pytest.approx(changes.mean() + 1.96 * error, abs=0.01)
    assert found.verdict == "better"
    assert (found.worse, found.better) == (0, int(changes.sum()))


def test_noise_is_called_noise_as_often_as_promised() -> None:
    source = random.Random(1)
    called = 0
    for _ in range(100):
        one = [source.random() < 0.6 for _ in range(100)]
        other = [source.random() < 0.6 for _ in range(100)]
        settings = Statistics(resamples=300)
        (found,) = compare_results(result("a", one), result("b", other), settings)
        called += found.verdict != "no difference shown"
    assert called <= 13  # 5 are expected of 100


def test_p_is_never_smaller_than_resamples_can_show() -> None:
    assert two_sided(np.full(999, 1.0)) == pytest.approx(0.002)
    assert two_sided(np.asarray([-1.0, 1.0])) == 1.0


def test_different_tasks_and_questions_are_not_compared() -> None:
    one = result("a", [True])
    with pytest.raises(UsageError, match="aren't the same task"):
        list(compare_results(one, result("b", [True], task="other"), Statistics()))
    unlike = result("b", [True]).samples[0]
    other = TaskResult(
        "b", "t", "likelihood", "builtin", (), (SampleResult("7", unlike.prompt, ("x",), "x"),)
    )
    with pytest.raises(UsageError, match="no question in common"):
        list(compare_results(one, other, Statistics()))


def test_the_command_compares_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, right in (("base", [True, False] * 50), ("tuned", [True] * 100)):
        (tmp_path / name).mkdir()
        write_reports(tmp_path / name, evaluation(result(name, right)))
    words = ["compare", str(tmp_path / "base"), str(tmp_path / "tuned" / "results.json")]
    assert main([*words, "--output", str(tmp_path / "both")]) == 0
    out = capsys.readouterr().out
    assert "+0.5000" in out
    assert "better" in out
    assert (tmp_path / "both" / "report.html").is_file()


def test_the_command_says_what_it_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare"]) == 2
    assert main(["compare", str(tmp_path)]) == 1
    assert "holds no results.json" in capsys.readouterr().err
    write_reports(tmp_path, evaluation(result("base", [True])))
    assert main(["compare", str(tmp_path)]) == 2
    assert "one model only" in capsys.readouterr().err
    (tmp_path / "results.json").write_text("{}", encoding="utf-8")
    assert main(["compare", str(tmp_path)]) == 1
    assert "can't be read as an evaluation" in capsys.readouterr().err


def test_checkpoints_are_plotted_over_their_steps() -> None:
    results = [result(f"checkpoint-{n}", [i < n for i in range(30)]) for n in (10, 20, 30)]
    steps = {f"checkpoint-{n}": n for n in (10, 20, 30)}
    picture = curves(evaluation(*results, steps=steps))
    assert picture is not None
    assert all(f">{n}</text>" in picture for n in (10, 20, 30))
    heights = [float(part.split('"')[0]) for part in picture.split('cy="')[1:]]
    assert heights == sorted(heights, reverse=True)
    assert curves(evaluation(*results, steps={"checkpoint-10": 10})) is None
