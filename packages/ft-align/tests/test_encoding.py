"""Rows to samples: which tokens are prompt and answer, what is cut, what is dropped and why."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ft_align.encoding import AnswerEncoder, PairEncoder, count_cut_prompts
from ft_align.lengths import Lengths
from ft_core.errors import UsageError
from ft_core.examples import Example, Message
from ft_core.loss_scale import LossPolicy
from ft_core.samples import Dropped, Sample, Tokens
from ft_core.templates.template import Template


def only(items: list[Sample | Dropped]) -> Sample:
    (item,) = items
    assert isinstance(item, Sample), item
    return item


def reason(items: list[Sample | Dropped]) -> str:
    (item,) = items
    assert isinstance(item, Dropped), item
    return item.reason


def said(template: Template, tokens: Tokens, *, trained: bool = True) -> str:
    return template.tokenizer.decode(
        [
            token
            for token, weight in zip(tokens.input_ids, tokens.loss_weights, strict=True)
            if bool(weight) is trained
        ]
    )


def test_both_answers_continue_the_prompt_that_serving_feeds(
    chatml: Template, pairs: list[Example]
) -> None:
    for row, item in enumerate(PairEncoder().encode(pairs, chatml)):
        sample = only([item])
        prompt = chatml.encode_prompt(pairs[row].prompt)
        assert sample.row == row and sample.values["prompt"] == len(prompt)
        answers = (pairs[row].messages[-1:], pairs[row].rejected)
        for tokens, turns in zip(sample.sequences, answers, strict=True):
            assert turns is not None
            assert list(tokens.input_ids[: len(prompt)]) == prompt
            assert said(chatml, tokens) == turns[0].text + "<|im_end|>"


def test_earlier_answers_are_no_part_of_the_comparison(chatml: Template) -> None:
    talk = (
        Message("user", "hello"),
        Message("assistant", "good morning"),
        Message("user", "Who are you?"),
        Message("assistant", "I am a small model."),
    )
    row = Example(talk, rejected=(Message("assistant", "the sea"),))
    chosen, rejected = only(PairEncoder().encode([row], chatml)).sequences
    assert said(chatml, chosen) == "I am a small model.<|im_end|>"
    assert said(chatml, rejected) == "the sea<|im_end|>"


def test_a_rejected_answer_of_several_turns_counts_what_the_model_says(chatml: Template) -> None:
    row = Example(
        (Message("user", "Who are you?"), Message("assistant", "I am a small model.")),
        rejected=(
            Message("assistant", "the sea"),
            Message("user", "thank you"),
            Message("assistant", "no"),
        ),
    )
    rejected = only(PairEncoder().encode([row], chatml)).sequences[1]
    assert said(chatml, rejected) == "the sea<|im_end|>no<|im_end|>"
    assert "thank you" in said(chatml, rejected, trained=False)


def test_a_learned_prompt_is_learned_before_the_chosen_answer_only(
    chatml: Template, pairs: list[Example]
) -> None:
    sample = only(PairEncoder(policy=LossPolicy(prompt=True)).encode(pairs[:1], chatml))
    prompt = int(sample.values["prompt"])
    chosen, rejected = sample.sequences
    assert all(chosen.loss_weights[1:prompt]) and not any(rejected.loss_weights[:prompt])


def test_a_rows_weight_counts_in_likelihood_and_travels(
    chatml: Template, pairs: list[Example]
) -> None:
    sample = only(PairEncoder().encode([replace(pairs[0], weight=0.5)], chatml))
    assert sample.values["weight"] == 0.5
    assert set(sample.sequences[0].loss_weights) == {0.0, 0.5}
    assert (
        reason(PairEncoder().encode([replace(pairs[0], weight=0.0)], chatml)) == "nothing_to_learn"
    )


def test_answers_keep_their_labels(chatml: Template, labelled: list[Example]) -> None:
    samples = AnswerEncoder().encode(labelled, chatml)
    assert [only([item]).values["label"] for item in samples] == [1.0, 1.0, 0.0, 1.0, 1.0]
    assert said(chatml, only(samples[:1]).sequences[0]) == "Paris.<|im_end|>"


def test_a_preference_is_a_desirable_and_an_undesirable_answer(
    chatml: Template, pairs: list[Example]
) -> None:
    one, other = AnswerEncoder().encode(pairs[1:2], chatml)
    assert isinstance(one, Sample) and isinstance(other, Sample)
    assert (one.values["label"], other.values["label"]) == (1.0, 0.0)
    assert said(chatml, other.sequences[0]) == "the sea<|im_end|>"
    equal = replace(pairs[1], rejected=pairs[1].messages[-1:])
    assert reason(AnswerEncoder().encode([equal], chatml)) == "equal_answers"


def test_every_row_is_a_sample_or_dropped_with_its_reason(
    chatml: Template, pairs: list[Example], labelled: list[Example]
) -> None:
    rows = [
        pairs[0],
        replace(pairs[1], rejected=None),
        replace(pairs[2], rejected=pairs[2].messages[-1:]),
        replace(pairs[3], messages=pairs[3].messages[:1]),
        replace(pairs[3], rejected=(Message("assistant", "no"), Message("user", "hello"))),
        replace(pairs[3], messages=(), text="hello"),
        replace(pairs[4], messages=(Message("user", "hello"), Message("assistant", " "))),
    ]
    found = PairEncoder().encode(rows, chatml)
    assert [item.row for item in found] == list(range(7))
    reasons = [item.reason for item in found if isinstance(item, Dropped)]
    assert reasons == [
        "missing_rejected",
        "equal_answers",
        "missing_answer",
        "missing_answer",
        "missing_answer",
        "missing_answer",
    ]
    assert isinstance(found[1], Dropped) and "rows.jsonl:2" in found[1].detail
    assert (
        reason(AnswerEncoder().encode([replace(labelled[0], label=None)], chatml))
        == "missing_label"
    )


def test_a_long_prompt_keeps_its_end_and_the_special_tokens_at_its_head(
    chatml: Template, pairs: list[Example]
) -> None:
    whole = only(PairEncoder().encode(pairs[2:3], chatml))
    size = int(whole.values["prompt"])
    bound = size - 4
    cut = only(PairEncoder(lengths=Lengths(max_prompt_length=bound)).encode(pairs[2:3], chatml))
    assert (cut.values["prompt"], cut.values["cut"]) == (bound, 4)
    for before, after in zip(whole.sequences, cut.sequences, strict=True):
        assert list(after.input_ids) == [before.input_ids[0], *before.input_ids[5:]]
        assert said(chatml, after) == said(chatml, before)
        assert len(after.loss_weights) == len(after.input_ids)
    assert chatml.tokenizer.decode([cut.sequences[0].input_ids[0]]) == "<|im_start|>"
    assert count_cut_prompts([whole, cut, whole]) == 1


def test_no_limit_leaves_prompts_alone(chatml: Template, pairs: list[Example]) -> None:
    free = Lengths(max_length=-1, max_prompt_length=-1)
    assert PairEncoder(lengths=free).encode(pairs, chatml) == PairEncoder().encode(pairs, chatml)


def test_too_long_rows(chatml: Template, pairs: list[Example]) -> None:
    whole = only(PairEncoder().encode(pairs[2:3], chatml))
    longest = max(map(len, whole.sequences))
    bound = longest - 3

    def encode(strategy: str, max_length: int = bound) -> list[Sample | Dropped]:
        lengths = Lengths(max_length, strategy)  # type: ignore[arg-type]
        return PairEncoder(lengths=lengths).encode(pairs[2:3], chatml)

    assert reason(encode("delete")) == "too_long"
    left = only(encode("truncation_left"))
    assert max(map(len, left.sequences)) == bound and left.values["cut"] == 3
    assert [said(chatml, tokens) for tokens in left.sequences] == [
        said(chatml, tokens) for tokens in whole.sequences
    ]
    right = only(encode("right"))
    assert max(map(len, right.sequences)) == bound and right.values["cut"] == 0
    assert reason(encode("right", int(whole.values["prompt"]))) == "cut_away"
    assert reason(encode("truncation_left", 3)) == "cut_away"


def test_answers_that_are_equal_after_the_cut_are_dropped(chatml: Template) -> None:
    row = Example(
        (Message("user", "hello"), Message("assistant", "1, 2, 3, 4")),
        rejected=(Message("assistant", "1, 2, 3, 5"),),
    )
    whole = only(PairEncoder().encode([row], chatml))
    bound = Lengths(int(whole.values["prompt"]) + 2, "right")
    assert reason(PairEncoder(lengths=bound).encode([row], chatml)) == "equal_answers"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"strategy": "split"}, "in pieces"),
        ({"max_length": 1}, "--max_length 1"),
        ({"max_prompt_length": 0}, "--max_prompt_length 0"),
    ],
)
def test_refused_lengths(settings: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Lengths(**settings)  # type: ignore[arg-type]


def test_fingerprints_tell_encoders_apart() -> None:
    encoders = [
        PairEncoder(),
        AnswerEncoder(),
        PairEncoder(lengths=Lengths(max_prompt_length=7)),
        PairEncoder(lengths=Lengths(max_length=7)),
        PairEncoder(policy=LossPolicy(ends="all")),
    ]
    assert len({encoder.fingerprint for encoder in encoders}) == len(encoders)
    assert PairEncoder("orpo").fingerprint == PairEncoder("dpo").fingerprint
