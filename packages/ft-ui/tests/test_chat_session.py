"""Asking a model from a page: streams, stopping, two voices, rows that are kept."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ft_core.agents import AGENTS, ParsedAnswer, parse
from ft_core.engine import GenerationEvent, GenerationRequest, Sampling
from ft_core.errors import ModelError, UsageError
from ft_core.examples import Example, Message
from ft_core.templates import TEMPLATES, choose_template
from ft_core.testing import tiny_tokenizer
from ft_core.tokenizer import Tokenizer
from ft_ui.chat.answering import BASE, EngineAnswerer, Piece, together, until_stopped
from ft_ui.chat.collected import RowFiles
from ft_ui.chat.messages import Conversation
from ft_ui.chat.saved import conversation_from_json, conversation_to_json
from ft_ui.chat.session import Speed, Stops, answered, answered_by_two, joined
from ft_ui.chat.shown import shown_messages


@dataclass
class Scripted:
    """An answerer that says each voice's words, and notes what it was asked."""

    words: dict[str, list[str]]
    asked: list[tuple[list[str], str]] = field(default_factory=list)
    hold: asyncio.Event | None = None
    closed: int = 0
    fails: bool = False

    @property
    def voices(self) -> Sequence[str]:
        return list(self.words)

    @property
    def chats(self) -> bool:
        return True

    takes_tools = True
    media: frozenset[Any] = frozenset()

    def read(self, answer: str) -> ParsedAnswer:
        return parse(answer, AGENTS.get("hermes"))

    async def answer(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        voice: str,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> AsyncIterator[Piece]:
        self.asked.append(([m.text for m in messages], voice))
        try:
            for number, word in enumerate(self.words[voice], 1):
                yield Piece(word, None, number)
                if self.hold is not None:
                    await self.hold.wait()
                if self.fails:
                    raise ModelError("the model is gone")
            yield Piece("", "stop", len(self.words[voice]))
        finally:
            self.closed += 1

    def complete(self, text: str, sampling: Sampling, voice: str) -> AsyncIterator[Piece]:
        return self.answer([Message("user", text)], sampling, voice)


async def test_an_answer_streams_into_the_conversation() -> None:
    answerer, speed = Scripted({BASE: ["It ", "is ", "Paris."]}), Speed()
    asked = Conversation(system="Be brief.").ask("Capital of France?")
    steps = [c async for c in answered(asked, answerer, Sampling(), BASE, asyncio.Event(), speed)]
    assert [step.turns[-1].answer.text for step in steps[:3]] == ["It ", "It is ", "It is Paris."]
    assert steps[-1].turns[-1].answer.state == "done"
    assert answerer.asked == [(["Be brief.", "Capital of France?"], BASE)]
    assert speed.tokens == 3


WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "%s"}}\n</tool_call>'


async def last(conversation: Conversation, answerer: Scripted) -> Conversation:
    steps = answered(conversation, answerer, Sampling(), BASE, asyncio.Event(), Speed())
    return [step async for step in steps][-1]


async def test_the_person_gives_the_results_of_calls() -> None:
    answerer = Scripted({BASE: ["I look. ", CALL % "Paris"]})
    asked = Conversation().with_tools([WEATHER]).ask("Rain in Paris?")
    called = await last(asked, answerer)
    assert [(call.name, call.arguments) for call in called.awaited] == [
        ("weather", {"city": "Paris"})
    ]
    answerer.words[BASE] = ["It rains."]
    done = await last(called.ask("rain"), answerer)
    assert answerer.asked[-1][0] == ["Rain in Paris?", "I look.", "rain"]
    row = done.training_row()
    assert [message.role for message in row.messages] == ["user", "assistant", "tool", "assistant"]
    assert row.messages[1].tool_calls[0].name == "weather"
    assert row.tools == (WEATHER,)
    assert Example.from_json(row.to_json()) == row
    assert conversation_from_json(json.loads(json.dumps(conversation_to_json(done)))) == done
    shown, turns = shown_messages(done)
    assert [message["role"] for message in shown] == [
        "user",
        "assistant",
        "assistant",
        "user",
        "assistant",
    ]
    assert shown[2]["metadata"]["title"] == "Calls weather" and "Paris" in shown[2]["content"]
    assert shown[3]["content"] == "*Result:* rain"
    assert turns == [0, 0, 0, 1, 1]


async def test_results_of_several_calls_are_a_list() -> None:
    answerer = Scripted({BASE: [CALL % "Paris", "\n", CALL % "Rome"]})
    called = await last(Conversation().with_tools([WEATHER]).ask("Where does it rain?"), answerer)
    assert len(called.awaited) == 2
    for wrong in ("rain", '["rain"]', '{"a": 1}'):
        with pytest.raises(
            UsageError, match="weather, weather; write their results as a JSON list of 2"
        ):
            called.ask(wrong)
    results = called.ask('["rain", {"sun": 1}]').prompt()[-2:]
    assert [(message.role, message.text) for message in results] == [
        ("tool", "rain"),
        ("tool", '{"sun": 1}'),
    ]
    assert called.clear().tools == (WEATHER,)


