"""Evaluation over HTTP: servers that work, are slow, busy, wrong, or die."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ft_core.engine import Sampling
from ft_core.errors import FtError, ModelError, UsageError
from ft_core.examples import Message
from ft_eval.arguments import EvalArguments
from ft_eval.console import main
from ft_eval.respondents.protocol import Answer, Prompt, Question
from ft_eval.respondents.url import UrlRespondent, connect
from ft_eval.testing import QUESTIONS, StandIn, openai_server, stand_in

Wait = Callable[[Any], Any]


class Pauses:
    """Notes pauses instead of waiting."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


@pytest.fixture
def server() -> Iterator[StandIn]:
    with stand_in(openai_server(lambda body: "B")) as running:
        yield running


def failing(*failures: tuple[int, Any]) -> Callable[[str, dict[str, Any]], tuple[int, Any]]:
    """Return a handler whose first answers fail."""
    left, works = list(failures), openai_server(lambda body: "fine")

    def handle(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path.endswith("completions") and left:
            return left.pop(0)
        return works(path, body)

    return handle


def ask(wait: Wait, respondent: UrlRespondent) -> Answer:
    """Ask one question and close."""

    async def both() -> Answer:
        try:
            return await respondent.answer(Prompt.ask("Who?"), Sampling(max_new_tokens=5))
        finally:
            await respondent.close()

    answer: Answer = wait(both())
    return answer


def test_the_console_evaluates_a_server(
    server: StandIn,
    choices: Path,
    configured: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = configured({"name": "mc", "pattern": "ceval", "dataset": str(choices)})
    words = ["eval", "--eval_url", server.url, "--eval_is_chat_model", "true"]
    words += ["--custom_eval_config", str(config), "--eval_output_dir", str(tmp_path / "out")]
    assert main(words) == 0
    out = capsys.readouterr().out
    right = sum(letter == "B" for _, _, letter in QUESTIONS) / len(QUESTIONS)
    assert f"{right:.4f}" in out
    assert "generated letter" in out


def test_a_token_is_sent_and_shown_nowhere(
    server: StandIn,
    choices: Path,
    configured: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FT_EVAL_TOKEN", "s3cret")
    config = configured({"name": "mc", "pattern": "ceval", "dataset": str(choices)})
    words = ["eval", "--eval_url", server.url, "--eval_is_chat_model", "true"]
    words += ["--custom_eval_config", str(config), "--eval_output_dir", str(tmp_path / "out")]
    assert main(words) == 0
    assert {headers["Authorization"] for _, _, headers in server.requests} == {"Bearer s3cret"}
    written = [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
    assert len(written) > 5
    assert all("s3cret" not in file.read_text("utf-8") for file in written)
    output = capsys.readouterr()
    assert "s3cret" not in output.out + output.err


def test_a_busy_server_is_asked_again_when_it_says(wait: Wait, pauses: Pauses) -> None:
    busy = {"error": {"message": "too many requests"}, "retry-after": 7}
    with stand_in(failing((429, busy), (503, {"error": {"message": "loading"}}))) as running:
        respondent = wait(connect(running.url, None, chat=True, pause=pauses))
        assert ask(wait, respondent).text == "fine"
    assert pauses.seconds[0] == 7
    assert len(pauses.seconds) == 2


def test_a_server_that_stays_busy_ends_the_run(wait: Wait, pauses: Pauses) -> None:
    with stand_in(failing(*[(429, {"error": {"message": "quota"}})] * 50)) as running:
        respondent = wait(connect(running.url, None, chat=True, pause=pauses))
        with pytest.raises(
            ModelError, match=r"429: quota, 6 times.*goes on where this one stopped"
        ):
            ask(wait, respondent)


def test_a_slow_server_is_named_with_the_flag(wait: Wait, pauses: Pauses) -> None:
    import threading

    enough = threading.Event()
    works = openai_server(lambda body: "late")

    def handle(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path.endswith("completions"):
            enough.wait(5)
        return works(path, body)

    with stand_in(handle) as running:
        respondent = wait(connect(running.url, None, chat=True, timeout=0.05, pause=pauses))
        with pytest.raises(ModelError, match=r"no answer within 0.05 s \(--eval_timeout\)"):
            ask(wait, respondent)
        enough.set()


@pytest.mark.parametrize(
    ("status", "answer", "kind", "message"),
    [
        (200, "<html>hello</html>", ModelError, "something that is no JSON.*OpenAI-compatible"),
        (200, {"result": "hello"}, ModelError, "has no choices"),
        (200, {"choices": []}, ModelError, "has no choices"),
        (401, {"error": {"message": "who?"}}, ModelError, "refuses the token.*FT_EVAL_TOKEN"),
        (404, {"error": {"message": "no such path"}}, ModelError, "usually ends with /v1"),
        (400, {"error": {"message": "prompt too long"}}, UsageError, "prompt too long"),
    ],
)
def test_wrong_answers_are_explained(
    wait: Wait,
    pauses: Pauses,
    status: int,
    answer: Any,
    kind: type[FtError],
    message: str,
) -> None:
    with stand_in(failing((status, answer))) as running:
        respondent = wait(connect(running.url, None, chat=True, pause=pauses))
        with pytest.raises(kind, match=message):
            ask(wait, respondent)
    assert pauses.seconds == []


def test_no_server_is_said(wait: Wait, pauses: Pauses, server: StandIn) -> None:
    with pytest.raises(ModelError, match="no server can be reached there"):
        wait(connect("http://127.0.0.1:9/v1", None, chat=True, pause=pauses))
    with pytest.raises(UsageError, match="Did you mean served"):
        wait(connect(server.url, "serve", chat=True, pause=pauses))


def test_a_server_that_dies_in_the_middle_loses_no_answer(
    choices: Path, configured: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured({"name": "mc", "pattern": "ceval", "dataset": str(choices)})
    works, asked, alive = openai_server(lambda body: "B"), [0], [True]

    def handle(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path.endswith("completions"):
            asked[0] += 1
            if alive[0] and asked[0] > 3:
                return 500, {"error": {"message": "crashed"}}
        return works(path, body)

    with stand_in(handle) as running:
        words = ["eval", "--eval_url", running.url, "--eval_is_chat_model", "true"]
        words += ["--custom_eval_config", str(config), "--eval_output_dir", str(tmp_path / "out")]
        words += ["--eval_batch_size", "1"]
        monkeypatch.setattr("ft_eval.respondents.client.TRIES", 1)
        assert main(words) == 1
        alive[0], asked[0] = False, 0
        assert main(words) == 0
    assert asked[0] == len(QUESTIONS) - 3


def tokenizing_server(logprobs: Callable[[list[int]], list[float]]) -> Any:
    """Return a server that tokenizes by characters and scores by a rule."""

    def tokens(body: dict[str, Any]) -> list[int]:
        if "prompt" in body:
            return [ord(character) for character in body["prompt"]]
        ids = [ord(c) for message in body["messages"] for c in f"<{message['content']}>"]
        if body.get("continue_final_message"):
            return ids[:-1]
        return [*ids, ord("<")]

    def handle(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path == "/v1/models":
            return 200, {"data": [{"id": "scoring"}]}
        if path == "/tokenize":
            return 200, {"tokens": tokens(body)}
        choices = []
        for index, ids in enumerate(body["prompt"]):
            names = [chr(token) for token in ids] + ["!"]
            values = [None, *logprobs(ids)[1:], -9.0]
            top = [
                None,
                *({name: value} for name, value in zip(names[1:], values[1:], strict=True)),
            ]
            shown = {"tokens": names, "token_logprobs": values, "top_logprobs": top}
            choices.insert(0, {"index": index, "text": "", "logprobs": shown})
        return 200, {"choices": choices}

    return handle


def test_likelihoods_are_those_of_the_continuation_alone(wait: Wait) -> None:
    with stand_in(tokenizing_server(lambda ids: [-float(token) for token in ids])) as running:
        respondent = wait(connect(running.url, None, chat=True))
        assert respondent.scores
        asked = [
            Question(Prompt((Message("user", "q"),)), ("A", "BC")),
            Question(Prompt.ask("longer question"), ("A",)),
        ]
        found = wait(respondent.likelihoods(asked))
        wait(respondent.close())
    assert [[value.logprob for value in row] for row in found] == [[-65.0, -133.0], [-65.0]]
    assert [[value.tokens for value in row] for row in found] == [[1, 2], [1]]
    assert all(value.greedy for row in found for value in row)


def test_plain_text_keeps_its_space_with_the_continuation(wait: Wait) -> None:
    with stand_in(tokenizing_server(lambda ids: [-1.0] * len(ids))) as running:
        respondent = wait(connect(running.url, None, chat=False))
        found = wait(respondent.likelihoods([Question(Prompt(text="Answer: "), ("A",))]))
        wait(respondent.close())
    assert (found[0][0].logprob, found[0][0].tokens) == (-2.0, 2)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"eval_url": "http://x/v1"}, "--eval_is_chat_model"),
        ({"eval_url": "localhost:8000", "eval_is_chat_model": True}, "give a base URL"),
        ({"eval_token": "abc"}, "give --eval_url"),
        ({"eval_limit": "0"}, "--eval_limit 0"),
        ({"eval_limit": "ten"}, "such as 20"),
        ({"custom_eval_config": "nowhere.json"}, "no such file"),
        ({"name": "a/b"}, "without slashes"),
        ({"judge_model": "m"}, "needs --judge_url"),
    ],
)
def test_flags_that_cannot_work_are_refused(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        EvalArguments(**flags).check(frozenset(flags))


def test_the_console_says_which_package_brings_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--ckpt_dir", "somewhere"]) == 2
    assert "ft-cli" in capsys.readouterr().err
    assert main(["eval"]) == 2
    assert "--eval_url" in capsys.readouterr().err


def test_the_console_runs_without_a_model_library() -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from ft_eval.console import main; sys.exit(main(['eval', '--help']))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "--eval_url" in result.stdout


def test_a_judge_is_asked_twice_with_places_swapped(
    configured: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "qa"
    folder.mkdir()
    rows = [{"query": query, "response": "reference"} for query in ("good", "bad", "coin")]
    (folder / "default.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    entry = {"name": "qa", "pattern": "general_qa", "dataset": str(folder), "metrics": ["judge"]}

    def judge(body: dict[str, Any]) -> str:
        text = body["messages"][-1]["content"]
        if "user: coin" in text:
            return "[[A]]"  # whatever stands first
        better = "mine" if "user: good" in text else "reference"
        return "[[A]]" if text.index(better) < text.index("[Answer B]") else "[[B]]"

    with (
        stand_in(openai_server(lambda body: "mine")) as model,
        stand_in(openai_server(judge, model="judge")) as judging,
    ):
        words = ["eval", "--eval_url", model.url, "--eval_is_chat_model", "true"]
        words += ["--judge_url", judging.url, "--custom_eval_config", str(configured(entry))]
        assert main([*words, "--eval_output_dir", str(tmp_path / "out")]) == 0
    assert len([path for path, *_ in judging.requests if "chat" in path]) == 6
    out = capsys.readouterr().out
    assert "0.5000" in out  # (1 + 0 + 0.5) / 3
    assert "0.6667" in out  # both orders agreed for two of three
