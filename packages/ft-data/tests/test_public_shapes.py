"""Rows as well-known public data sets write them, read without being told how."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ft_core.errors import DataError
from ft_core.examples import Example
from ft_data import Rows, load

Q, A = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}


def read(tmp_path: Path, *rows: Any) -> Rows:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return load(str(path))


def said(example: Example) -> list[str]:
    return [f"{message.role}: {message.text}" for message in example.messages]


ONE_ROUND: dict[str, dict[str, Any]] = {
    "instruction and response": {"instruction": "q", "response": "a", "category": "x"},
    "instruction, context": {"instruction": "q", "context": "", "response": "a"},
    "prompt and response": {"prompt": "q", "response": "a", "helpfulness": 3},
    "question and answer": {"question": "q", "answer": "a"},
    "query and answer": {"query": "q", "answer": "a"},
    "problem and solution": {"problem": "q", "level": "5", "solution": "a"},
    "input and output": {"input": "q", "output": "a"},
    "input and target": {"kind": "x", "input": "q", "target": "a"},
    "upper case": {"Question": "q", "Complex_CoT": "t", "Response": "a"},
    "Instruction": {"Instruction": "q", "Input": "", "Output": "a"},
    "Q and A": {"Q": "q", "A": "a"},
    "Chinese columns": {"问题": "q", "回答": "a"},
    "Chinese alpaca": {"指令": "q", "输入": "", "输出": "a"},
    "with the whole as text": {"instruction": "q", "input": "", "output": "a", "text": "q a"},
    "with the same as messages": {"problem": "q", "solution": "a", "messages": [Q, A]},
    "with the first prompt": {"prompt": "q", "prompt_id": "1", "messages": [Q, A]},
    "with the same twice": {
        "instruction": "q",
        "response": "a",
        "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}],
    },
    "upper case roles": {
        "conversations": [{"from": "USER", "value": "q"}, {"from": "ChatGPT", "value": "a"}]
    },
    "bing": {"conversations": [{"from": "human", "value": "q"}, {"from": "bing", "value": "a"}]},
    "Chinese roles": {
        "conversations": [{"role": "用户", "content": "q"}, {"role": "助手", "content": "a"}]
    },
    "speaker and text": {
        "dialogue": [{"speaker": "user", "text": "q"}, {"speaker": "bot", "text": "a"}]
    },
    "texts in turn": {"id": "1", "data": ["q", "a"]},
    "pairs": {"turns": [["q", "a"]]},
    "rounds": {"conversation": [{"input": "q", "output": "a"}]},
    "turns in conversation": {"conversation_id": "1", "conversation": [Q, A], "language": "en"},
    "answers of extracts": {"question": "q", "answers": {"text": ["a", "b"], "answer_start": [1]}},
}


@pytest.mark.parametrize("name", ONE_ROUND)
def test_one_round(tmp_path: Path, name: str) -> None:
    (row,) = read(tmp_path, ONE_ROUND[name])
    assert said(row) == ["user: q", "assistant: a"]


def test_context_belongs_to_the_question(tmp_path: Path) -> None:
    (row,) = read(tmp_path, {"instruction": "q", "context": "c", "response": "a"})
    assert said(row) == ["user: q\nc", "assistant: a"]
    (row,) = read(tmp_path, {"question": "q", "context": "c", "answers": {"text": ["a"]}})
    assert said(row) == ["user: q\nc", "assistant: a"]


def test_system_prompts(tmp_path: Path) -> None:
    for name in ("system", "system_prompt"):
        (row,) = read(tmp_path, {name: "s", "question": "q", "response": "a"})
        assert said(row) == ["system: s", "user: q", "assistant: a"]


HH = "\n\nHuman: q\n\nAssistant: b\n\nHuman: r\n\nAssistant:"
PAIRS: dict[str, dict[str, Any]] = {
    "transcripts": {"chosen": f"{HH} a", "rejected": f"{HH} n"},
    "transcript and answers": {"prompt": HH, "chosen": "a", "rejected": "n"},
    "binarized": {
        "prompt": "r",
        "chosen": [Q, {**A, "content": "b"}, {**Q, "content": "r"}, A],
        "rejected": [Q, {**A, "content": "b"}, {**Q, "content": "r"}, {**A, "content": "n"}],
        "messages": [Q, {**A, "content": "b"}, {**Q, "content": "r"}, A],
        "score_chosen": 8.0,
    },
    "prompt as turns": {
        "prompt": [Q, {**A, "content": "b"}, {**Q, "content": "r"}],
        "chosen": [A],
        "rejected": [{**A, "content": "n"}],
    },
    "turns as text": {
        "prompt": json.dumps([Q, {**A, "content": "b"}, {**Q, "content": "r"}]),
        "chosen": json.dumps([A]),
        "rejected": json.dumps([{**A, "content": "n"}]),
    },
    "history": {"query": "r", "history": [["q", "b"]], "response": "a", "rejected_response": "n"},
    "two conversations": {
        "conversations": [Q, {**A, "content": "b"}, {**Q, "content": "r"}, A],
        "rejected_conversations": [
            *[Q, {**A, "content": "b"}],
            *[{**Q, "content": "r"}, {**A, "content": "n"}],
        ],
    },
    "OpenAI": {
        "input": {"messages": [Q, {**A, "content": "b"}, {**Q, "content": "r"}], "tools": []},
        "preferred_output": [A],
        "non_preferred_output": [{**A, "content": "n"}],
    },
}


@pytest.mark.parametrize("name", PAIRS)
def test_preferences(tmp_path: Path, name: str) -> None:
    (row,) = read(tmp_path, PAIRS[name])
    assert said(row) == ["user: q", "assistant: b", "user: r", "assistant: a"]
    assert row.rejected is not None
    assert [turn.text for turn in row.rejected] == ["n"]


@pytest.mark.parametrize(
    "row",
    [
        {"system": "s", "question": "q", "chosen": "a", "rejected": "n"},
        {"system": "s", "instruction": "q", "chosen_response": "a", "rejected_response": "n"},
        {"system": "s", "question": "q", "response_j": "a", "response_k": "n", "qid": 1},
    ],
)
def test_other_names_of_preferences(tmp_path: Path, row: dict[str, Any]) -> None:
    (read_row,) = read(tmp_path, row)
    assert said(read_row) == ["system: s", "user: q", "assistant: a"]
    assert read_row.rejected is not None
    assert [turn.text for turn in read_row.rejected] == ["n"]


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (True, False),
        ("True", "False"),
        ("true", "FALSE"),
        (1, 0),
        ("1", "0"),
        (1.0, 0.0),
        ("yes", "no"),
        ("desirable", "undesirable"),
        ("good", "bad"),
    ],
)
def test_judgements_as_they_are_spelled(tmp_path: Path, good: Any, bad: Any) -> None:
    rows = read(
        tmp_path,
        {"prompt": [Q], "completion": [A], "label": bad},
        {"prompt": "q", "completion": "a", "label": good},
    )
    assert [row.label for row in rows] == [False, True]


def test_classes_are_no_judgements(tmp_path: Path) -> None:
    rows = read(tmp_path, *({"query": "q", "response": "a", "label": i % 3} for i in range(6)))
    assert rows.report.sources[0].format == "query"
    assert [row.label for row in rows] == [None] * 6
    assert [row.aside["label"] for row in rows] == [0, 1, 2, 0, 1, 2]


CALL = {"name": "w", "arguments": {"city": "P"}}
TOOL = {"name": "w", "description": "d", "parameters": {"type": "object", "properties": {}}}
CALLS: dict[str, dict[str, Any]] = {
    "OpenAI": {
        "messages": [
            Q,
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"function": {**CALL, "arguments": '{"city": "P"}'}}],
            },
            {"role": "tool", "content": "sun"},
            A,
        ],
        "tools": [{"type": "function", "function": TOOL}],
    },
    "OpenAI, older": {
        "messages": [
            Q,
            {"role": "assistant", "content": "", "function_call": CALL},
            {"role": "function", "name": "w", "content": "sun"},
            A,
        ],
        "functions": [TOOL],
    },
    "Anthropic": {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "q"}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "tool_use", "id": "1", "name": "w", "input": {"city": "P"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "1",
                        "content": [{"type": "text", "text": "sun"}],
                    }
                ],
            },
            A,
        ],
        "tools": [{"name": "w", "description": "d", "input_schema": TOOL["parameters"]}],
    },
    "glaive": {
        "conversations": [
            {"from": "human", "value": "q"},
            {"from": "function_call", "value": json.dumps(CALL)},
            {"from": "observation", "value": "sun"},
            {"from": "gpt", "value": "a"},
        ],
        "tools": json.dumps([TOOL]),
    },
    "roles of calls": {
        "messages": [
            Q,
            {"role": "tool_call", "content": json.dumps(CALL)},
            {"role": "tool_response", "content": "sun"},
            A,
        ],
        "tools": [TOOL],
    },
}


@pytest.mark.parametrize("name", CALLS)
def test_calls_of_functions(tmp_path: Path, name: str) -> None:
    (row,) = read(tmp_path, CALLS[name])
    assert said(row) == ["user: q", "assistant: ", "tool: sun", "assistant: a"]
    (call,) = row.messages[1].tool_calls
    assert (call.name, call.arguments) == ("w", {"city": "P"})
    (tool,) = row.tools
    assert tool.get("function", tool) == TOOL


def test_calls_as_the_answer(tmp_path: Path) -> None:
    row = {"query": "q", "answers": json.dumps([CALL, CALL]), "tools": json.dumps([TOOL])}
    (read_row,) = read(tmp_path, row)
    assert [call.name for call in read_row.messages[1].tool_calls] == ["w", "w"]
    text = json.dumps(CALL)
    (read_row,) = read(tmp_path, {"query": "q", "response": text})
    assert read_row.answer == text, "without functions it is a text"


def test_thinking_and_results_beside_text(tmp_path: Path) -> None:
    content = [
        {"type": "thinking", "thinking": "hm", "signature": "x"},
        {"type": "text", "text": "a"},
    ]
    result = {"type": "tool_result", "tool_use_id": "1", "content": "sun"}
    turns = [
        Q,
        {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "w"}]},
        {"role": "user", "content": [result, {"type": "text", "text": "and?"}]},
        {"role": "assistant", "content": content},
    ]
    (row,) = read(tmp_path, {"messages": turns})
    assert said(row)[2:] == [
        "tool: sun",
        "user: and?",
        "assistant: <think>\nhm\n</think>\n\na",
    ]
    assert row.messages[2].tool_call_id == "1"


def test_images_inside_turns(tmp_path: Path) -> None:
    parts = [
        {"type": "text", "text": "what?"},
        {"type": "image_url", "image_url": {"url": "http://x/1.png"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}},
        {"type": "image", "image": "3.png"},
    ]
    (row,) = read(tmp_path, {"messages": [{"role": "user", "content": parts}, A]})
    assert row.images == ("http://x/1.png", "data:image/png;base64,AA==", "3.png")
    mark = {"type": "image"}
    assert row.messages[0].content == ({"type": "text", "text": "what?"}, mark, mark, mark)
    (row,) = read(
        tmp_path,
        {"image": "a.jpg", "conversations": [{"from": "human", "value": "<image>q"}, A]},
    )
    assert row.images == ("a.jpg",)
    with pytest.raises(DataError, match="stands beside files in the turns"):
        read(tmp_path, {"images": ["b"], "messages": [{"role": "user", "content": parts}, A]})


def test_speakers_with_names_of_their_own(tmp_path: Path) -> None:
    talks = [
        [("Client", "q"), ("Therapist", "a")],
        [("Client", "r"), ("Therapist", "b"), ("Client", "s"), ("Therapist", "c")],
    ]
    rows = read(
        tmp_path,
        *({"dialog": [{"speaker": who, "text": text} for who, text in talk]} for talk in talks),
    )
    assert said(rows[1]) == ["user: r", "assistant: b", "user: s", "assistant: c"]
    assert "'Client' is the user, 'Therapist' is the assistant" in str(rows.report)
    rows = read(
        tmp_path, {"conversations": [{"from": "human", "value": "q"}, {"from": "Luna", **A}]}
    )
    assert said(rows[0]) == ["user: q", "assistant: a"]


@pytest.mark.parametrize(
    "talks",
    [
        [["A", "B"], ["B", "A"]],
        [["A", "B", "B"]],
        [["A", "B", "C"]],
        [["A", "human", "gpt"]],
    ],
)
def test_speakers_who_cannot_be_told_apart(tmp_path: Path, talks: list[list[str]]) -> None:
    rows = [{"messages": [{"role": who, "content": "x"} for who in talk]} for talk in talks]
    with pytest.raises(DataError, match=r"role 'A' is unknown.*user_role"):
        read(tmp_path, *rows)


def test_trees_of_messages(tmp_path: Path) -> None:
    def message(number: int, parent: int | None, text: str, rank: int | None = None) -> Any:
        role = "prompter" if rank is None else "assistant"
        same = {"message_tree_id": "t", "lang": "en", "deleted": False}
        return {
            "message_id": str(number),
            "parent_id": None if parent is None else str(parent),
            "text": text,
            "role": role,
            "rank": rank,
            **same,
        }

    tree = [
        message(1, None, "q"),
        message(2, 1, "worse", 1),
        message(3, 1, "better", 0),
        message(4, 3, "r"),
        message(5, 4, "last", 0),
    ]
    other = [{**item, "message_tree_id": "u"} for item in tree[:3]]
    rows = read(tmp_path, *tree, *other)
    assert said(rows[0]) == ["user: q", "assistant: better", "user: r", "assistant: last"]
    assert said(rows[1]) == ["user: q", "assistant: better"]
    assert len(rows) == 2
    assert "one row for each tree" in str(rows.report)
    broken = [{**tree[1], "message_tree_id": "v"}]
    rows = read(tmp_path, *tree, *broken)
    assert rows.report.sources[0].dropped == {"broken_tree": 1}


def test_weights_of_turns_and_rows(tmp_path: Path) -> None:
    turns = [Q, {**A, "loss": False}, Q, {**A, "weight": 0.5}, Q, {**A, "loss": True}]
    (row,) = read(tmp_path, {"messages": turns, "weight": 2})
    assert [turn.weight for turn in row.messages[1::2]] == [0.0, 0.5, None]
    assert row.weight == 2
    rows = read(tmp_path, {"query": "q", "response": "a", "weight": "0.25"})
    assert rows[0].weight == 0.25
    assert "the column 'weight' scales the loss" in str(rows.report)
    (row,) = read(tmp_path, {"query": "q", "response": "a", "weight": "3 kg"})
    assert (row.weight, row.aside) == (1.0, {"weight": "3 kg"})
    with pytest.raises(DataError, match="must be a number of at least 0"):
        read(tmp_path, {"query": "q", "response": "a", "weight": -1})


def test_token_ids_pass_through(tmp_path: Path) -> None:
    (row,) = read(
        tmp_path,
        {"input_ids": [5, 6, 7], "labels": [-100, 6, 7], "attention_mask": [1, 1, 1], "n": 1},
    )
    assert (row.input_ids, row.labels) == ((5, 6, 7), (-100, 6, 7))
    assert row.aside == {"n": 1}
    (row,) = read(tmp_path, {"input_ids": "[5, 6]", "labels": "[-100, 6]"})
    assert row.input_ids == (5, 6)


@pytest.mark.parametrize(
    ("row", "rule", "field"),
    [
        ({"input_ids": [5, 6]}, "wrong_length", "labels"),
        ({"input_ids": [5, 6], "labels": [5]}, "wrong_length", "labels"),
        ({"input_ids": [], "labels": []}, "empty_row", "input_ids"),
        ({"input_ids": [5, 6], "labels": [6, -100]}, "wrong_label", "labels"),
        ({"input_ids": [5, -1], "labels": [5, -1]}, "wrong_token", "input_ids[1]"),
        ({"input_ids": [5, 2.0], "labels": [5, 2]}, "wrong_type", "input_ids[1]"),
        ({"input_ids": [True], "labels": [1]}, "wrong_type", "input_ids[0]"),
        ({"input_ids": "abc", "labels": [1]}, "wrong_type", "input_ids"),
        (
            {"input_ids": [5, 0], "labels": [5, -100], "attention_mask": [1, 0]},
            "padded",
            "attention_mask",
        ),
    ],
)
def test_token_ids_are_checked(tmp_path: Path, row: Any, rule: str, field: str) -> None:
    rows = read(tmp_path, {"input_ids": [1], "labels": [1]}, row)
    (fault,) = rows.report.sources[0].faults
    assert fault.place is not None
    assert (fault.rule, fault.place.line, fault.place.field) == (rule, 2, field)


AMBIGUOUS: list[tuple[dict[str, Any], str]] = [
    (
        {"query": "q", "response": "a", "instruction": "i", "output": "o", "x": 1},
        "'query', 'response', 'instruction', 'output', 'x' fit query .* and alpaca",
    ),
    (
        {
            "messages": [Q, A],
            "conversations": [{"from": "human", "value": "r"}, {"from": "gpt", "value": "b"}],
        },
        "'messages', 'conversations' fit conversations .* and messages",
    ),
    ({"problem": "q", "solution": "long", "answer": "3"}, "the answer in answer or solution"),
    ({"instruction": "q", "response": "a", "answer": "b"}, "the answer in response or answer"),
]


@pytest.mark.parametrize(("row", "match"), AMBIGUOUS)
def test_what_may_mean_two_things_is_refused(
    tmp_path: Path, row: dict[str, Any], match: str
) -> None:
    with pytest.raises(DataError, match=match) as caught:
        read(tmp_path, row)
    assert caught.value.rule == "ambiguous_format"
    assert caught.value.place is not None
    assert caught.value.place.line == 1
    assert "custom_dataset_info" in str(caught.value)


def test_columns_of_no_use_are_kept_aside(tmp_path: Path) -> None:
    nested = {"scores": [1, 2], "who": None}
    (row,) = read(
        tmp_path, {"query": "q", "response": "a", "system": None, "id": 7, "about": nested}
    )
    assert row.aside == {"id": 7, "about": nested}
    assert "id" not in row.to_json()
    (row,) = read(tmp_path, {"prompt": "q", "messages": [Q, A], "score": 1.5})
    assert row.aside == {"prompt": "q", "score": 1.5}


@pytest.mark.parametrize(
    "row",
    [
        {"sentence": "good", "label": 1},
        {"translation": {"en": "hello", "de": "hallo"}},
        {"document": "long", "summary": "short"},
        {"data": [1, 2]},
    ],
)
def test_rows_of_no_known_shape_list_what_there_is(tmp_path: Path, row: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=f"the columns '{next(iter(row))}'.*alpaca") as caught:
        read(tmp_path, row)
    assert caught.value.rule == "unknown_format"
