"""Rewards by name, prompts as serving feeds them, and what is refused."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from ft_align.online.judge import Judge
from ft_align.online.prompts import prompts_of
from ft_align.online.rewards import Makings, make_rewards
from ft_align.online.scoring import RewardModel
from ft_align.online_arguments import FORMAT, OnlineArguments
from ft_core.errors import DataError, FtError, UsageError
from ft_core.examples import Example, Message
from ft_core.models.loading import load_model
from ft_core.templates.template import Template
from ft_core.testing import tiny_model
from ft_core.tokenizer import Tokenizer

GOOD = "<think>two and two</think>\n<answer> 4 </answer>"


def makings(**given: Any) -> Makings:
    values: dict[str, Any] = {
        "pattern": FORMAT,
        "longest": 10,
        "ids": {},
        "judge_model": None,
        "open_model": lambda directory: None,
    }
    return Makings(**{**values, **given})


def rewards_of(name: str, completions: list[str], **columns: Any) -> list[float | None]:
    (reward,) = make_rewards([name], makings())
    return reward(completions=completions, **columns)


def test_format_takes_whole_answers_only() -> None:
    bad = [f"Well: {GOOD}", GOOD.replace("</think>", ""), ""]
    assert rewards_of("format", [GOOD, f" {GOOD}\n", *bad]) == [1, 1, 0, 0, 0]


def test_exact_compares_the_answer_or_its_group() -> None:
    found = rewards_of("exact", [GOOD, "4", " 4\n", "5", "4 apples"], answer=["4"] * 5)
    assert found == [1, 1, 1, 0, 0]


def test_shorter_answers_are_worth_more() -> None:
    ids = [[1] * 1, [1] * 5, [1] * 10]
    assert rewards_of("length", ["", "", ""], completion_ids=ids) == [0.9, 0.5, 0]


def test_expressions_are_looked_for_anywhere() -> None:
    assert rewards_of(r"regex:\d{2}", ["a 12", "a 1", ""]) == [1, 0, 0]


def test_functions_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "def first(prompts, completions, answer, **columns):\n"
        "    return [None if not c else float(c[0] == a) for c, a in zip(completions, answer)]\n"
        "def words(completions, **columns):\n    return ['many'] * len(completions)\n"
        "def few(completions, **columns):\n    return [1.0]\n"
    )
    given: dict[str, Any] = {"prompts": ["p"] * 3, "answer": ["a"] * 3}
    assert rewards_of(f"file:{file}:first", ["ab", "ba", ""], **given) == [1, 0, None]
    with pytest.raises(FtError, match="'many', which is no number"):
        rewards_of(f"file:{file}:words", ["a"], **given)
    with pytest.raises(FtError, match="list of 2 numbers"):
        rewards_of(f"file:{file}:few", ["a", "b"], **given)
    with pytest.raises(UsageError, match="has no function last; it has few, first, words"):
        rewards_of(f"file:{file}:last", ["a"], **given)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("formats", "there is no such reward.*format"),
        ("format:x", "there is no such reward"),
        ("regex", "needs a value"),
        ("regex:(", "is no regular expression"),
        ("file:/nowhere.py:f", "is no file"),
        ("judge:localhost", "is no address"),
    ],
)
def test_rewards_that_cannot_be_made_are_named(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_rewards([name], makings())


def test_rewards_of_one_kind_have_names_of_their_own() -> None:
    assert [r.name for r in make_rewards(["regex:a", "regex:b"], makings())] == ["regex", "regex_2"]


def test_flags_that_do_not_fit_each_other_are_refused() -> None:
    flags = OnlineArguments(reward_funcs=["format", "exact"], reward_weights=[1.0])
    with pytest.raises(UsageError, match="has 1 numbers and --reward_funcs 2"):
        flags.check(frozenset())
    with pytest.raises(UsageError, match="--reward_format"):
        OnlineArguments(reward_format="(").check(frozenset())


class _Server(BaseHTTPRequestHandler):
    asked: list[dict[str, Any]] = []  # noqa: RUF012
    broken = False

    def do_GET(self) -> None:
        self._say({"data": [{"id": "tiny"}]})

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(request)
        content = request["messages"][-1]["content"]
        number = "no idea" if "hm" in content else "8" if "right" in content else "Rating: 2.5/10"
        self._say({"choices": [{"message": {"content": number}}]}, 400 if self.broken else 200)

    def _say(self, content: Any, code: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *given: Any) -> None:
        """Keep quiet."""


@pytest.fixture
def server() -> Iterator[str]:
    _Server.asked, _Server.broken = [], False
    with HTTPServer(("127.0.0.1", 0), _Server) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{found.server_port}/v1"
        found.shutdown()
        thread.join()


def test_a_judge_rates_answers_to_their_questions(server: str) -> None:
    judge = Judge.at(server, None)
    assert judge.model == "tiny"
    assert judge.rate(["q1", "q2", "q3"], ["right", "wrong", "hm"]) == [0.8, 0.25, None]
    asked = sorted(item["messages"][-1]["content"] for item in _Server.asked)
    assert asked[0] == "Question:\nq1\n\nAnswer:\nright"
    _Server.broken = True
    with pytest.raises(FtError, match="HTTP 400"):
        judge.rate(["q"], ["a"])


def test_prompts_are_what_serving_feeds(chatml: Template) -> None:
    rows = [
        Example((Message("user", "hello"), Message("assistant", "hi"))),
        Example((Message("system", "Be kind."), Message("user", "Who are you?"))),
    ]
    found = prompts_of(rows, chatml, max_prompt_length=-1)
    for row, prompt in zip(rows, found, strict=True):
        assert list(prompt.ids) == chatml.encode_prompt(row.prompt)
        assert list(prompt.ids) == chatml.tokenizer.encode(prompt.text)
    assert [prompt.answer for prompt in found] == ["hi", ""]
    assert found[1].question == "system: Be kind.\n\nuser: Who are you?"
    (cut,) = prompts_of(rows[:1], chatml, max_prompt_length=6)
    assert len(cut.ids) == 6 and cut.ids[-5:] == found[0].ids[-5:] and cut.cut > 0
    with pytest.raises(DataError, match="nothing to ask"):
        prompts_of([Example((Message("assistant", "hi"),))], chatml, max_prompt_length=-1)


def test_a_reward_model_scores_prompt_and_answer(directory: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = load_model(directory, dtype=torch.float32, scores=True)
    tokenizer = Tokenizer.from_directory(directory)
    model.save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    score = RewardModel.open(tmp_path, tokenizer, dtype=torch.float32, device="cpu")
    texts = [[5, 6, 7], [8, 9], [10] * 5]
    expected = [model(input_ids=torch.tensor([ids])).logits.item() for ids in texts]
    assert score(texts) == pytest.approx(expected, abs=1e-5)
    (reward,) = make_rewards(
        [f"model:{tmp_path}"], makings(ids={"p": [5, 6]}, open_model=lambda _: score)
    )
    found = reward(prompts=["p"], completions=["x"], completion_ids=[[7]])
    assert found == pytest.approx(expected[:1], abs=1e-5)
    plain = tiny_model(tmp_path / "plain")
    with pytest.raises(FtError):
        RewardModel.open(plain.parent / "nothing", tokenizer, dtype=torch.float32, device="cpu")
