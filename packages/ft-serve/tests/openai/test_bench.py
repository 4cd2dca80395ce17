"""``ft-serve bench`` against our own server, its figures against what the server counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from ft_serve.bench.load import Round, Seen
from ft_serve.bench.report import percentile, summary
from ft_serve.console import main
from ft_serve.openai.guard import Access
from ft_serve.openai.keys import Keys
from ft_serve.testing import MockEngine


def test_it_counts_what_the_server_counts(
    serve: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "figures.json"
    settings = ["--input_tokens", 7, "--output_tokens", 5, "--vocabulary", 300]
    with serve(MockEngine("x" * 40), access=Access(Keys(["secret"]))) as running:
        words = ["bench", "--url", f"{running.url}/v1", "--api_key", "secret", "--clients", "1,3"]
        assert main([str(word) for word in (*words, *settings, "--json_file", file)]) == 0
        headers = {"authorization": "Bearer secret"}
        metrics = httpx.get(f"{running.url}/metrics", headers=headers, timeout=120).text
    one, three = json.loads(file.read_text())
    assert (one["max_concurrency"], one["completed"], one["failed"]) == (1, 2, 0)
    assert (three["max_concurrency"], three["completed"]) == (3, 6)
    assert three["total_output_tokens"] == 6 * 5
    assert (
        'ft:generation_tokens_total{model_name="tiny"} 42.0' in metrics
    )  # 2 of them to begin with
    assert 'ft:prompt_tokens_total{model_name="tiny"} 63.0' in metrics
    assert three["p50_ttft_ms"] <= three["p99_ttft_ms"] <= three["p99_e2el_ms"]
    assert "tokens/s" in capsys.readouterr().out


def test_failures_are_told_and_fail(serve: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with serve(MockEngine(), access=Access(Keys(["secret"]))) as running:
        words = ["bench", "--url", f"{running.url}/v1", "--model", "tiny", "--clients", "1"]
        assert main([*words, "--api_key", "wrong"]) == 1
    assert "2 requests failed; the first: 401" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [(["--url", "localhost"], "--url localhost"), (["--clients", "0"], "--clients")],
)
def test_what_makes_no_sense_is_refused(
    capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    assert main(["bench", *words]) == 2
    assert told in capsys.readouterr().err


def test_nobody_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--url", "http://127.0.0.1:9/v1", "--clients", "1"]) == 1
    assert "http://127.0.0.1:9/v1" in capsys.readouterr().err


def test_figures_follow_their_definitions() -> None:
    seen = [Seen((1.0, 1.5, 3.0), 3), Seen((2.0, 3.0), 5), Seen(error="no")]
    found = summary(Round(2, 4.0, seen))
    assert (found["completed"], found["failed"], found["output_throughput"]) == (2, 1, 2.0)
    assert found["mean_ttft_ms"] == 1500
    assert found["mean_tpot_ms"] == pytest.approx(1000 * (1.0 + 0.25) / 2)
    assert found["p50_itl_ms"] == pytest.approx(1000)
    assert percentile([4.0, 1.0, 3.0, 2.0], 0.5) == 2.5
