"""Rows to samples: what is dropped and why, and that nothing is lost in between."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from ft_core.errors import Place, UsageError
from ft_core.examples import Example, Message
from ft_core.loss_scale import LossPolicy, load_loss_scale
from ft_core.recipe import Recipe
from ft_core.samples import Dropped, Sample, Tokens
from ft_core.templates import choose_template
from ft_core.testing import tiny_model
from ft_core.tokenizer import Tokenizer
from ft_train import PtRecipe, SftRecipe


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model"))


def template(name, directory):
    tokenizer = Tokenizer.from_directory(directory)
    return choose_template(name, tokenizer, registered=None, prefers_record=False).template


@pytest.fixture(scope="module")
def chatml(directory):
    return template("chatml", directory)


@pytest.fixture(scope="module")
def plain(directory):
    return template("default-generation", directory)


def talk(answer="I am a small model.", question="Who are you?", line=1):
    messages = (Message("user", question), Message("assistant", answer))
    return Example(messages, source=Place("rows.jsonl", line))


@pytest.mark.parametrize("recipe", [SftRecipe(), PtRecipe()])
def test_recipes_fulfil_the_protocol(recipe):
    assert isinstance(recipe, Recipe)


def test_the_answer_and_its_end_are_learned(chatml):
    (sample,) = SftRecipe().encode([talk()], chatml)
    (tokens,) = sample.sequences
    learned = [i for i, w in zip(tokens.input_ids, tokens.loss_weights, strict=True) if w]
    assert chatml.tokenizer.decode(learned) == "I am a small model.<|im_end|>"
    prompt = chatml.encode_prompt(talk().prompt)
    assert list(tokens.input_ids[: len(prompt)]) == prompt


def test_every_row_is_a_sample_or_dropped_with_its_reason(chatml):
    rows = [
        talk(line=1),
        talk(line=2, answer="word " * 300),
        Example((Message("user", "hi"),), source=Place("rows.jsonl", 3)),
        Example((Message("assistant", "hi", weight=0.0),), source=Place("rows.jsonl", 4)),
        talk(line=5),
    ]
    result = SftRecipe(max_length=100).encode(rows, chatml)
    assert [type(item) for item in result] == [Sample, Dropped, Dropped, Dropped, Sample]
    assert [item.row for item in result] == [0, 1, 2, 3, 4]
    reasons = [item.reason for item in result if isinstance(item, Dropped)]
    assert reasons[:2] == ["too_long", "missing_answer"]
    assert "rows.jsonl:2" in result[1].detail and "--max_length 100" in result[1].detail
    assert "rows.jsonl:3" in result[2].detail


def test_an_answer_without_weight_teaches_nothing(chatml):
    row = Example(
        (Message("user", "hi"), Message("assistant", "hello", weight=0.0)),
        source=Place("rows.jsonl", 4),
    )
    (dropped,) = SftRecipe().encode([row], chatml)
    assert dropped.reason == "nothing_to_learn" and "rows.jsonl:4" in dropped.detail


def test_truncation_keeps_the_end(chatml):
    row = talk(answer="word " * 300)
    (sample,) = SftRecipe(max_length=50, truncation_strategy="truncation_left").encode(
        [row], chatml
    )
    (whole,) = SftRecipe(max_length=-1).encode([row], chatml)
    assert list(sample.sequences[0].input_ids) == list(whole.sequences[0].input_ids[-50:])
    assert sample.sequences[0].trained == 49


def test_a_row_cut_on_the_right_stops_without_an_end(chatml):
    row = talk(answer="word " * 300)
    (sample,) = SftRecipe(max_length=50, truncation_strategy="right").encode([row], chatml)
    (whole,) = SftRecipe(max_length=-1).encode([row], chatml)
    (tokens,) = sample.sequences
    assert list(tokens.input_ids) == list(whole.sequences[0].input_ids[:50])
    assert tokens.input_ids[-1] not in chatml.stop_token_ids and tokens.loss_weights[-1] == 1
    prompt = chatml.encode_prompt(row.prompt)
    assert list(tokens.input_ids[: len(prompt)]) == prompt
    assert tokens.trained == 50 - len(prompt)


@pytest.mark.parametrize(
    ("strategy", "row", "role"),
    [
        ("right", talk(question="word " * 300), "assistant"),
        ("truncation_left", talk(answer="word " * 300), "user"),
    ],
)
def test_a_row_that_is_cut_to_nothing_learned_is_dropped(chatml, strategy, row, role):
    policy = LossPolicy(roles=frozenset({role}))
    (dropped,) = SftRecipe(50, strategy, policy).encode([row], chatml)
    assert dropped.reason == "cut_away"
    assert "rows.jsonl:1" in dropped.detail and "--max_length 50" in dropped.detail
    assert f"--truncation_strategy {strategy}" in dropped.detail


def test_a_lost_part_of_a_row_is_counted(directory):
    template = choose_template(
        "qwen3", Tokenizer.from_directory(directory), registered=None, prefers_record=False
    ).template
    row = Example(
        (
            *(Message("user", "one?"), Message("assistant", "<think>\nwhy\n</think>\n\nfirst")),
            *(
                Message("user", "word " * 300),
                Message("assistant", "<think>\nso\n</think>\n\nsecond"),
            ),
        )
    )
    kept, lost = SftRecipe(max_length=100).encode([row], template)
    assert isinstance(kept, Sample) and kept.row == lost.row == 0
    assert lost.reason == "too_long_in_part"


def test_conversations_are_not_split(chatml):
    with pytest.raises(UsageError, match="--truncation_strategy split cuts plain text"):
        SftRecipe(truncation_strategy="split")
    (dropped,) = PtRecipe(max_length=50).encode([talk(answer="word " * 300)], chatml)
    assert dropped.reason == "too_long" and "no conversations" in dropped.detail


@pytest.mark.parametrize("strategy", ["delete", "truncation_left", "right"])
def test_texts_can_be_cut_or_dropped_too(plain, strategy):
    rows = [Example(text="hello world"), Example(text="The quick brown fox. " * 50)]
    first, second = PtRecipe(32, strategy).encode(rows, plain)
    assert isinstance(first, Sample)
    if strategy == "delete":
        assert second.reason == "too_long"
        return
    whole = PtRecipe(-1).encode(rows, plain)[1].sequences[0]
    (tokens,) = second.sequences
    kept = whole.input_ids[-32:] if strategy == "truncation_left" else whole.input_ids[:32]
    assert list(tokens.input_ids) == list(kept) and tokens.trained == 31


def test_every_token_of_a_long_text_but_the_first_is_learned_once(plain):
    text = "The quick brown fox jumps over the lazy dog. " * 20
    rows = [Example(text=text), Example(text="hello world")]
    whole = PtRecipe(max_length=-1).encode(rows, plain)
    blocks = PtRecipe(max_length=32).encode(rows, plain)
    assert len(whole) == 2 and len(blocks) > 5
    for row in (0, 1):
        (document,) = (item.sequences[0] for item in whole if item.row == row)
        learned = []
        for block in (item.sequences[0] for item in blocks if item.row == row):
            assert len(block) <= 32
            pairs = zip(block.input_ids[1:], block.loss_weights[1:], strict=True)
            learned += [token for token, weight in pairs if weight]
        assert learned == list(document.input_ids[1:])
        assert document.trained == len(document) - 1


def test_an_empty_text_is_dropped(plain):
    (dropped,) = PtRecipe().encode([Example(text="  ", source=Place("t.jsonl", 9))], plain)
    assert dropped.reason == "empty_text" and "t.jsonl:9" in dropped.detail


@pytest.mark.parametrize("recipe", [SftRecipe, PtRecipe])
@pytest.mark.parametrize("length", [0, 1, -2])
def test_lengths_without_room_are_refused(recipe, length):
    with pytest.raises(UsageError, match=rf"--max_length {length}: .*at least 2"):
        recipe(max_length=length)


def test_fingerprints_tell_settings_apart():
    recipes = [
        SftRecipe(),
        SftRecipe(100),
        SftRecipe(100, "truncation_left"),
        SftRecipe(100, "right"),
        SftRecipe(policy=LossPolicy(prompt=True)),
        SftRecipe(policy=LossPolicy(scale=load_loss_scale("default"))),
        SftRecipe(policy=LossPolicy(scale=load_loss_scale("alpha-umi"))),
        PtRecipe(),
        PtRecipe(100),
        PtRecipe(100, "right"),
        PtRecipe(policy=LossPolicy(ends="last")),
    ]
    assert len({recipe.fingerprint for recipe in recipes}) == len(recipes)


def test_the_loss_is_a_weighted_sum_with_its_count(directory):
    model = AutoModelForCausalLM.from_pretrained(directory).eval()
    rows = [
        Sample((Tokens([5, 6, 7, 8], [0, 0, 1, 2.5]),), 0),
        Sample((Tokens([9, 10, 11], [0, 0.5, 1]),), 1),
    ]
    recipe = SftRecipe()
    assert recipe.count(rows) == {"tokens": 5.0}
    output = recipe.loss(model, recipe.collate(rows), None)
    expected = 0.0
    for sample in rows:
        ids = torch.tensor([sample.sequences[0].input_ids])
        losses = torch.nn.functional.cross_entropy(
            model(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="none"
        )
        expected += (losses * torch.tensor(sample.sequences[0].loss_weights[1:])).sum().item()
    assert output.terms["loss"].total.item() == pytest.approx(expected, rel=1e-5)
    assert output.terms["loss"].unit == "tokens"


def test_accuracy_counts_tokens_or_whole_answers(directory):
    model = AutoModelForCausalLM.from_pretrained(directory).eval()

    def likely(token):
        with torch.no_grad():
            return int(model(input_ids=torch.tensor([[token]])).logits[0, -1].argmax())

    other = {token: (likely(token) + 1) % 100 for token in (5, 6, 7)}
    rows = [
        Sample((Tokens([5, likely(5)], [0, 1]),), 0),
        Sample((Tokens([6, other[6]], [0, 1]),), 1),
        Sample((Tokens([7, likely(7), 9], [0, 2, 0]),), 2),
        Sample((Tokens([8, likely(8), 0], [0, 1, 0.5]),), 3),
    ]
    with torch.no_grad():
        ids = torch.tensor([[8, likely(8)]])
        last_right = int(model(input_ids=ids).logits[0, -1].argmax()) == 0
    tokens, sentences = (
        recipe.loss(model, recipe.collate(rows), None).metrics["acc"]
        for recipe in (SftRecipe(), PtRecipe(accuracy="sentence"))
    )
    assert tokens == (3.0 + last_right, 5.0)
    assert sentences == (2.0 + last_right, 4.0)


def test_answers_that_should_not_be_given_are_not_learned(chatml):
    rows = [Example(talk().messages, label=label) for label in (True, False, None)]
    first, second, third = SftRecipe(max_length=-1).encode(rows, chatml)
    assert isinstance(first, Sample) and isinstance(third, Sample)
    assert second.reason == "undesirable" and second.row == 1
