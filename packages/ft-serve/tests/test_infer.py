"""Answering rows and people, with a mock engine whose replies are known."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ft_core import DataError, Example, Message
from ft_core.agents import AGENTS
from ft_core.engine import GenerationRequest, Sampling
from ft_core.errors import ModelError, UsageError
from ft_core.examples import ToolCall
from ft_core.templates import Template, choose_template
from ft_core.testing import tiny_tokenizer
from ft_core.tokenizer import Tokenizer
from ft_serve.arguments import InferArguments
from ft_serve.infer.dataset import Prompting, answer_dataset
from ft_serve.infer.interactive import Chat, Partner
from ft_serve.infer.markdown import MarkdownWriter
from ft_serve.infer.results import AnswerFile, history_of, result_file
from ft_serve.infer_command import read_prompts
from ft_serve.testing import MockEngine


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    directory = tiny_tokenizer(tmp_path_factory.mktemp("t") / "t")
    return choose_template(
        "AUTO", Tokenizer.from_directory(directory), registered=None, prefers_record=False
    ).template


def rows(count: int = 5) -> list[Example]:
    return [
        Example(messages=(Message("user", f"question {i}"), Message("assistant", f"label {i}")))
        for i in range(count)
    ]


def read(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def echo(template: Template) -> Callable[[GenerationRequest], str]:
    def reply(request: GenerationRequest) -> str:
        text = template.tokenizer.decode(list(request.token_ids))
        question = text.split("<|im_start|>user\n")[-1].split("<|im_end|>")[0]
        if question == "question 2":
            raise ModelError("this one fails")
        return f"echo {question}"

    return reply


def test_rows_are_written_in_order_and_a_failure_hurts_no_other(
    template: Template, tmp_path: Path
) -> None:
    engine = MockEngine(echo(template))
    file = tmp_path / "a.jsonl"
    out = io.StringIO()
    report = answer_dataset(engine, Prompting(template), rows(), Sampling(), file, out=out)
    written = read(file)
    assert [row["query"] for row in written] == [f"question {i}" for i in range(5)]
    assert [row["response"] for row in written] == [
        *("echo question 0", "echo question 1", None, "echo question 3", "echo question 4")
    ]
    assert written[2]["error"] == "this one fails" and written[0]["label"] == "label 0"
    assert report.answered == 4 and report.failed == ("this one fails",)
    assert "5 of 5 rows" in out.getvalue()
    assert engine.most_active > 1


def test_the_prompt_is_what_the_template_feeds(template: Template, tmp_path: Path) -> None:
    engine = MockEngine("x")
    history = (Message("system", "s"), Message("user", "a"), Message("assistant", "b"))
    row = Example(messages=(*history, Message("user", "c"), Message("assistant", "d")))
    answer_dataset(
        engine, Prompting(template), [row], Sampling(), tmp_path / "a", out=io.StringIO()
    )
    (request,) = engine.requests
    assert list(request.token_ids) == template.encode_prompt(row.messages[:-1])
    (written,) = read(tmp_path / "a")
    assert written["history"] == [["a", "b"]] and written["system"] == "s"


def test_answers_of_rows_with_tools_end_where_a_result_would_come(
    template: Template, tmp_path: Path
) -> None:
    engine = MockEngine("x")
    agent = AGENTS.get(template.tools_prompt or "hermes")
    row = Example(messages=(Message("user", "Ulm?"),), tools=(WEATHER,))
    answer_dataset(
        engine,
        Prompting(template),
        [row, rows(1)[0]],
        Sampling(),
        tmp_path / "a",
        out=io.StringIO(),
    )
    stops = [request.sampling.stop for request in engine.requests]
    assert stops == [agent.stop, ()]


def test_each_row_has_its_own_seed(template: Template, tmp_path: Path) -> None:
    engine = MockEngine("x")
    prompting = Prompting(template)
    answer_dataset(
        engine, prompting, rows(3), Sampling(), tmp_path / "a", seed=7, out=io.StringIO()
    )
    assert sorted(request.sampling.seed or 0 for request in engine.requests) == [7, 8, 9]


def test_long_prompts_are_left_out_or_cut(template: Template, tmp_path: Path) -> None:
    out = io.StringIO()
    short = Prompting(template, max_length=4)
    report = answer_dataset(MockEngine("x"), short, rows(1), Sampling(), tmp_path / "a", out=out)
    assert report.answered == 0 and "--max_length 4" in report.failed[0]
    engine = MockEngine("x")
    cut = Prompting(template, max_length=4, truncate=True)
    answer_dataset(engine, cut, rows(1), Sampling(), tmp_path / "b", out=out)
    assert list(engine.requests[0].token_ids) == template.encode_prompt(rows(1)[0].prompt)[-4:]


@pytest.mark.parametrize("stream", [True, False])
def test_verbose_shows_question_answer_and_label(
    template: Template, tmp_path: Path, stream: bool
) -> None:
    out = io.StringIO()
    answer_dataset(
        MockEngine("fine"),
        Prompting(template),
        rows(2),
        Sampling(),
        tmp_path / "a",
        verbose=True,
        stream=stream,
        out=out,
    )
    shown = out.getvalue()
    assert shown.count("[RESPONSE] fine\n[LABEL] label") == 2
    assert shown.index("question 0") < shown.index("question 1")


def test_an_interrupted_run_keeps_what_is_done(template: Template, tmp_path: Path) -> None:
    class Interrupting(io.StringIO):
        def write(self, text: str) -> int:
            if "question 1" in text:
                raise KeyboardInterrupt
            return super().write(text)

    with pytest.raises(KeyboardInterrupt):
        answer_dataset(
            MockEngine("fine"),
            Prompting(template),
            rows(4),
            Sampling(),
            tmp_path / "a",
            verbose=True,
            out=Interrupting(),
        )
    kept = read(tmp_path / "a")
    assert kept[0]["query"] == "question 0" and all(row["response"] == "fine" for row in kept)


def chat(
    engine: MockEngine,
    template: Template,
    tmp_path: Path,
    lines: list[str | type[BaseException]],
    **more: Any,
) -> tuple[list[dict[str, object]], str]:
    shown: list[str] = []
    script: Iterator[str | type[BaseException]] = iter(lines)

    def read_line(prompt: str) -> str:
        item = next(script, EOFError)
        if isinstance(item, str):
            return item
        raise item

    answers = AnswerFile(tmp_path / "chat.jsonl")
    Chat(
        Partner(engine, template), Sampling(), answers, read=read_line, write=shown.append, **more
    ).run()
    answers.close()
    return read(answers.path), "".join(shown)


def test_a_conversation_has_history_until_it_is_cleared(template: Template, tmp_path: Path) -> None:
    engine = MockEngine("ok")
    written, _ = chat(engine, template, tmp_path, ["a", "b", "clear", "c", "exit", "never"])
    assert [row["history"] for row in written] == [[], [["a", "ok"]], []]
    expected = (Message("user", "a"), Message("assistant", "ok"), Message("user", "b"))
    assert list(engine.requests[1].token_ids) == template.encode_prompt(expected)


def test_system_and_several_lines(template: Template, tmp_path: Path) -> None:
    lines = ["reset-system", "Be brief.", "multi-line", "one", "two#", "single-line", "three"]
    written, _ = chat(MockEngine("ok"), template, tmp_path, [*lines])
    assert [row["query"] for row in written] == ["one\ntwo", "three"]
    assert {row["system"] for row in written} == {"Be brief."}


def test_ctrl_c_at_the_prompt_and_errors_do_not_end_the_chat(
    template: Template, tmp_path: Path
) -> None:
    engine = MockEngine(echo(template))
    written, shown = chat(engine, template, tmp_path, [KeyboardInterrupt, "question 2", "hi"])
    assert "type exit to leave" in shown and "error: this one fails" in shown
    assert [row["query"] for row in written] == ["hi"] and written[0]["history"] == []


def test_ctrl_c_stops_an_answer_and_keeps_what_was_said(template: Template, tmp_path: Path) -> None:
    shown: list[str] = []

    def write(text: str) -> None:
        shown.append(text)
        if text == "l":
            raise KeyboardInterrupt

    script = iter(["hi", "exit"])
    answers = AnswerFile(tmp_path / "chat.jsonl")
    Chat(
        Partner(MockEngine("hello"), template),
        Sampling(),
        answers,
        read=lambda _: next(script),
        write=write,
    ).run()
    answers.close()
    assert "(stopped)" in "".join(shown)
    assert read(answers.path)[0]["response"] == "hel"


WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a place.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    },
}


def test_the_person_answers_for_tools(template: Template, tmp_path: Path) -> None:
    (tmp_path / "tools.json").write_text(json.dumps([WEATHER]))
    agent = AGENTS.get(template.tools_prompt or "hermes")
    call = agent.calls([ToolCall("weather", {"place": "Ulm"})])
    replies = iter([call, "It rains.", "fine"])
    engine = MockEngine(lambda request: next(replies))
    lines = [f"/tools {tmp_path / 'tools.json'}", "Ulm?", '{"rain": true}', "/tools none", "thanks"]
    prompts: list[str] = []
    script = iter(lines)

    def read_line(prompt: str) -> str:
        prompts.append(prompt)
        try:
            return next(script)
        except StopIteration:
            raise EOFError from None

    answers = AnswerFile(tmp_path / "chat.jsonl")
    shown: list[str] = []
    Chat(Partner(engine, template), Sampling(), answers, read=read_line, write=shown.append).run()
    answers.close()
    assert any("result of weather" in prompt and "Ulm" in prompt for prompt in prompts)
    assert [row["response"] for row in read(answers.path)] == ["It rains.", "fine"]
    second = template.tokenizer.decode(list(engine.requests[1].token_ids))
    assert '{"rain": true}' in second
    assert set(agent.stop) <= set(engine.requests[0].sampling.stop)
    assert not set(agent.stop) & set(engine.requests[2].sampling.stop)
    assert "tools: weather\n" in shown and "tools: none\n" in shown


def test_commands_say_what_is_wrong(template: Template, tmp_path: Path) -> None:
    engine = MockEngine("ok", adapters=["mine"])
    lines = ["/tools nowhere.json", "/adapter other", "/model x", "/help", "hi"]
    written, shown = chat(engine, template, tmp_path, [*lines])
    assert "nowhere.json: can't be read" in shown
    assert "adapter other: there are mine" in shown
    assert "/model NAME" in shown
    assert [row["query"] for row in written] == ["hi"]


def test_who_answers_can_be_changed(template: Template, tmp_path: Path) -> None:
    first, second = MockEngine("ok", adapters=["mine"]), MockEngine("ok")
    lines = ["a", "/adapter mine", "b", "/adapter", "/model other", "/adapter none", "c"]
    _, shown = chat(
        first, template, tmp_path, [*lines], open_model=lambda _: Partner(second, template)
    )
    assert [request.adapter for request in first.requests] == [None, "mine"]
    assert len(second.requests) == 1
    assert list(second.requests[0].token_ids) == template.encode_prompt((Message("user", "c"),))
    assert "adapter: mine (loaded: mine)" in shown and "model: other" in shown


def test_answers_are_formatted_block_by_block() -> None:
    console = Console(file=io.StringIO(), width=40, force_terminal=False)
    writer = MarkdownWriter(console)
    text = "# Title\n\nSome **bold** text.\n\n```\na\n\nb\n```\n\nlast"
    seen = []
    for character in text:
        writer.push(character)
        seen.append(console.file.getvalue())
    writer.finish()
    whole = console.file.getvalue()
    assert "Some bold text." in whole and "**" not in whole and "last" in whole
    shown_at = next(place for place, part in enumerate(seen) if "Some bold text." in part)
    assert shown_at < text.index("```")  # once its paragraph was over
    inside = seen[text.index("b\n```")]
    assert "a" not in inside.split("Some bold text.")[1]  # code waits for its end


def test_chat_formats_unless_told_otherwise(template: Template, tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=40)
    _, shown = chat(
        MockEngine("**yes**"),
        template,
        tmp_path,
        ["a", "/plain", "b"],
        markdown=lambda: MarkdownWriter(console),
    )
    assert "yes" in console.file.getvalue() and "**" not in console.file.getvalue()
    assert shown.count("**") == 2 or "**yes**" in shown


def test_an_interrupted_file_is_completed_in_order(template: Template, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    prompting = Prompting(template)
    out = io.StringIO()
    answer_dataset(MockEngine("old"), prompting, rows(5), Sampling(), file, out=out)
    kept = file.read_text().splitlines()
    failed = json.dumps({**json.loads(kept[0]), "response": None, "error": "once"})
    file.write_text("\n".join([failed, kept[3], kept[1], kept[4][:20]]))
    engine = MockEngine("new")
    report = answer_dataset(engine, prompting, rows(5), Sampling(), file, out=out, seed=7)
    assert [row["response"] for row in read(file)] == ["new", "old", "new", "old", "new"]
    assert [row["query"] for row in read(file)] == [f"question {i}" for i in range(5)]
    assert (report.reused, report.answered) == (2, 5)
    assert sorted(request.sampling.seed or 0 for request in engine.requests) == [7, 9, 11]
    again = answer_dataset(engine, prompting, rows(5), Sampling(), file, out=out)
    assert again.reused == 5 and len(engine.requests) == 3


def test_a_file_of_other_rows_or_of_something_else_is_left_alone(
    template: Template, tmp_path: Path
) -> None:
    file = tmp_path / "a.jsonl"
    prompting, out = Prompting(template), io.StringIO()
    answer_dataset(MockEngine("old"), prompting, rows(3), Sampling(), file, out=out)
    before = file.read_text()
    with pytest.raises(UsageError, match="1 rows that aren't asked"):
        answer_dataset(MockEngine("new"), prompting, rows(2), Sampling(), file, out=out)
    assert file.read_text() == before
    file.write_text('{"query": "no answers"}\n{"query": "b"}\n')
    with pytest.raises(DataError, match="is no row of answers"):
        answer_dataset(MockEngine("new"), prompting, rows(2), Sampling(), file, out=out)


def test_answers_are_compared_with_labels(template: Template, tmp_path: Path) -> None:
    seen: list[tuple[list[str], list[str]]] = []

    def summarise(answers: Any, labels: Any) -> dict[str, float]:
        seen.append((list(answers), list(labels)))
        return {"score": 50.0}

    unlabelled = Example(messages=(Message("user", "question 9"),))
    report = answer_dataset(
        MockEngine(echo(template)),
        Prompting(template),
        [*rows(3), unlabelled],
        Sampling(),
        tmp_path / "a",
        out=io.StringIO(),
        summarise=summarise,
    )
    assert seen == [(["echo question 0", "echo question 1"], ["label 0", "label 1"])]
    assert report.scores == {"score": 50.0}


@pytest.mark.parametrize(
    ("given", "part"),
    [
        (["x"], "write name=checkpoint"),
        (["=x"], "write name=checkpoint"),
        (["a=x", "a=y"], "the name a is taken"),
        (["default-lora=x"], "the name default-lora is taken"),
    ],
)
def test_adapters_need_names_of_their_own(given: list[str], part: str) -> None:
    arguments = InferArguments(lora_modules=given)
    with pytest.raises(UsageError, match=part):
        arguments.check(frozenset())


def test_formats_of_one_round_get_each_question_alone(tmp_path: Path) -> None:
    bare = Tokenizer.from_directory(tiny_tokenizer(tmp_path / "bare", chat_template=None))
    template = choose_template("AUTO", bare, registered=None, prefers_record=False).template
    engine = MockEngine("ok")
    chat(engine, template, tmp_path, ["once", "upon"])
    assert bare.decode(list(engine.requests[1].token_ids)) == "upon"


def test_result_files_are_new_each_time(tmp_path: Path) -> None:
    files = {result_file(tmp_path / "ckpt", "m") for _ in range(5)}
    assert len(files) == 5 and all(f.parent.name == "infer_result" for f in files)
    assert "org-m" in str(result_file(None, "org/m", root=tmp_path))
    with pytest.raises(UsageError, match="can't be written"):
        result_file("/proc/nowhere", "m")


def test_history_pairs() -> None:
    turns = (Message("user", "a"), Message("assistant", "b"), Message("assistant", "c"))
    assert history_of(turns) == [["a", "b"], ["", "c"]]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('{"query": "a"}\n{broken', "q.jsonl:2: invalid JSON"),
        ('{"messages": []}', "needs messages or a query"),
        ('{"messages": [1]}', "role and content"),
        ("", "holds no questions"),
    ],
)
def test_bad_prompt_files(tmp_path: Path, text: str, part: str) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text(text)
    with pytest.raises(DataError, match=part):
        read_prompts(file)


def test_prompt_files(tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text(
        '{"query": "a", "system": "s"}\n\n{"messages": [{"role": "user", "content": "b"}]}\n'
    )
    first, second = read_prompts(file)
    assert first.system == "s" and second.messages[0].text == "b"
    with pytest.raises(DataError, match="can't be read"):
        read_prompts(tmp_path / "none")
