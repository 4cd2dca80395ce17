"""The builtin backend through ``evaluate``: files of a person in, results out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ft_core.errors import DataError, ModelError, UsageError
from ft_eval.arguments import EvalArguments
from ft_eval.evaluation import evaluate
from ft_eval.reports import read_evaluation
from ft_eval.respondents.protocol import Prompt
from ft_eval.results import Evaluation
from ft_eval.testing import QUESTIONS, ScriptedRespondent, write_lines
from ft_eval.work import Work


def run(
    tmp_path: Path, *respondents: ScriptedRespondent, seed: int = 42, **flags: Any
) -> Evaluation:
    """Evaluate with flags, results below tmp_path."""
    values = {"eval_backend": "builtin", "eval_output_dir": str(tmp_path / "out"), **flags}
    arguments = EvalArguments(**values)
    arguments.check(frozenset(flags))
    work = Work(arguments, seed, ("eval",), arguments.model_dump(), say=lambda text: None)

    @contextmanager
    def group(wait: object) -> Iterator[Sequence[ScriptedRespondent]]:
        yield respondents

    return evaluate(work, [group], steps={})


def right_letter(prompt: Prompt) -> str:
    text = prompt.text if prompt.text is not None else prompt.messages[-1].text
    last = max(QUESTIONS, key=lambda item: text.rfind(item[0]))
    return last[2]


def test_choices_by_likelihood_take_the_likeliest_letter(
    tmp_path: Path, choices: Path, configured: Callable[..., Path]
) -> None:
    config = configured({"name": "mc", "pattern": "ceval", "dataset": str(choices)})
    perfect = ScriptedRespondent(
        score=lambda prompt, text: 0.0 if text == right_letter(prompt) else -1.0
    )
    always_a = ScriptedRespondent(
        name="a", score=lambda prompt, text: -float(ord(text)), identity={"weights": "2"}
    )
    found = run(tmp_path, perfect, always_a, custom_eval_config=str(config))
    values = [result.metric("accuracy").value for result in found.results]
    assert values == [1.0, sum(q[2] == "A" for q in QUESTIONS) / len(QUESTIONS)]
    assert {result.method for result in found.results} == {"likelihood"}
    assert found.results[0].shots == 1


def test_a_base_model_sees_plain_text_and_letters_with_a_space(
    tmp_path: Path, choices: Path, configured: Callable[..., Path]
) -> None:
    config = configured({"name": "mc", "pattern": "ceval", "dataset": str(choices)})
    seen: list[str] = []

    def score(prompt: Prompt, text: str) -> float:
        seen.append(text)
        return 0.0

    base = ScriptedRespondent(chat=False, score=score)
    run(tmp_path, base, custom_eval_config=str(config), eval_few_shot=0)
    assert set(seen) == {" A", " B", " C", " D"}
    assert all(prompt.text is not None and prompt.text.endswith("Answer:") for prompt in base.asked)


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("The answer is (B).", "B"),
        ("**B. Paris**", "B"),
        ("I think A is wrong, so the answer is C", "C"),
        ("答案是B", "B"),
        ("正确答案：D。", "D"),
        (r"\boxed{C}", "C"),
        ("A fox jumps over a dog", None),
        ("Paris is the capital", None),
        ("It must be D, surely", "D"),
    ],
)
def test_choices_by_letter_read_the_answer(
    tmp_path: Path,
    choices: Path,
    configured: Callable[..., Path],
    answer: str,
    letter: str | None,
) -> None:
    entry = {"name": "mc", "pattern": "ceval", "dataset": str(choices), "method": "letter"}
    found = run(tmp_path, ScriptedRespondent(answer), custom_eval_config=str(configured(entry)))
    (result,) = found.results
    assert {sample.shown["chosen"] for sample in result.samples} == {letter}
    right = sum(question[2] == letter for question in QUESTIONS)
    assert result.metric("accuracy").value == right / len(QUESTIONS)


def test_answers_are_measured_as_the_libraries_measure_them(
    tmp_path: Path, configured: Callable[..., Path]
) -> None:
    import sacrebleu
    from rouge_score.rouge_scorer import RougeScorer

    rows = [
        {"query": "one", "response": "The capital of France is Paris today."},
        {"query": "two", "response": "A small model counts from one to ten."},
        {"query": "three", "response": ["a b c d e", "the quick brown fox jumps"]},
    ]
    answers = {
        "one": "The capital of France is Rome.",
        "two": "A model counts from one to ten.",
        "three": "the quick brown fox jumps over",
    }
    write_lines(tmp_path / "qa" / "default.jsonl", rows)
    config = configured({"name": "qa", "pattern": "general_qa", "dataset": str(tmp_path / "qa")})
    respondent = ScriptedRespondent(lambda prompt: answers[prompt.messages[-1].text])
    (result,) = run(tmp_path, respondent, custom_eval_config=str(config)).results
    scorer = RougeScorer(["rouge1", "rougeL"])

    def rouge(kind: str) -> float:
        return sum(
            max(
                scorer.score(reference, answers[row["query"]])[kind].fmeasure
                for reference in (
                    [row["response"]] if isinstance(row["response"], str) else row["response"]
                )
            )
            for row in rows
        ) / len(rows)

    assert result.metric("rouge-1").value == pytest.approx(rouge("rouge1"))
    assert result.metric("rouge-l").value == pytest.approx(rouge("rougeL"))
    first_two = sacrebleu.corpus_bleu(
        [answers["one"], answers["two"]], [[rows[0]["response"], rows[1]["response"]]]
    )
    write_lines(tmp_path / "qa" / "default.jsonl", rows[:2])
    (result,) = run(tmp_path, respondent, custom_eval_config=str(config)).results
    assert result.metric("bleu-4").value == pytest.approx(first_two.score / 100)


def test_chinese_is_compared_by_characters(tmp_path: Path, configured: Callable[..., Path]) -> None:
    import sacrebleu

    reference, answer = "中国的首都是北京，欢迎你。", "中国的首都是上海，欢迎你。"
    write_lines(tmp_path / "qa" / "zh.jsonl", [{"query": "首都？", "response": reference}])
    config = configured({"name": "qa", "pattern": "general_qa", "dataset": str(tmp_path / "qa")})
    (result,) = run(tmp_path, ScriptedRespondent(answer), custom_eval_config=str(config)).results
    wanted = sacrebleu.corpus_bleu([answer], [[reference]], tokenize="zh").score / 100
    assert result.metric("bleu-4").value == pytest.approx(wanted)
    assert result.metric("rouge-1").value == pytest.approx(9 / 11)


def test_history_becomes_turns(tmp_path: Path, configured: Callable[..., Path]) -> None:
    row = {"history": [["Hi", "Hello!"]], "query": "Who?", "response": "Me", "system": "Be brief."}
    write_lines(tmp_path / "qa" / "default.jsonl", [row])
    config = configured({"name": "qa", "pattern": "general_qa", "dataset": str(tmp_path / "qa")})
    respondent = ScriptedRespondent("me")
    run(tmp_path, respondent, custom_eval_config=str(config))
    turns = [(message.role, message.text) for message in respondent.asked[0].messages]
    assert turns == [
        ("system", "Be brief."),
        ("user", "Hi"),
        ("assistant", "Hello!"),
        ("user", "Who?"),
    ]


def test_perplexity_counts_all_tokens_together(
    tmp_path: Path, configured: Callable[..., Path]
) -> None:
    write_lines(tmp_path / "texts" / "default.jsonl", [{"text": "ab"}, {"text": "abcdef"}])
    config = configured({"name": "t", "pattern": "text", "dataset": str(tmp_path / "texts")})
    respondent = ScriptedRespondent(score=lambda prompt, text: -0.5 if len(text) == 2 else -3.5)
    (result,) = run(tmp_path, respondent, custom_eval_config=str(config)).results
    assert result.metric("perplexity").value == pytest.approx(2.718281828459045 ** (4 / 8))
    assert result.metric("bits_per_byte").value == pytest.approx(4 / 0.6931471805599453 / 8)


@pytest.mark.parametrize(
    ("answer", "valid"),
    [
        ('{"n": 1}', True),
        ('```json\n{"n": 1}\n```', True),
        ('{"n": "one"}', False),
        ('Here it is: {"n": 1}', False),
        ('{"n": NaN}', False),
    ],
)
def test_json_must_follow_its_schema(
    tmp_path: Path, configured: Callable[..., Path], answer: str, valid: bool
) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    write_lines(tmp_path / "qa" / "default.jsonl", [{"query": "Give n.", "schema": schema}])
    entry = {
        "name": "qa",
        "pattern": "general_qa",
        "dataset": str(tmp_path / "qa"),
        "metrics": ["json_valid"],
    }
    (result,) = run(
        tmp_path, ScriptedRespondent(answer), custom_eval_config=str(configured(entry))
    ).results
    assert result.metric("json_valid").value == float(valid)


def test_tool_calls_are_read_and_compared(tmp_path: Path, configured: Callable[..., Path]) -> None:
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
    call = {"name": "add", "arguments": {"a": 1, "b": [2, "x "]}}
    rows = [
        {
            "messages": [
                {"role": "user", "content": "Add."},
                {"role": "assistant", "content": "", "tool_calls": [{"function": call}]},
                {"role": "tool", "content": "3"},
                {"role": "assistant", "content": "It is 3."},
            ],
            "tools": [tool],
        }
    ]
    write_lines(tmp_path / "tools" / "default.jsonl", rows)
    config = configured({"name": "t", "pattern": "tools", "dataset": str(tmp_path / "tools")})

    def measured(said: dict[str, Any]) -> list[float]:
        text = f"<tool_call>\n{json.dumps(said)}\n</tool_call>"
        respondent = ScriptedRespondent(
            lambda prompt: text if prompt.messages[-1].role == "user" else "It is 3.",
            agent="hermes",
        )
        (result,) = run(tmp_path, respondent, custom_eval_config=str(config)).results
        return [result.metric(name).value for name in ("tool_name", "tool_call")]

    assert measured({"name": "add", "arguments": {"b": [2.0, "x"], "a": 1}}) == [1.0, 1.0]
    assert measured({"name": "add", "arguments": {"a": 2}}) == [1.0, 0.5]
    assert measured({"name": "sub", "arguments": {}}) == [0.5, 0.5]


def test_a_limit_draws_by_the_seed_or_cuts_a_slice(
    tmp_path: Path, choices: Path, configured: Callable[..., Path]
) -> None:
    flags = {
        "custom_eval_config": str(
            configured({"name": "mc", "pattern": "ceval", "dataset": str(choices)})
        )
    }

    def ids(**more: Any) -> list[str]:
        (result,) = run(tmp_path, ScriptedRespondent(), **flags, **more).results
        assert result.total == len(QUESTIONS)
        return [sample.id for sample in result.samples]

    assert ids(eval_limit="[1:3]") == ["1", "2"]
    assert ids(eval_limit="3") == ids(eval_limit="3")
    assert len({tuple(ids(eval_limit="3", seed=seed)) for seed in range(6)}) > 1
    assert ids(eval_limit="99") == ["0", "1", "2", "3", "4"]


def test_a_question_that_cannot_be_asked_hurts_no_other(
    tmp_path: Path, configured: Callable[..., Path]
) -> None:
    rows = [{"query": text, "response": "yes"} for text in ("one", "too long", "three")]
    write_lines(tmp_path / "qa" / "default.jsonl", rows)
    config = configured({"name": "qa", "pattern": "general_qa", "dataset": str(tmp_path / "qa")})

    def reply(prompt: Prompt) -> str:
        if prompt.messages[-1].text == "too long":
            raise UsageError("the prompt is longer than the model allows")
        return "yes"

    (result,) = run(tmp_path, ScriptedRespondent(reply), custom_eval_config=str(config)).results
    assert (result.failed, result.metric("exact_match").count) == (1, 2)
    assert result.metric("exact_match").value == 1.0
    with pytest.raises(UsageError, match="none of 3 questions"):
        run(
            tmp_path,
            ScriptedRespondent(lambda prompt: reply(Prompt.ask("too long"))),
            custom_eval_config=str(config),
        )


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"name": "x", "pattern": "ceva", "dataset": "."}], "pattern 'ceva' is unknown"),
        ([{"name": "x", "pattern": "ceval"}], "dataset: Field required"),
        (
            [{"name": "x", "pattern": "ceval", "dataset": ".", "subset": ["a"]}],
            "Did you mean subset_list",
        ),
        ([{"name": "x", "pattern": "ceval", "dataset": "nowhere"}], "no directory nowhere"),
        ({"name": "x"}, "must be a list"),
        ([], "must be a list"),
    ],
)
def test_a_bad_config_is_refused_with_its_place(
    tmp_path: Path, entries: object, message: str
) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(entries), encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        run(tmp_path, ScriptedRespondent(), custom_eval_config=str(file))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,question,A,B\n1,Which?,x,y\n", r"default_val.csv:2: field 'answer': is missing"),
        ("id,question,A,B,answer\n1,Which?,x,y,E\n", "must be one of A, B"),
        ("id,question,A,answer\n1,Which?,x,A\n", "needs choices A and B"),
        ("id,question,A,B,answer\n1,Which, then?,x,y,A\n", "more cells than the header"),
        ("", "holds no rows"),
    ],
)
def test_a_bad_file_of_choices_is_refused_with_its_place(
    tmp_path: Path, configured: Callable[..., Path], text: str, message: str
) -> None:
    directory = tmp_path / "mc"
    directory.mkdir()
    (directory / "default_val.csv").write_text(text, encoding="utf-8")
    config = configured({"name": "mc", "pattern": "ceval", "dataset": str(directory)})
    with pytest.raises(DataError, match=message):
        run(tmp_path, ScriptedRespondent(), custom_eval_config=str(config))


def test_a_missing_subset_names_what_is_there(
    tmp_path: Path, choices: Path, configured: Callable[..., Path]
) -> None:
    entry = {"name": "mc", "pattern": "ceval", "dataset": str(choices), "subset_list": ["law"]}
    with pytest.raises(DataError, match=r"no law_val.csv .* it holds default_dev.csv, default_val"):
        run(tmp_path, ScriptedRespondent(), custom_eval_config=str(configured(entry)))


def test_likelihoods_are_refused_where_there_are_none(
    tmp_path: Path, choices: Path, configured: Callable[..., Path]
) -> None:
    entry = {"name": "mc", "pattern": "ceval", "dataset": str(choices)}
    flags = {"custom_eval_config": str(configured({**entry, "method": "likelihood"}))}
    with pytest.raises(UsageError, match='"method": "letter"'):
        run(tmp_path, ScriptedRespondent(scores=False), **flags)
    flags = {"custom_eval_config": str(configured(entry))}
    (result,) = run(tmp_path, ScriptedRespondent("B", scores=False), **flags).results
    assert result.method == "letter"


def test_a_broken_run_goes_on_without_asking_again(
    tmp_path: Path, choices: Path, configured: Callable[..., Path]
) -> None:
    entry = {"name": "mc", "pattern": "ceval", "dataset": str(choices), "method": "letter"}
    flags = {"custom_eval_config": str(configured(entry)), "eval_batch_size": 1}
    with pytest.raises(ModelError):
        run(tmp_path, ScriptedRespondent("B", fails_after=3), **flags)
    second = ScriptedRespondent("B")
    whole = run(tmp_path, second, **flags)
    assert len(second.asked) == len(QUESTIONS) - 3
    third = ScriptedRespondent("B")
    run(tmp_path, third, **flags)
    assert len(third.asked) == len(QUESTIONS)
    fourth = ScriptedRespondent("B")
    again = run(tmp_path, fourth, **flags, eval_use_cache=True)
    assert fourth.asked == []
    assert [r.metrics for r in again.results] == [r.metrics for r in whole.results]


@pytest.mark.parametrize("changed", ["weights", "adapter", "template_hash", "dtype"])
def test_kept_answers_are_those_of_the_same_model(
    tmp_path: Path, choices: Path, configured: Callable[..., Path], changed: str
) -> None:
    entry = {"name": "mc", "pattern": "ceval", "dataset": str(choices)}
    flags = {"custom_eval_config": str(configured(entry)), "eval_use_cache": True}
    identity = {"weights": "w", "adapter": "a", "template_hash": "t", "dtype": "float32"}
    run(tmp_path, ScriptedRespondent(identity=identity), **flags)
    same = ScriptedRespondent(identity=dict(identity))
    run(tmp_path, same, **flags)
    assert same.asked == []
    other = ScriptedRespondent(identity={**identity, changed: "other"})
    run(tmp_path, other, **flags)
    assert len(other.asked) == len(QUESTIONS)


def test_other_generation_settings_are_asked_anew(
    tmp_path: Path, configured: Callable[..., Path]
) -> None:
    write_lines(tmp_path / "qa" / "default.jsonl", [{"query": "Who?", "response": "Me"}])
    entry = {"name": "qa", "pattern": "general_qa", "dataset": str(tmp_path / "qa")}
    for length, asked in ((10, 1), (10, 0), (20, 1)):
        respondent = ScriptedRespondent("me")
        config = configured({**entry, "max_new_tokens": length})
        run(tmp_path, respondent, custom_eval_config=str(config), eval_use_cache=True)
        assert len(respondent.asked) == asked


def test_reports_hold_what_was_found(
    tmp_path: Path, choices: Path, configured: Callable[..., Path]
) -> None:
    config = configured({"name": "mc", "pattern": "ceval", "dataset": str(choices)})
    found = run(
        tmp_path,
        ScriptedRespondent(name="first"),
        ScriptedRespondent(name="second <b>"),
        custom_eval_config=str(config),
        name="mine",
    )
    (directory,) = (tmp_path / "out" / "mine").iterdir()
    read = read_evaluation(directory)
    assert read.results == found.results
    page = (directory / "report.html").read_text(encoding="utf-8")
    assert "<b>" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert "| mc/default | first | accuracy |" in (directory / "results.md").read_text("utf-8")
    assert len((directory / "results.csv").read_text("utf-8").splitlines()) == 3
    lines = (tmp_path / "out" / "eval_result.jsonl").read_text("utf-8").splitlines()
    assert json.loads(lines[0])["directory"] == str(directory)
    assert json.loads((directory / "run.json").read_text("utf-8"))["status"] == "done"
