"""Calls of functions and reasoning, read out of answers that are given here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI

from ft_core.engine import Capability, GenerationRequest
from ft_core.testing import CHATML
from ft_serve.openai.forced_calls import ListOfCalls, any_function
from ft_serve.openai.protocol.chat import FunctionTool
from ft_serve.openai.reasoning import ReasoningForm, ReasoningReader
from ft_serve.testing import MockEngine

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tell the weather.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
TIME: Any = {"type": "function", "function": {"name": "get_time"}}
QUESTION: list[Any] = [{"role": "user", "content": "How is the weather in Paris?"}]
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
LIST = '[{"name": "get_weather", "arguments": {"city": "a \\"b\\" ]}"}}, {"name": "get_time", "arguments": {}}]'
THINKING = CHATML + "{# <think> </think> #}"
OPENED = CHATML.replace("assistant\n' }}", "assistant\n<think>\n' }}") + "{# </think> #}"


class Held(MockEngine):
    """Says that it can be held to a form; what it answers is given."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        return super().capabilities | {Capability.CONSTRAINTS}


def ask(client: OpenAI, **settings: Any) -> Any:
    return client.chat.completions.create(
        **{"model": "tiny", "messages": QUESTION, "tools": [WEATHER, TIME], **settings}
    )


def streamed(client: OpenAI, **settings: Any) -> tuple[dict[str, str], list[dict[str, str]], str]:
    """Return texts by field, calls, and why the answer ended, put together as clients do."""
    texts: dict[str, str] = {}
    calls: list[dict[str, str]] = []
    reason = ""
    for chunk in ask(client, **settings, stream=True):
        choice = chunk.choices[0]
        reason = choice.finish_reason or reason
        for name, value in choice.delta.to_dict().items():
            if name in ("content", "reasoning", "reasoning_content"):
                texts[name] = texts.get(name, "") + str(value or "")
        for piece in choice.delta.tool_calls or ():
            if piece.index == len(calls):
                assert piece.type == "function"
                calls.append({"id": piece.id, "name": piece.function.name, "arguments": ""})
            else:
                assert piece.id is piece.function.name is None
            calls[piece.index]["arguments"] += piece.function.arguments or ""
    return texts, calls, reason


@pytest.fixture(scope="module")
def replies() -> dict[str, str]:
    return {"text": ""}


@pytest.fixture(scope="module")
def engine(replies: dict[str, str]) -> Held:
    return Held(lambda _request: replies["text"])


@pytest.fixture(scope="module")
def client(serve: Any, engine: Held) -> Iterator[OpenAI]:
    with serve(engine) as running, running.client() as client:
        yield client


def test_a_call_is_told_from_what_is_said(client: OpenAI, replies: dict[str, str]) -> None:
    replies["text"] = f"Let me look.\n{CALL}"
    choice = ask(client).choices[0]
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", "Let me look.")
    (call,) = choice.message.tool_calls
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Paris"}

    texts, (other,), reason = streamed(client)
    assert (texts["content"], reason) == ("Let me look.", "tool_calls")
    assert (other["name"], other["arguments"]) == ("get_weather", call.function.arguments)
    assert other["id"]
    assert other["id"] != call.id


def test_an_answer_without_a_call_stays_text(client: OpenAI, replies: dict[str, str]) -> None:
    replies["text"] = "It is sunny. <tool_ is no call"
    choice = ask(client).choices[0]
    assert (choice.finish_reason, choice.message.content) == ("stop", replies["text"])
    assert choice.message.tool_calls is None
    texts, calls, reason = streamed(client)
    assert (texts["content"], calls, reason) == (replies["text"], [], "stop")


def test_only_one_call_where_only_one_is_wanted(client: OpenAI, replies: dict[str, str]) -> None:
    replies["text"] = f"{CALL}\n{CALL}"
    assert len(ask(client).choices[0].message.tool_calls) == 2
    assert len(ask(client, parallel_tool_calls=False).choices[0].message.tool_calls) == 1


def test_functions_are_not_told_of_where_none_may_be_called(
    client: OpenAI, engine: Held, replies: dict[str, str], tokenizer: Any
) -> None:
    replies["text"] = CALL
    choice = ask(client, tool_choice="none").choices[0]
    assert (choice.message.content, choice.message.tool_calls) == (CALL, None)
    assert "get_weather" not in tokenizer.decode(list(engine.requests[-1].token_ids))
    ask(client)
    assert "get_weather" in tokenizer.decode(list(engine.requests[-1].token_ids))


@pytest.mark.parametrize("choice", ["required", "named"])
def test_a_call_that_must_be_made(
    client: OpenAI, engine: Held, replies: dict[str, str], choice: str
) -> None:
    named = {"type": "function", "function": {"name": "get_weather"}}
    wanted = {"tool_choice": "required" if choice == "required" else named}
    replies["text"] = LIST if choice == "required" else '{"city": "Paris"}'
    answer = ask(client, **wanted).choices[0]
    constraint = engine.requests[-1].sampling.constraint
    assert constraint is not None
    assert constraint.kind == "json_schema"
    texts, calls, reason = streamed(client, **wanted)
    assert answer.finish_reason == reason == "tool_calls"
    assert answer.message.content is None
    assert not texts.get("content")
    got = [(call.function.name, call.function.arguments) for call in answer.message.tool_calls]
    assert got == [(call["name"], call["arguments"]) for call in calls]
    if choice == "required":
        assert [name for name, _ in got] == ["get_weather", "get_time"]
        assert json.loads(got[0][1]) == {"city": 'a "b" ]}'}
        assert json.loads(got[1][1]) == {}
    else:
        assert got == [("get_weather", '{"city": "Paris"}')]


