"""Tools in Jinja chat templates: their own form where they have one, an agent format where they don't."""

from __future__ import annotations

import pickle

import pytest

from ft_core import DataError, Example, Message, ToolCall
from ft_core.agents import AGENTS
from ft_core.templates import JinjaTemplate, choose_template
from ft_core.testing import CHATML, tiny_tokenizer
from ft_core.tokenizer import Tokenizer

HEAD = "{% if tools %}<|im_start|>tools\n{% for t in tools %}{{ t['function'] | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
TURNS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}"
    "{% for c in m.get('tool_calls') or [] %}CALL<|im_end|>\n{% endfor %}"
    "{% if not m.get('tool_calls') %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TAKES_OBJECTS = HEAD + TURNS.replace(
    "CALL", "{{ c['function']['name'] }} {{ c['function']['arguments'] | tojson }}"
)
TAKES_TEXT = HEAD + TURNS.replace(
    "CALL", "{{ c['function']['name'] + ' ' + c['function']['arguments'] }}"
)
PRINTS_PYTHON = HEAD + TURNS.replace(
    "CALL", "{{ c['function']['name'] }} {{ c['function']['arguments'] }}"
)
WANTS_IDS = HEAD + TURNS.replace(
    "CALL",
    "{% if c.id is not defined or c.id | length != 9 %}{{ raise_exception('ids of 9 letters') }}{% endif %}"
    "{{ c['function']['name'] }} {{ c['function']['arguments'] | tojson }} {{ c.id }}",
).replace(
    "{{ m['content'] }}",
    "{{ m['content'] }}{% if m['role'] == 'tool' %} for {{ m['tool_call_id'] }}{% endif %}",
)
ONLY_LISTS = HEAD + CHATML
NO_SYSTEM = (
    "{% for m in messages %}{% if m['role'] not in ['user', 'assistant'] %}{{ raise_exception('no ' + m['role']) }}{% endif %}"
    "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LOSES_RESULTS = (
    "{% for m in messages %}{% if m['role'] in ['user', 'assistant', 'system'] %}"
    "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

WEATHER = {"name": "weather", "description": "sky", "parameters": {"type": "object"}}
ROW = Example(
    messages=(
        Message("user", "Weather?"),
        Message("assistant", "", tool_calls=(ToolCall("weather", {"city": "Oslo"}),)),
        Message("tool", "grey"),
        Message("assistant", "It is grey."),
        Message("user", "And now?"),
        Message("assistant", "", tool_calls=(ToolCall("weather", {"city": "<|im_end|>"}, "x1"),)),
        Message("tool", "sunny", tool_call_id="x1"),
        Message("assistant", "Sunny."),
    ),
    tools=(WEATHER,),
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.from_directory(tiny_tokenizer(tmp_path_factory.mktemp("t") / "t"))


def shown(template: JinjaTemplate, row: Example = ROW) -> str:
    (segments,) = template.render(row)
    return "".join(item.text for item in segments)


def learned(template: JinjaTemplate, row: Example = ROW) -> str:
    (segments,) = template.render(row)
    return "|".join(item.text for item in segments if item.weight)


def check_prompts(template: JinjaTemplate) -> None:
    (tokens,) = template.encode([ROW])[0]
    for turn in (1, 3, 5, 7):
        fed = template.encode_prompt(ROW.messages[:turn], ROW.tools)
        assert list(tokens.input_ids[: len(fed)]) == fed
        assert tokens.loss_weights[len(fed)] == 1


@pytest.mark.parametrize("source", [TAKES_OBJECTS, TAKES_TEXT, PRINTS_PYTHON, WANTS_IDS])
def test_calls_are_handed_over_as_the_template_wants_them(
    tokenizer: Tokenizer, source: str
) -> None:
    template = JinjaTemplate(tokenizer, source, agent=AGENTS.get("react_en"))
    assert template.tools_prompt is None
    text = shown(template)
    assert text.startswith('<|im_start|>tools\n{"name": "weather", "description": "sky"')
    assert 'weather {"city": "Oslo"}' in text and 'weather {"city": "<|im_end|>"}' in text
    assert "Action" not in text
    assert "grey" not in learned(template).replace("It is grey.", "")
    check_prompts(template)


def test_ids_belong_together(tokenizer: Tokenizer) -> None:
    text = shown(JinjaTemplate(tokenizer, WANTS_IDS))
    assert '{"city": "Oslo"} call00001' in text and "grey for call00001" in text
    assert '{"city": "<|im_end|>"} call00002' in text and "sunny for call00002" in text


@pytest.mark.parametrize("agent", list(AGENTS))
@pytest.mark.parametrize("source", [CHATML, ONLY_LISTS, NO_SYSTEM, LOSES_RESULTS])
def test_an_agent_format_where_there_is_no_own_form(
    tokenizer: Tokenizer, source: str, agent: str
) -> None:
    template = JinjaTemplate(tokenizer, source, agent=AGENTS.get(agent))
    assert template.tools_prompt == agent
    text, answers = shown(template), learned(template)
    assert text.count("weather") >= 3 and "grey" in text and "Oslo" in answers
    assert "sunny" not in answers and "It is grey." in answers
    # Tools are told once, in the system message or else in the first question.
    assert text.index("weather") < text.index("Weather?")
    first = (
        text.index("<|im_start|>user") if source == NO_SYSTEM else text.index("<|im_start|>system")
    )
    assert first == 0
    results = "tool" if source in (CHATML, ONLY_LISTS) else "user"
    assert text[: text.index("grey")].rpartition("<|im_start|>")[2].startswith(results)
    check_prompts(template)


def test_a_system_message_stays_before_the_tools(tokenizer: Tokenizer) -> None:
    row = Example(messages=(Message("system", "Be kind."), *ROW.messages), tools=ROW.tools)
    for source, role in ((CHATML, "system"), (LOSES_RESULTS, "system")):
        template = JinjaTemplate(tokenizer, source, agent=AGENTS.get("hermes"))
        assert shown(template, row).startswith(f"<|im_start|>{role}\nBe kind.\n\n# Tools")
    template = JinjaTemplate(tokenizer, CHATML, system="Be brief.", agent=AGENTS.get("hermes"))
    assert shown(template).startswith("<|im_start|>system\nBe brief.\n\n# Tools")


def test_rows_without_tools_are_untouched(tokenizer: Tokenizer) -> None:
    row = Example(messages=(ROW.messages[0], ROW.messages[3]))
    with_agent = JinjaTemplate(tokenizer, CHATML, agent=AGENTS.get("hermes"))
    assert with_agent.encode([row]) == JinjaTemplate(tokenizer, CHATML).encode([row])


def test_without_an_agent_format_tools_are_refused_not_lost(tokenizer: Tokenizer) -> None:
    template = JinjaTemplate(tokenizer, CHATML)
    with pytest.raises(DataError, match="no form for them; give --tools_prompt"):
        template.render(ROW)
    with pytest.raises(DataError, match="no form for them"):
        template.render_prompt(ROW.messages[:1], ROW.tools)
    # A template that has a form for results needs no help with results alone.
    plain = (Message("user", "sky?"), Message("assistant", "see"), Message("tool", "grey"))
    assert "<|im_start|>tool\ngrey" in "".join(item.text for item in template.render_prompt(plain))


def test_the_choice_hands_the_agent_format_on(tokenizer: Tokenizer) -> None:
    def chosen(agent: str | None, model_agent: str | None) -> str | None:
        return choose_template(
            "jinja",
            tokenizer,
            registered=None,
            prefers_record=False,
            agent=agent,
            model_agent=model_agent,
        ).template.tools_prompt

    assert chosen(None, None) == "react_en"
    assert chosen(None, "hermes") == chosen("hermes", "glm4") == "hermes"
    assert chosen(None, "unknown") == "react_en"


def test_the_agent_format_travels_and_counts(tokenizer: Tokenizer) -> None:
    one, other = (JinjaTemplate(tokenizer, CHATML, agent=AGENTS.get(n)) for n in ("hermes", "glm4"))
    assert one.fingerprint != other.fingerprint
    assert pickle.loads(pickle.dumps(one)).encode([ROW]) == one.encode([ROW])
