"""Rows that are encoded already, and rows that weigh more or less than others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ft_core.errors import DataError
from ft_core.examples import Example, Message, Source
from ft_core.loss_scale import LossPolicy
from ft_core.templates import FieldTemplate, JinjaTemplate, Template
from ft_core.templates.registry import TEMPLATES
from ft_core.testing import tiny_tokenizer
from ft_core.tokenizer import Tokenizer

HERE = Source("rows.jsonl", 3)
TALK = (Message("user", "q"), Message("assistant", "a long answer"))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.from_directory(tiny_tokenizer(tmp_path_factory.mktemp("t") / "t"))


BUILD: dict[str, Callable[[Tokenizer], Template]] = {
    "jinja": JinjaTemplate,
    "fields": lambda tokenizer: FieldTemplate("chatml", TEMPLATES.get("chatml"), tokenizer),
}


@pytest.fixture(params=BUILD)
def template(request: pytest.FixtureRequest, tokenizer: Tokenizer) -> Template:
    return BUILD[request.param](tokenizer)


def test_ids_and_labels_pass_as_they_are(template: Template) -> None:
    ids = [*template.tokenizer.encode("hello <|im_end|> world, once more"), 3, 1, 2]
    labels = [-100, -100, *ids[2:5], -100, *ids[6:]]
    row = Example(input_ids=tuple(ids), labels=tuple(labels))
    row.validate()
    ((tokens,),) = template.encode([row])
    assert list(tokens.input_ids) == ids
    assert list(tokens.loss_weights) == [float(label != -100) for label in labels]
    for policy in (LossPolicy(prompt=True), LossPolicy(ends="all"), LossPolicy(ends="last")):
        (segments,) = policy.weigh(template.render(policy.prepare(row)), template)
        (weighed,) = template.encode_segments([segments])
        assert weighed == tokens
    assert Example.from_json(row.to_json()) == row


def test_a_token_of_another_tokenizer_is_refused(template: Template) -> None:
    row = Example(input_ids=(1, 10_000_000), labels=(1, 10_000_000), source=HERE)
    with pytest.raises(DataError, match=r"rows\.jsonl:3.*another one") as caught:
        template.encode([row])
    assert caught.value.rule == "unknown_token"


@pytest.mark.parametrize(
    ("fields", "rule", "says"),
    [
        ({"input_ids": (1, 2)}, "wrong_length", "missing"),
        ({"input_ids": (1, 2), "labels": (1,)}, "wrong_length", "1 labels"),
        ({"input_ids": (), "labels": ()}, "empty_row", "no token"),
        ({"labels": (1,)}, "empty_row", "no token"),
        ({"input_ids": (1, 2), "labels": (1, 3)}, "wrong_label", "label 1 is 3"),
        ({"input_ids": (1, 2, 3), "labels": (2, 3, -100)}, "wrong_label", "shifted by one"),
        ({"input_ids": (1,), "labels": (1,), "text": "x"}, "ids_and_text", "keep one"),
        ({"input_ids": (1,), "labels": (1,), "messages": TALK}, "ids_and_text", "keep one"),
    ],
)
def test_broken_ids_name_field_and_rule(fields: dict[str, Any], rule: str, says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        Example(**fields, source=HERE).validate()
    assert caught.value.rule == rule
    assert caught.value.place is not None
    assert caught.value.place.line == 3


def test_the_weight_of_a_row_scales_all_of_it(template: Template) -> None:
    for fields in ({"messages": TALK}, {"text": "some text"}):
        plain, heavy = Example(**fields), Example(**fields, weight=2.5)  # type: ignore[arg-type]
        ((one,), (other,)) = template.encode([plain, heavy])
        assert other.input_ids == one.input_ids
        assert list(other.loss_weights) == [2.5 * weight for weight in one.loss_weights]
        assert Example.from_json(heavy.to_json()) == heavy
        assert heavy != plain