def test_results_go_back_to_the_model(
    client: OpenAI, engine: Held, replies: dict[str, str], tokenizer: Any
) -> None:
    replies["text"] = CALL
    message = ask(client).choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "22 degrees"}
    replies["text"] = "It has 22 degrees."
    answer = ask(client, messages=[*QUESTION, message, result])
    assert answer.choices[0].message.content == replies["text"]
    prompt = tokenizer.decode(list(engine.requests[-1].token_ids))
    assert "22 degrees" in prompt
    assert '"city": "Paris"' in prompt


@pytest.mark.parametrize(
    ("settings", "param"),
    [
        ({"tools": [], "tool_choice": None}, "tools"),
        ({"tools": None, "tool_choice": "auto"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "nobody"}}}, "tool_choice"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools"),
        ({"tools": [{"type": "function"}]}, "tools"),
        (
            {"tool_choice": "required", "response_format": {"type": "json_object"}},
            "response_format",
        ),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
    ],
)
def test_what_contradicts_itself_is_refused(
    client: OpenAI, settings: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        ask(client, **settings)
    assert error.value.param == param


def test_an_engine_that_cant_be_held_to_a_form_says_so(serve: Any) -> None:
    with serve(MockEngine("{}")) as running, running.client() as client:
        with pytest.raises(openai.InternalServerError) as error:
            ask(client, tool_choice="required")
        assert error.value.status_code == 501
        assert "ft-serve[constraints]" in str(error.value)


@pytest.mark.parametrize("template", [THINKING, OPENED], ids=["by itself", "in the prompt"])
def test_reasoning_is_told_from_the_answer(serve: Any, template: str) -> None:
    opening = "" if template is OPENED else "<think>\n"
    text = f"{opening}First < second,\nso </thin is none.\n</think>\n\nIt is 4.\n{CALL}"
    with serve(MockEngine(text), chat_template=template) as running, running.client() as client:
        choice = ask(client).choices[0]
        message = choice.message.to_dict()
        assert message["reasoning"] == message["reasoning_content"]
        assert message["reasoning"] == "First < second,\nso </thin is none."
        assert message["content"] == "It is 4."
        assert choice.finish_reason == "tool_calls"
        texts, calls, _ = streamed(client)
        assert texts["reasoning"] == texts["reasoning_content"] == message["reasoning"]
        assert texts["content"] == "It is 4."
        assert [call["name"] for call in calls] == ["get_weather"]


@pytest.mark.parametrize("opened", [True, False])
@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [
        ("<think>a b</think>c", "a b", "c"),
        ("  <think>\n a\n\nb \n</think>\n\n c\n", "a\n\nb", "c\n"),
        ("<think></think>c", "", "c"),
        ("<think>never ends </thin", "never ends </thin", ""),
        ("no reasoning <think>", "", "no reasoning <think>"),
        ("<thought>", "", "<thought>"),
        ("<th", "", "<th"),
        ("", "", ""),
    ],
)
def test_reasoning_however_the_answer_is_cut(
    text: str, reasoning: str, answer: str, opened: bool
) -> None:
    if opened and not text.lstrip().startswith("<think>"):
        return
    given = text.lstrip().removeprefix("<think>") if opened else text
    for size in range(1, len(given) + 2):
        reader = ReasoningReader(ReasoningForm("<think>", "</think>"), opened=opened)
        pieces = [reader.feed(given[at : at + size]) for at in range(0, len(given), size)]
        pieces.append(reader.close())
        assert "".join(piece[0] for piece in pieces) == reasoning
        assert "".join(piece[1] for piece in pieces) == answer


def test_a_list_of_calls_however_it_is_cut() -> None:
    want = {0: ("get_weather", '{"city": "a \\"b\\" ]}"}'), 1: ("get_time", "{}")}
    for size in range(1, len(LIST) + 1):
        reader = ListOfCalls()
        found: dict[int, tuple[str, str]] = {}
        for at in range(0, len(LIST), size):
            for piece in reader.feed(LIST[at : at + size]):
                name, arguments = found.get(piece.index, (piece.name or "", ""))
                found[piece.index] = (name, arguments + piece.arguments)
        assert found == want


def test_references_within_a_functions_schema_hold_in_the_list_of_all() -> None:
    from jsonschema import Draft202012Validator

    tree = {
        "type": "object",
        "properties": {"node": {"$ref": "#/$defs/node"}},
        "required": ["node"],
        "$defs": {
            "node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}},
                     "additionalProperties": False},
        },
    }  # fmt: skip
    tools = [
        FunctionTool.model_validate({"function": {"name": name, "parameters": schema}})
        for name, schema in (("grow", tree), ("cut", {"type": "object"}))
    ]
    validator = Draft202012Validator(json.loads(any_function(tools, several=True).text))
    good = [{"name": "grow", "arguments": {"node": {"next": {}}}}, {"name": "cut", "arguments": {}}]
    assert validator.is_valid(good)
    assert not validator.is_valid([{"name": "grow", "arguments": {"node": {"other": 1}}}])
    assert not validator.is_valid([{"name": "fell", "arguments": {}}])
    assert not validator.is_valid([])


def test_the_engine_sees_the_request_of_the_mock(engine: Held) -> None:
    assert all(isinstance(request, GenerationRequest) for request in engine.requests)