async def test_without_tools_nothing_is_called() -> None:
    answerer = Scripted({BASE: [CALL % "Paris"]})
    said = await last(Conversation().ask("Write a call."), answerer)
    assert said.awaited == () and said.turns[0].answer.text == CALL % "Paris"


async def test_a_stopped_answer_keeps_what_there_is_and_frees_the_model() -> None:
    answerer, stops = Scripted({BASE: ["It ", "is"]}, hold=asyncio.Event()), Stops()
    with stops.watching("page") as stopped:
        stream = answered(Conversation().ask("x"), answerer, Sampling(), BASE, stopped, Speed())
        first = await anext(stream)
        stops.stop("another page")
        assert not stopped.is_set()
        stops.stop("page")
        last = await anext(stream)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
    assert (first.turns[-1].answer.text, last.turns[-1].answer.state) == ("It ", "stopped")
    assert answerer.closed == 1
    assert stops.running == {}


async def test_a_new_question_of_a_page_stops_its_answer_under_way() -> None:
    stops = Stops()
    with stops.watching("page") as first, stops.watching("page") as second:
        assert first.is_set() and not second.is_set()


async def test_two_voices_answer_at_the_same_time() -> None:
    answerer = Scripted({"tuned": ["I am ", "Finch."], BASE: ["No ", "name."]})
    asked = Conversation().ask("Who are you?")
    steps = [
        sides
        async for sides in answered_by_two(
            asked, answerer, Sampling(), ("tuned", BASE), asyncio.Event()
        )
    ]
    both = joined(*steps[-1])
    assert [a.text for a in both.turns[-1].answers] == ["I am Finch.", "No name."]
    assert [prompt for prompt, _ in answerer.asked] == [["Who are you?"]] * 2
    voted = both.show(1).vote(0, chosen=1, rejected=0)
    row = voted.preference_rows()[0]
    assert (row.answer, row.rejected[0].text) == ("No name.", "I am Finch.")


async def test_stopping_ends_both_answers() -> None:
    answerer = Scripted({"a": ["x", "y"], "b": ["z", "w"]}, hold=asyncio.Event())
    stopped = asyncio.Event()
    stream = answered_by_two(Conversation().ask("q"), answerer, Sampling(), ("a", "b"), stopped)
    await anext(stream)
    await anext(stream)
    stopped.set()
    left, right = [sides async for sides in stream][-1]
    assert (left.turns[-1].answer.state, right.turns[-1].answer.state) == ("stopped", "stopped")
    assert answerer.closed == 2


async def test_a_failure_of_one_source_is_raised_and_the_others_are_closed() -> None:
    good = Scripted({BASE: ["a"]}, hold=asyncio.Event())
    bad = Scripted({BASE: ["a"]}, fails=True)
    sources = [x.answer([Message("user", "q")], Sampling(), BASE) for x in (good, bad)]
    with pytest.raises(ModelError, match="gone"):
        _ = [item async for item in together(sources)]
    assert (good.closed, bad.closed) == (1, 1)


async def test_pieces_end_by_themselves_when_nobody_stops_them() -> None:
    source = Scripted({BASE: ["a", "b"]}).answer([Message("user", "q")], Sampling(), BASE)
    assert [p.text async for p in until_stopped(source, asyncio.Event())] == ["a", "b", ""]


class Recording:
    """An engine that says one word and keeps its requests."""

    adapters = ("default-lora", "other")
    ready = True
    capabilities: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self.requests: list[GenerationRequest] = []

    async def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationEvent]:
        self.requests.append(request)
        yield GenerationEvent("word", finish_reason="stop", generated_tokens=1)


async def test_an_engine_is_asked_in_the_models_chat_format(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_directory(tiny_tokenizer(tmp_path / "tiny"))
    chosen = choose_template("chatml", tokenizer, registered=None, prefers_record=False)
    assert "chatml" in TEMPLATES
    engine = Recording()
    answerer = EngineAnswerer(engine, chosen.template, "default-lora")  # type: ignore[arg-type]
    assert answerer.voices == ("default-lora", "other", BASE)
    messages = [Message("user", "hello <|im_end|>")]
    _ = [p async for p in answerer.answer(messages, Sampling(), BASE)]
    _ = [p async for p in answerer.answer(messages, Sampling(), "other")]
    _ = [p async for p in answerer.complete("The sea", Sampling(), "other")]
    first, second, third = engine.requests
    assert (first.adapter, second.adapter) == (None, "other")
    assert list(first.token_ids) == chosen.template.encode_prompt(messages)
    ends = [i for i in first.token_ids if i == tokenizer.token_to_id("<|im_end|>")]
    assert len(ends) == 1, "what a person writes is never a special token"
    assert list(third.token_ids) == tokenizer.encode("The sea")


def test_rows_are_kept_once(tmp_path: Path) -> None:
    files = RowFiles(tmp_path / "rows")
    row = Conversation().ask("a").append("b").finish().training_row()
    files.add(files.conversations, [row])
    files.add(files.conversations, [row])
    lines = files.conversations.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["messages"][-1]["content"] for line in lines] == ["b"]


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    files = RowFiles(tmp_path / "file")
    row = Conversation().ask("a").append("b").finish().training_row()
    with pytest.raises(UsageError, match=r"--rows_dir .*file"):
        files.add(files.preferences, [row])
