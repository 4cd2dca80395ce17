"""What is worth a look in rows that can be loaded."""

from __future__ import annotations

from typing import Any

import pytest

from ft_core import Example, Message
from ft_core.errors import Place
from ft_core.examples import ToolCall
from ft_data.checks import check, describe
from ft_data.checks.languages import language_of
from ft_data.checks.sizes import Histogram


def row(question: str, answer: str, line: int | None = None, **other: Any) -> Example:
    place = None if line is None else Place("rows.jsonl", line)
    messages = (Message("user", question), Message("assistant", answer))
    return Example(messages=messages, source=place, **other)


def found(*examples: Example) -> dict[str, tuple[str, ...]]:
    return {finding.kind: finding.places for finding in check(examples).findings}


def test_good_rows_have_no_findings() -> None:
    assert found(*(row(f"question {i}", f"answer {i}", i) for i in range(5))) == {}
    assert found() == {} and describe([]) == ["no rows"]


def test_duplicates_name_both_rows() -> None:
    rows = [row("q", "a", 1), row("r", "b", 2), row("q", "a", 3), row("q", "a", 4)]
    places = ("rows.jsonl:3 equals rows.jsonl:1", "rows.jsonl:4 equals rows.jsonl:1")
    assert found(*rows) == {"duplicate": places}
    assert found(row("q", "a"), row("q", "a")) == {"duplicate": ("row 1 equals row 0",)}


def test_a_row_that_was_sampled_twice_is_no_duplicate() -> None:
    assert found(row("q", "a", 1), row("q", "a", 1)) == {}


def test_rows_that_differ_in_their_label_are_no_duplicates() -> None:
    assert found(row("q", "a", 1, label=True), row("q", "a", 2, label=False)) == {}


def test_one_question_with_several_answers() -> None:
    rows = [row("q", "a", 1), row("q", "b", 2), row("q", "c", 3), row("r", "a", 4)]
    assert found(*rows) == {"several_answers": ("rows.jsonl:1: 3 answers",)}


def test_roles_that_follow_themselves() -> None:
    ask, answer = Message("user", "q"), Message("assistant", "a")
    result = Message("tool", "3")
    calls = Message("assistant", "", (ToolCall("f", {}),))
    assert found(Example((ask, ask, answer))) == {"repeated_role": ("row 0",)}
    assert found(Example((ask, calls, result, result, answer))) == {}


def test_empty_questions_and_answers() -> None:
    blank = Message("assistant", " ")
    rejects = row("r", "good", 3, rejected=(blank,))
    assert found(row(" ", "a", 1), row("q", "b", 2), rejects) == {
        "empty_question": ("rows.jsonl:1",),
        "empty_answer": ("rows.jsonl:3",),
    }
    picture = Example((Message("user", ({"type": "image"},)), Message("assistant", "a cat")))
    assert found(picture) == {}


def test_answers_that_repeat_or_stop_short() -> None:
    cut = "a long sentence " * 13 + "that stops"
    assert found(row("say it all", "say it all", 1), row("q", cut, 2), row("r", cut + ".", 3)) == {
        "answer_repeats_question": ("rows.jsonl:1",),
        "answer_looks_cut": ("rows.jsonl:2",),
    }


def test_rows_far_shorter_or_longer_than_usual() -> None:
    usual = [row(f"question {i:02}", "x" * 188 + ".", i) for i in range(9)]
    places = found(
        *usual, row("q", "a", 20), row("r", "y" * 3999 + ".", 21), row("s", "z" * 900, 22)
    )
    assert places["very_short"] == ("rows.jsonl:20: 2 characters",)
    assert places["very_long"] == ("rows.jsonl:21: 4,001 characters",)
    short = [row(f"q{i}", "yes.", i) for i in range(9)]
    assert "very_long" not in found(*short, row("r", "y" * 900 + ".", 20))


def test_many_places_are_counted_and_three_shown() -> None:
    (finding,) = check([row("q", "a", line) for line in range(1, 7)]).findings
    assert finding.lines() == [
        "duplicate: 5 rows that equal another row weigh more than they should",
        "  rows.jsonl:2 equals rows.jsonl:1",
        "  rows.jsonl:3 equals rows.jsonl:1",
        "  rows.jsonl:4 equals rows.jsonl:1",
        "  and 2 more",
    ]


def test_the_description_counts_turns_and_characters() -> None:
    two = Example((Message("system", "be"), *row("q", "a").messages, *row("r", "b").messages))
    assert describe([two, row("long", "answer"), row("x", "yz")]) == [
        "3 rows; characters: 3 at least, 6 in the middle, 10 at most",
        "turns: 1 system, 4 user, 4 assistant, 0 tool",
        "user turns per row: 1 (in 2), 2 (in 1)",
    ]
    assert describe([Example(text="once")]) == [
        "1 rows; characters: 4 at least, 4 in the middle, 4 at most"
    ]


def test_answers_that_refuse_are_found_in_several_languages() -> None:
    refusals = (
        "I'm sorry, but I can't help with that.",
        "As an AI language model, I cannot browse the web.",
        "抱歉，我无法回答这个问题。",
    )
    rows = [row(f"question {i}", text, i) for i, text in enumerate(refusals)]
    fine = row("Can you refuse?", "I can, and I say why: it is polite.", 9)
    assert found(*rows, fine) == {"refused_answer": tuple(f"rows.jsonl:{i}" for i in range(3))}
    rejected = row("q", "As an AI language model, I cannot do it.", 1, label=False)
    assert found(rejected) == {}  # what is taught not to say


def test_pairs_whose_answers_are_equal() -> None:
    same = row("q", "good", 1, rejected=(Message("assistant", "good"),))
    assert found(same) == {"same_answers": ("rows.jsonl:1",)}


def test_rows_to_evaluate_on_that_are_trained_on() -> None:
    report = check([row("Who  ARE you?", "x", 1)], [row("who are you?", "y", 5), row("z", "y", 6)])
    (finding,) = report.findings
    assert (finding.kind, finding.places) == (
        "leaked",
        ("rows.jsonl:5 is asked in rows.jsonl:1",),
    )


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("What is the capital of France?", "en"),
        ("Was ist die Hauptstadt von Frankreich?", "de"),
        ("Quelle est la capitale de la France ?", "fr"),
        ("日本の首都はどこですか", "ja"),
        ("法国的首都是哪里？", "zh"),
        ("Где находится столица?", "ru"),
        ("대한민국의 수도는?", "ko"),
        ("x = foo(bar)", "latin"),
        ("12 + 30 = 42", "none"),
        ("", "none"),
    ],
)
def test_languages(text: str, language: str) -> None:
    assert language_of(text) == language


def test_lengths_are_counted_in_powers_of_two() -> None:
    sizes = Histogram.of("characters", [1, 2, 3, 4, 17])
    assert sizes.bins == ((1, 1), (2, 1), (4, 2), (8, 0), (16, 0), (32, 1))
    assert (sizes.least, sizes.middle, sizes.most) == (1, 3, 17)
    assert Histogram.of("tokens", []).bins == ()
