"""Modelfiles: their template, run by an evaluator of Go's, makes the prompts that the chat format makes."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ft_core import ModelError
from ft_core.agents import AGENTS
from ft_core.arguments import GenerationArguments
from ft_core.examples import Message, ToolCall
from ft_core.templates import TEMPLATES, FieldTemplate, JinjaTemplate
from ft_core.testing import tiny_tokenizer
from ft_core.tokenizer import Tokenizer
from ft_quant.export import ExportJob
from ft_quant.ollama.functions import find_tool_pieces
from ft_quant.ollama.pieces import find_pieces
from ft_quant.ollama.write import stops, to_go, write_modelfile


def _evaluator() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "go_template", Path(__file__).with_name("go_template.py")
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GO = _evaluator()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.from_directory(tiny_tokenizer(tmp_path_factory.mktemp("tokenizer")))


def talks() -> list[list[Message]]:
    """Conversations of one to three rounds, with and without a system message, with odd texts."""
    texts = ('hi {{ .System }} """', "two\n\nlines ", "你好")
    found = []
    for system in ([], [Message("system", "Be {{ brief }}.")]):
        for rounds in (1, 2, 3):
            talk = list(system)
            for number in range(rounds):
                talk.append(Message("user", texts[number]))
                if number + 1 < rounds:
                    talk.append(Message("assistant", f"answer {number}"))
            found.append(talk)
    return found


def as_ollama_asks(talk: list[Message]) -> dict[str, Any]:
    messages = [{"Role": item.role, "Content": item.content} for item in talk]
    system = "\n\n".join(str(item.content) for item in talk if item.role == "system")
    return {"Messages": messages, "System": system}


@pytest.mark.parametrize("name", ["chatml", "llama3", "gemma", "smollm2", "phi3", "default"])
def test_the_template_makes_the_same_prompts(tokenizer: Tokenizer, name: str) -> None:
    template = FieldTemplate(name, TEMPLATES.get(name), tokenizer)
    text = to_go(find_pieces(template))
    for talk in talks():
        if talk[0].role == "system" and not template.record.takes_system:
            continue
        expected = "".join(segment.text for segment in template.render_prompt(talk))
        assert GO.render(text, as_ollama_asks(talk)) == expected


def test_jinja_templates_with_a_default_system_message(tmp_path: Path) -> None:
    jinja = (
        "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}"
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    template = JinjaTemplate(
        Tokenizer.from_directory(tiny_tokenizer(tmp_path, chat_template=jinja))
    )
    text = to_go(find_pieces(template))
    for talk in talks():
        expected = "".join(segment.text for segment in template.render_prompt(talk))
        assert GO.render(text, as_ollama_asks(talk)) == expected
    assert list(stops(template)) == ["<|im_end|>"]


def test_what_the_engine_puts_first_is_left_out(tokenizer: Tokenizer) -> None:
    template = FieldTemplate("chatml", TEMPLATES.get("chatml"), tokenizer)
    text = to_go(find_pieces(template), leave_out="<|im_start|>")
    talk = [Message("system", "s"), Message("user", "u")]
    expected = "".join(segment.text for segment in template.render_prompt(talk))
    assert "<|im_start|>" + GO.render(text, as_ollama_asks(talk)) == expected


WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather {{ of }} a place.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    },
}
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object"}}}


def talks_with_calls() -> list[list[Message]]:
    """Conversations with one call, with two, with words before them, and with an answer to their results."""
    ask = Message("user", "What now?")
    one = (ToolCall("weather", {"place": 'Oslo "north"'}, id="1"),)
    two = (*one, ToolCall("clock", {}, id="2"))
    rain, noon = Message("tool", "rain", name="weather"), Message("tool", "12:00", name="clock")
    system = Message("system", "Be brief.")
    return [
        [ask],
        [system, ask],
        [ask, Message("assistant", "", one), rain],
        [system, ask, Message("assistant", "A moment.", one), rain],
        [ask, Message("assistant", "", two), rain, noon],
        [ask, Message("assistant", "", two), rain, noon, Message("assistant", "Rain."), ask],
    ]


def with_tools(talk: list[Message], tools: list[dict[str, Any]]) -> dict[str, Any]:
    asked = as_ollama_asks(talk)
    for message, item in zip(asked["Messages"], talk, strict=True):
        functions = [{"Name": call.name, "Arguments": call.arguments} for call in item.tool_calls]
        message["ToolCalls"] = [{"Function": function} for function in functions]
    return {**asked, "Tools": tools}


@pytest.mark.parametrize("agent", ["hermes", "mistral"])
@pytest.mark.parametrize("name", ["chatml", "qwen", "llama3"])
def test_functions_calls_and_results_are_written_as_the_format_writes_them(
    tokenizer: Tokenizer, name: str, agent: str
) -> None:
    template = FieldTemplate(name, TEMPLATES.get(name), tokenizer, agent=AGENTS.get(agent))
    pieces = find_pieces(template)
    tools = find_tool_pieces(template, pieces)
    assert tools is not None
    text = to_go(pieces, tools)
    for functions in ([WEATHER], [WEATHER, CLOCK]):
        for talk in talks_with_calls():
            expected = "".join(s.text for s in template.render_prompt(talk, functions))
            assert GO.render(text, with_tools(talk, functions)) == expected
    for talk in talks():  # without functions all is as before
        expected = "".join(segment.text for segment in template.render_prompt(talk))
        assert GO.render(text, with_tools(talk, [])) == expected


@pytest.mark.parametrize("agent", ["react_en", "glm4", None])
def test_formats_whose_functions_go_cannot_write_have_none(
    tokenizer: Tokenizer, agent: str | None
) -> None:
    chosen = None if agent is None else AGENTS.get(agent)
    template = FieldTemplate("chatml", TEMPLATES.get("chatml"), tokenizer, agent=chosen)
    assert find_tool_pieces(template, find_pieces(template)) is None


def test_formats_that_count_rounds_are_refused(tokenizer: Tokenizer) -> None:
    template = FieldTemplate("chatglm2", TEMPLATES.get("chatglm2"), tokenizer)
    with pytest.raises(ModelError, match="chatglm2 can't be written as a Modelfile's template"):
        find_pieces(template)


def test_the_file(job: Callable[..., ExportJob], base: Path, adapter: Path, tmp_path: Path) -> None:
    plain = job(base, adapter, to_ollama=True, ollama_output_dir=str(tmp_path / "made"))
    sampling = GenerationArguments(temperature=0.5, top_k=7, top_p=0.9, repetition_penalty=1.1)
    facts = write_modelfile(replace(plain, sampling=sampling), tmp_path)
    text = (tmp_path / "Modelfile").read_text(encoding="utf-8")
    assert text.startswith(f"FROM {adapter.with_name('checkpoint-3-merged')}\n")
    template = re.search(r'TEMPLATE """(.*?)"""', text, re.DOTALL)
    assert template is not None
    talk = [Message("user", "hello")]
    expected = "".join(
        segment.text for segment in plain.prepared.chosen.template.render_prompt(talk)
    )
    assert GO.render(template[1], as_ollama_asks(talk)) == expected
    assert re.findall("PARAMETER (.*)", text) == [
        'stop "<|im_end|>"',
        "num_ctx 256",
        "temperature 0.5",
        "top_k 7",
        "top_p 0.9",
        "repeat_penalty 1.1",
    ]
    assert facts["num_ctx"] == 256
    write_modelfile(replace(plain, max_length=99), tmp_path)
    assert "num_ctx 99" in (tmp_path / "Modelfile").read_text(encoding="utf-8")
