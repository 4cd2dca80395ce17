"""Records: what stands around answers, what ends them, and the same in Jinja."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from transformers import AutoTokenizer

from ft_core import DataError, Example, Message, ModelError, Source, UsageError
from ft_core.samples import Tokens
from ft_core.templates import TEMPLATES, FieldTemplate, Segment, TemplateRecord, register_template
from ft_core.templates.registry import read_records
from ft_core.testing import tiny_tokenizer
from ft_core.tokenizer import Tokenizer

MARKS = (
    *("<s>", "</s>", "[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"),
    *("<|observation|>", "<bos>", "<start_of_turn>", "<end_of_turn>"),
    *("<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"),
)

TODAY = datetime.date(2026, 3, 9)

TWO_ROUNDS = (
    Message("user", "q1"),
    Message("assistant", "r1"),
    Message("user", "q2"),
    Message("assistant", "r2"),
)
WITH_SYSTEM = (Message("system", "S"), *TWO_ROUNDS)


def _marks_of_all_records() -> set[str]:
    """Return what all records write that is a special token of their models."""
    records = [TEMPLATES.get(name).to_json() for name in TEMPLATES]
    written = [{k: v for k, v in record.items() if k != "default_system"} for record in records]
    text = json.dumps(written, ensure_ascii=False)
    return set(re.findall(r"<[^<>\s]+>|\[/?[A-Z_0-9]+\]", text)) - {"<<SYS>>", "<</SYS>>"}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    directory = tiny_tokenizer(tmp_path_factory.mktemp("fields") / "t", chat_template=None)
    library = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    library.add_special_tokens(sorted({*MARKS, *_marks_of_all_records()}))
    # Some records name tokens by their attribute, and one by an id beyond a small vocabulary.
    library.add_special_tokens(["<_user>", "<_bot>"])
    library.add_tokens([f"filler{number}" for number in range(8309 - library.get_vocab_size())])
    library.save(str(directory / "tokenizer.json"))
    config = directory / "tokenizer_config.json"
    named = {**json.loads(config.read_text()), "user_token": "<_user>", "bot_token": "<_bot>"}
    config.write_text(json.dumps(named))
    return Tokenizer.from_directory(directory)


@pytest.fixture(scope="module")
def transformers_own(tokenizer: Tokenizer) -> Any:
    return AutoTokenizer.from_pretrained(tokenizer.directory)


def bound(
    tokenizer: Tokenizer,
    name: str = "test",
    *,
    system: str | None = None,
    variables: dict[str, object] | None = None,
    **fields: object,
) -> FieldTemplate:
    record = TemplateRecord.from_json(fields) if fields else TEMPLATES.get(name)
    return FieldTemplate(name, record, tokenizer, system=system, variables=variables, today=TODAY)


def marked(segments: Sequence[Segment]) -> str:
    """Write a rendered row with ⟦brackets⟧ around what is trained."""
    text = "".join(f"⟦{s.text}⟧" if s.weight else s.text for s in segments if s.text)
    return text.replace("⟧⟦", "")


def trained(tokens: Tokens) -> list[int]:
    return [i for i, w in zip(tokens.input_ids, tokens.loss_weights, strict=True) if w]


GOLDEN = {
    ("qwen", ""): "<|im_start|>user\nq1<|im_end|>\n<|im_start|>assistant\n⟦r1<|im_end|>⟧\n"
    "<|im_start|>user\nq2<|im_end|>\n<|im_start|>assistant\n⟦r2<|im_end|>⟧",
    ("llama", ""): "<s>[INST] q1 [/INST]⟦ r1</s>⟧<s>[INST] q2 [/INST]⟦ r2</s>⟧",
    (
        "llama",
        "S",
    ): "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nq1 [/INST]⟦ r1</s>⟧<s>[INST] q2 [/INST]⟦ r2</s>⟧",
    ("default", "S"): "S\n\n### Human:\nq1\n\n### Assistant:\n⟦r1<|im_end|>⟧\n\n"
    "### Human:\nq2\n\n### Assistant:\n⟦r2<|im_end|>⟧",
    (
        "chatglm3",
        "",
    ): "[gMASK]<sop><|user|>\nq1<|assistant|>\n⟦r1<|user|>⟧\nq2<|assistant|>\n⟦r2<|user|>⟧",
    (
        "gemma",
        "",
    ): "<bos><start_of_turn>user\nq1<end_of_turn>\n<start_of_turn>model\n⟦r1<end_of_turn>⟧\n"
    "<start_of_turn>user\nq2<end_of_turn>\n<start_of_turn>model\n⟦r2<end_of_turn>⟧",
    ("phi3", "S"): "<|system|>\nS<|end|>\n<|user|>\nq1<|end|>\n<|assistant|>\n⟦r1<|end|>⟧\n"
    "<|user|>\nq2<|end|>\n<|assistant|>\n⟦r2<|end|>⟧",
}


@pytest.mark.parametrize(("name", "system"), GOLDEN)
def test_answers_are_trained_with_their_end(tokenizer: Tokenizer, name: str, system: str) -> None:
    (segments,) = bound(tokenizer, name, system=system).render(Example(TWO_ROUNDS))
    assert marked(segments) == GOLDEN[name, system]


def test_what_follows_an_ending_token_is_not_trained(tokenizer: Tokenizer) -> None:
    (segments,) = bound(tokenizer, "smollm2", system="").render(Example(TWO_ROUNDS[:2]))
    assert marked(segments).endswith("⟦r1<|im_end|>⟧\n")


def test_an_ending_text_that_is_no_token_ends_every_answer(tokenizer: Tokenizer) -> None:
    template = bound(
        tokenizer,
        prompt=["### Human: {{QUERY}}\n### Assistant:"],
        chat_sep=["\n"],
        suffix=["\n###"],
    )
    (segments,) = template.render(Example(TWO_ROUNDS))
    text = "### Human: q1\n### Assistant:⟦r1\n###⟧ Human: q2\n### Assistant:⟦r2\n###⟧"
    assert marked(segments) == text
    assert template.stop_strings == ("\n###",)
    assert template.stop_token_ids == {tokenizer.eos_token_id}


def test_a_tool_result_lets_the_answer_end_with_its_own_mark(tokenizer: Tokenizer) -> None:
    messages = (Message("user", "q"), Message("assistant", "call"), Message("tool", "18"))
    template = bound(tokenizer, "chatglm4")
    (segments,) = template.render(Example((*messages, Message("assistant", "r"))))
    assert marked(segments) == (
        "[gMASK]<sop><|user|>\nq<|assistant|>\n⟦call<|observation|>⟧\n18<|assistant|>\n⟦r<|user|>⟧"
    )
    ends = {tokenizer.token_to_id(t) for t in ("<|user|>", "<|observation|>", "<|endoftext|>")}
    assert template.stop_token_ids >= ends


@pytest.mark.parametrize("name", TEMPLATES.names())
@pytest.mark.parametrize("messages", [TWO_ROUNDS, WITH_SYSTEM, TWO_ROUNDS[:2]])
def test_prompts_are_what_stands_before_the_answers(
    tokenizer: Tokenizer, name: str, messages: tuple[Message, ...]
) -> None:
    template = bound(tokenizer, name)
    record = TEMPLATES.get(name)
    if not record.takes_system and messages[0].role == "system":
        messages = messages[1:]
    if record.chat_sep is None:
        messages = messages[: 3 if messages[0].role == "system" else 2]
    seen = 0
    for tokens in template.encode([Example(messages)])[0]:
        weights = tokens.loss_weights
        for start in range(1, len(tokens)):
            if weights[start] and not weights[start - 1]:
                prompts = [
                    template.encode_prompt(messages[:i])
                    for i, message in enumerate(messages)
                    if message.role == "assistant"
                ]
                assert list(tokens.input_ids[:start]) in prompts
                seen += 1
        text = tokenizer.decode(trained(tokens))
        assert trained(tokens)[-1] in template.stop_token_ids or text.endswith(
            template.stop_strings
        )
    assert seen == sum(message.role == "assistant" for message in messages)


@pytest.mark.parametrize("name", TEMPLATES.names())
def test_marks_in_the_rows_texts_stay_text(tokenizer: Tokenizer, name: str) -> None:
    special = {token.id: token.text for token in tokenizer.special_tokens}
    written = json.dumps(TEMPLATES.get(name).to_json(), ensure_ascii=False)
    # An answer's own marks around reasoning are no mere text.
    marks = " ".join(text for text in special.values() if text in written and "think" not in text)
    template = bound(tokenizer, name, system="")
    messages = TWO_ROUNDS if template.multi_turn else TWO_ROUNDS[:2]
    looking = tuple(Message(m.role, f"{m.text} {marks} {m.text}") for m in messages)
    for plain, odd in zip(
        template.encode([Example(messages)])[0], template.encode([Example(looking)])[0], strict=True
    ):
        expected = [token for token in plain.input_ids if token in special]
        assert [token for token in odd.input_ids if token in special] == expected
    asked = tokenizer.decode(template.encode_prompt(looking[:1]))
    assert f"q1 {marks} q1" in asked


def test_a_system_message_in_the_newest_question(tokenizer: Tokenizer) -> None:
    template = bound(tokenizer, "mistral-nemo")
    first, second = template.render(Example(WITH_SYSTEM))
    assert marked(first) == "<s>[INST] S\n\nq1[/INST]⟦r1</s>⟧"
    assert marked(second) == "<s>[INST] q1[/INST]r1</s>[INST] S\n\nq2[/INST]⟦r2</s>⟧"
    (only,) = template.render(Example(TWO_ROUNDS))
    assert marked(only) == "<s>[INST] q1[/INST]⟦r1</s>⟧[INST] q2[/INST]⟦r2</s>⟧"


def test_the_system_message_of_rows_without_one(tokenizer: Tokenizer) -> None:
    def start(system: str | None, messages: tuple[Message, ...]) -> str:
        return marked(bound(tokenizer, "qwen", system=system).render(Example(messages))[0])

    helpful = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    assert start(None, TWO_ROUNDS).startswith(helpful)
    assert start("", TWO_ROUNDS).startswith("<|im_start|>user")
    assert start("Run", TWO_ROUNDS).startswith("<|im_start|>system\nRun<")
    assert start("Run", WITH_SYSTEM).startswith("<|im_start|>system\nS<")
    none = (Message("system", ""), *TWO_ROUNDS)
    assert start("Run", none).startswith("<|im_start|>user")


def test_bos_only_where_the_tokenizer_would_put_it(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with_bos = tmp_path / "t"
    tokenizer.save(with_bos)
    config = with_bos / "tokenizer_config.json"
    config.write_text(config.read_text().replace("{", '{"add_bos_token": true, ', 1))
    adding = Tokenizer.from_directory(with_bos)
    question = TWO_ROUNDS[:1]
    assert bound(adding, "chatml").encode_prompt(question) == [
        adding.bos_token_id,
        *bound(tokenizer, "chatml").encode_prompt(question),
    ]
    assert bound(adding, "qwen").encode_prompt(question) == bound(tokenizer, "qwen").encode_prompt(
        question
    )


def test_the_numbers_of_rounds(tokenizer: Tokenizer) -> None:
    template = bound(
        tokenizer, prompt=["[{{ROUND0}}/{{ROUND1}}]{{QUERY}}:"], chat_sep=["\n"], suffix=["</s>"]
    )
    (segments,) = template.render(Example(TWO_ROUNDS))
    assert marked(segments) == "[0/1]q1:⟦r1</s>⟧\n[1/2]q2:⟦r2</s>⟧"


def test_elements_of_token_ids_and_names(tokenizer: Tokenizer) -> None:
    word = tokenizer.encode("user")[0]
    template = bound(
        tokenizer,
        prefix=[["bos_token_id"]],
        prompt=[[word], "{{QUERY}}", [word]],
        chat_sep=[],
        suffix=[["eos_token_id"]],
    )
    (tokens,) = template.encode([Example(TWO_ROUNDS)])[0]
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    expected = [bos]
    for query, answer in (("q1", "r1"), ("q2", "r2")):
        expected += [word, *tokenizer.encode(query), word, *tokenizer.encode(answer), eos]
    assert list(tokens.input_ids) == expected


def test_a_token_that_the_tokenizer_lacks_is_named(tokenizer: Tokenizer) -> None:
    with pytest.raises(ModelError, match=r"'test' needs a cls_token"):
        bound(tokenizer, prompt=["{{QUERY}}"], suffix=[["cls_token_id"]])
    with pytest.raises(ModelError, match="token id 99999"):
        bound(tokenizer, prompt=["{{QUERY}}"], suffix=[[99999]])


# Jinja

CONVERSATIONS = {
    "one": TWO_ROUNDS[:2],
    "two": TWO_ROUNDS,
    "system": WITH_SYSTEM,
    "empty system": (Message("system", ""), *TWO_ROUNDS),
    "odd text": (Message("user", 'it\'s \\n {{ x }} "你好"\n'), Message("assistant", " {% y %} ")),
    "tool": (*TWO_ROUNDS[:2], Message("tool", "18"), Message("assistant", "r")),
}


@pytest.mark.parametrize(
    ("name", "system"),
    [
        (name, system)
        for name in TEMPLATES.names()
        for system in (None, "Be 'brief'\nand \\exact.")
        if system is None or TEMPLATES.get(name).takes_system
    ],
)
def test_the_jinja_form_renders_the_same(
    tokenizer: Tokenizer, transformers_own: Any, name: str, system: str | None
) -> None:
    record = TEMPLATES.get(name)
    template = bound(tokenizer, name, system=system)
    theirs = partial(
        transformers_own.apply_chat_template, chat_template=template.to_jinja(), tokenize=False
    )
    for case, messages in CONVERSATIONS.items():
        if record.chat_sep is None and len(messages) > 2:
            continue
        if case == "system" and not record.takes_system:
            continue
        plain = [{"role": message.role, "content": message.text} for message in messages]
        full = "".join(segment.text for segment in template.render(Example(messages))[-1])
        assert theirs(plain) == full, case
        prompt = "".join(segment.text for segment in template.render_prompt(messages[:-1]))
        assert theirs(plain[:-1], add_generation_prompt=True) == prompt, case


def test_the_jinja_form_opens_an_answer_only_when_asked(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    tokenizer.save(tmp_path, chat_template=bound(tokenizer, "chatml").to_jinja())
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    question = [{"role": "user", "content": [{"type": "text", "text": "q"}]}]
    text = theirs.apply_chat_template(question, tokenize=False)
    assert text == "<|im_start|>user\nq<|im_end|>\n"


def test_the_jinja_form_refuses_what_the_record_refuses(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    tokenizer.save(tmp_path, chat_template=bound(tokenizer, "default-generation").to_jinja())
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for messages, reason in ((WITH_SYSTEM[:2], "system message"), (TWO_ROUNDS[:3], "one question")):
        plain = [{"role": message.role, "content": message.text} for message in messages]
        with pytest.raises(Exception, match=reason):
            theirs.apply_chat_template(plain, tokenize=False)


# Rows that don't fit

BAD = {
    "begins with a assistant": ((Message("assistant", "r"),), "role_order"),
    "after a user message a user": (
        (Message("user", "a"), Message("user", "b"), Message("assistant", "c")),
        "role_order",
    ),
    "no assistant answer": ((Message("user", "a"),), "missing_answer"),
    "parts of type image": (
        (Message("user", ({"type": "image"},)), Message("assistant", "c")),
        "media",
    ),
}


@pytest.mark.parametrize("reason", BAD)
def test_bad_rows_are_refused_at_their_place(tokenizer: Tokenizer, reason: str) -> None:
    messages, rule = BAD[reason]
    row = Example(messages, source=Source("rows.jsonl", 7))
    with pytest.raises(DataError, match=reason) as caught:
        bound(tokenizer, "chatml").render(row)
    assert caught.value.rule == rule
    assert str(caught.value).startswith("rows.jsonl:7")


def test_rows_a_record_has_no_form_for(tokenizer: Tokenizer) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    with pytest.raises(DataError, match="tools"):
        bound(tokenizer, "chatml").render(Example(TWO_ROUNDS, tools=(tool,)))
    with pytest.raises(DataError, match="images"):
        bound(tokenizer, "chatml").render(Example(TWO_ROUNDS, images=("a.png",)))
    with pytest.raises(DataError, match="no place for it"):
        bound(tokenizer, "default-generation").render(Example(WITH_SYSTEM[:3]))
    with pytest.raises(UsageError, match="--system"):
        bound(tokenizer, "default-generation", system="x")
    with pytest.raises(DataError, match="add the question"):
        bound(tokenizer, "chatml").encode_prompt(TWO_ROUNDS)
    with pytest.raises(DataError, match="add the question"):
        bound(tokenizer, "chatml").encode_prompt(WITH_SYSTEM[:1])


def test_a_question_at_the_end_is_left_out(tokenizer: Tokenizer) -> None:
    template = bound(tokenizer, "chatml")
    assert template.render(Example(TWO_ROUNDS[:3])) == template.render(Example(TWO_ROUNDS[:2]))


def test_an_empty_answer_trains_its_end_only(tokenizer: Tokenizer) -> None:
    messages = (Message("user", ""), Message("assistant", ""))
    (tokens,) = bound(tokenizer, "chatml").encode([Example(messages)])[0]
    assert trained(tokens) == [tokenizer.token_to_id("<|im_end|>")]


# Loss weights within an answer


def test_weights_within_an_answer_do_not_change_its_ids(tokenizer: Tokenizer) -> None:
    template = bound(tokenizer, "chatml")
    parts = [Segment("Thought: the fox\n", "generation", weight=1.0)]
    parts += [Segment("jumps over", "generation", weight=0.0)]
    parts += [Segment(" the lazy dog", "generation", weight=2.0)]
    whole = Segment("".join(part.text for part in parts), "generation", weight=1.0)
    one, several = template.encode_segments([[Segment("x"), whole], [Segment("x"), *parts]])
    assert list(one.input_ids) == list(several.input_ids)
    by_weight: dict[float, list[int]] = {}
    for token, weight in list(zip(several.input_ids, several.loss_weights, strict=True))[1:]:
        by_weight.setdefault(weight, []).append(token)
    assert {w: tokenizer.decode(ids) for w, ids in by_weight.items()} == {
        1.0: "Thought: the fox\n",
        0.0: "jumps over",
        2.0: " the lazy dog",
    }


# Registry


def test_records_share_fields() -> None:
    records = read_records(
        {
            "a": {"prompt": ["{{QUERY}}"], "suffix": ["x"], "default_system": "one"},
            "b": {"same_as": "a", "default_system": "two"},
        }
    )
    assert records["b"].prompt == ("{{QUERY}}",) and records["b"].default_system == "two"
    with pytest.raises(ValueError, match="'c': same_as names 'd'"):
        read_records({"c": {"same_as": "d"}})
    with pytest.raises(ValueError, match="'e': fields prompt are missing"):
        read_records({"e": {"suffix": []}})


def test_templates_of_a_user_are_found(tokenizer: Tokenizer) -> None:
    record = TemplateRecord(prompt=("Q: {{QUERY}} A:",), suffix=(("eos_token_id",),))
    register_template("a-template-of-mine", record, exist_ok=True)
    assert bound(tokenizer, "a-template-of-mine").record is record
    with pytest.raises(UsageError, match="registered already"):
        register_template("a-template-of-mine", record)


def test_fingerprints_follow_what_is_encoded(tokenizer: Tokenizer) -> None:
    prints = [
        bound(tokenizer, name, system=system).fingerprint
        for name, system in (("chatml", None), ("qwen", None), ("qwen", "x"))
    ]
    assert len(set(prints)) == 3
    assert bound(tokenizer, "qwen", system="x").fingerprint == prints[2]
