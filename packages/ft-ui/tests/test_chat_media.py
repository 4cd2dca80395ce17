"""What people attach to messages: shown to the model, kept with conversations and rows."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from ft_core.engine import Capability, GenerationEvent, GenerationRequest, Sampling
from ft_core.errors import DataError, UsageError
from ft_core.examples import Example, Message
from ft_core.media import MediaProcessor, MediaTemplate, encode_question
from ft_core.media.testing import picture, tiny_multimodal, tone
from ft_core.templates import JinjaTemplate
from ft_core.tokenizer import Tokenizer
from ft_ui.chat.answering import BASE, EngineAnswerer
from ft_ui.chat.collected import RowFiles
from ft_ui.chat.export import export_rows
from ft_ui.chat.media import Attached, attached
from ft_ui.chat.messages import Conversation
from ft_ui.chat.saved import conversation_from_json, load_conversation, save_conversation
from ft_ui.chat.shown import shown_messages


@pytest.fixture
def red(tmp_path: Path) -> Attached:
    return Attached("image", str(picture(tmp_path / "red.png")))


@pytest.fixture
def asked(red: Attached) -> Conversation:
    """A question about a picture, answered twice, and another one about none."""
    talk = Conversation().ask("What is it?", (red,)).append("Red.").finish()
    talk = talk.retry().append("Blue.").finish().show(0).vote(0, chosen=0, rejected=1)
    return talk.ask("Sure?").append("Yes.").finish()


def test_a_file_is_what_its_name_says_and_must_be_taken(red: Attached) -> None:
    assert attached([red.path], {"image"}) == (red,)
    (kept,) = attached(["A.FLAC"], {"audio"})  # which Python alone doesn't know everywhere
    assert kept.kind == "audio"
    assert attached(["a.wav", "b.mp4"], {"audio", "video"}) == (
        Attached("audio", "a.wav"),
        Attached("video", "b.mp4"),
    )
    with pytest.raises(UsageError, match=r"a\.wav: the model takes images"):
        attached(["a.wav"], {"image"})
    with pytest.raises(UsageError, match="takes texts only"):
        attached(["a.png"], frozenset())
    with pytest.raises(UsageError, match=r"notes\.txt"):
        attached(["notes.txt"], {"image", "audio"})


def test_the_model_gets_what_is_attached_where_it_was_sent(
    asked: Conversation, red: Attached
) -> None:
    first, *_ = asked.prompt()
    assert first.content == (
        {"type": "image", "image": red.path},
        {"type": "text", "text": "What is it?"},
    )
    assert asked.edit(0, "Which colour?").prompt()[0].content[0] == first.content[0]
    assert asked.retry().turns[0].media == (red,)


def test_conversations_keep_their_files(asked: Conversation, tmp_path: Path) -> None:
    file = tmp_path / "talk.json"
    save_conversation(asked, file)
    assert load_conversation(file) == asked
    data = json.loads(file.read_text(encoding="utf-8"))
    data["turns"][0]["media"][0]["kind"] = "smell"
    with pytest.raises(DataError, match="smell"):
        conversation_from_json(data)


def test_rows_take_their_files_along(asked: Conversation, red: Attached, tmp_path: Path) -> None:
    files = RowFiles(tmp_path / "rows")
    files.add(files.conversations, [asked.training_row()])
    files.add(files.preferences, asked.preference_rows())
    for file in (files.conversations, files.preferences):
        row = json.loads(file.read_text(encoding="utf-8"))
        (image,) = row["images"]
        assert (file.parent / image).read_bytes() == Path(red.path).read_bytes()
        assert row["messages"][0]["content"][0] == {"type": "image"}
    files.add(files.conversations, [asked.training_row()])  # the same row, the same file
    assert len(files.conversations.read_text(encoding="utf-8").splitlines()) == 1
    assert len(list((tmp_path / "rows" / "media").iterdir())) == 1


def test_saved_rows_are_read_as_they_were_asked(
    asked: Conversation, red: Attached, tmp_path: Path
) -> None:
    tiny_multimodal(tmp_path / "model", "qwen2_vl")
    tokenizer = Tokenizer.from_directory(tmp_path / "model")
    template = MediaTemplate(JinjaTemplate(tokenizer), MediaProcessor(tmp_path / "model"))
    files = RowFiles(tmp_path / "rows")
    files.add(files.conversations, [asked.training_row()])
    row = Example.from_json(json.loads(files.conversations.read_text(encoding="utf-8")))
    row = replace(row, images=tuple(str(files.directory / path) for path in row.images))
    (tokens,) = template.encode([row])[0]
    question = encode_question(template, Example(messages=asked.prompt()))
    assert list(tokens.input_ids[: len(question)]) == list(question.input_ids)
    assert len(question.media) == 1


def test_a_file_that_is_gone_is_named(asked: Conversation, red: Attached, tmp_path: Path) -> None:
    Path(red.path).unlink()
    files = RowFiles(tmp_path / "rows")
    with pytest.raises(DataError, match=r"red\.png: can't be read any more"):
        files.add(files.conversations, [asked.training_row()])


def test_exported_rows_take_their_files_along(
    asked: Conversation, red: Attached, tmp_path: Path
) -> None:
    save_conversation(asked, tmp_path / "talk.json")
    other = Attached("image", str(picture(tmp_path / "gone.png")))
    save_conversation(
        Conversation().ask("And this?", (other,)).append("No.").finish(), tmp_path / "lost.json"
    )
    Path(other.path).unlink()
    output = tmp_path / "out" / "rows.jsonl"
    done = export_rows([tmp_path / "talk.json", tmp_path / "lost.json"], output)
    assert done.rows == 1 and "gone.png" in done.skipped[0][1]
    (image,) = json.loads(output.read_text(encoding="utf-8"))["images"]
    assert (output.parent / image).read_bytes() == Path(red.path).read_bytes()
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match="can't be written"):
        export_rows([tmp_path / "talk.json"], tmp_path / "file" / "rows.jsonl")


def test_results_of_calls_take_no_files(red: Attached) -> None:
    from ft_core.agents import ParsedAnswer
    from ft_core.examples import ToolCall

    talk = Conversation(tools=({"type": "function", "function": {"name": "look"}},))
    talk = talk.ask("Look.").append("calls").finish()
    talk = talk.called(ParsedAnswer("", (ToolCall("look", {}),)))
    with pytest.raises(UsageError, match="attach files to the next one"):
        talk.ask("42", (red,))


def test_what_is_attached_is_shown_before_the_question(asked: Conversation, red: Attached) -> None:
    messages, turns = shown_messages(asked)
    assert messages[0] == {"role": "user", "content": {"path": red.path}}
    assert messages[1]["content"] == "What is it?"
    assert turns == [0, 0, 0, 1, 1]


class Noting:
    """An engine that notes what it is asked."""

    adapters = ()
    capabilities = frozenset({Capability.MEDIA})

    def __init__(self, seen: list[GenerationRequest]) -> None:
        self._seen = seen

    async def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationEvent]:
        self._seen.append(request)
        yield GenerationEvent("Red.", finish_reason="stop")


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_audio"])
def test_an_engine_is_asked_about_files(family: str, tmp_path: Path) -> None:
    tiny_multimodal(tmp_path / "model", family)
    tokenizer = Tokenizer.from_directory(tmp_path / "model")
    template = MediaTemplate(JinjaTemplate(tokenizer), MediaProcessor(tmp_path / "model"))
    sound = Attached("audio", str(tone(tmp_path / "a.wav")))
    image = Attached("image", str(picture(tmp_path / "a.png")))
    medium = sound if family == "qwen2_audio" else image
    seen: list[GenerationRequest] = []
    answerer = EngineAnswerer(Noting(seen), template)  # type: ignore[arg-type]
    assert answerer.media == frozenset({medium.kind})
    talk = Conversation().ask("What is it?", attached([medium.path], answerer.media))

    async def ask() -> None:
        async for _ in answerer.answer(talk.prompt(), Sampling(max_new_tokens=2), BASE):
            pass

    asyncio.run(ask())
    example = Example(
        messages=(Message("user", f"<{medium.kind}>What is it?"),),
        **{f"{medium.kind}s": (medium.path,)},  # type: ignore[arg-type]
    )
    (request,) = seen
    assert list(request.token_ids) == list(encode_question(template, example).input_ids)
    assert [item.source for item in request.media] == [medium.path]
