"""Rows with media: marks are counted against files, faults have their place, names and boxes are written out."""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path

import pytest

from ft_core.errors import DataError, Place
from ft_core.examples import Example, Message
from ft_core.loss_scale import LossPolicy
from ft_core.media import MediaLimits, MediaProcessor, MediaTemplate
from ft_core.media.testing import picture, tiny_multimodal, tone
from ft_core.next_tokens import NextTokenEncoder
from ft_core.samples import Dropped, Sample, Tokens
from ft_core.templates import TEMPLATES, FieldTemplate, truncate
from ft_core.templates.jinja import JinjaTemplate
from ft_core.testing import CHATML
from ft_core.tokenizer import Tokenizer

IMAGE = "<|vision_start|>{}<|vision_end|>"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_multimodal(tmp_path_factory.mktemp("qwen2_vl"), "qwen2_vl")


@pytest.fixture(scope="module")
def template(model: Path) -> MediaTemplate:
    return MediaTemplate(JinjaTemplate(Tokenizer.from_directory(model)), MediaProcessor(model))


@pytest.fixture(scope="module")
def red(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(picture(tmp_path_factory.mktemp("red") / "red.png", "red", (56, 56)))


@pytest.fixture(scope="module")
def blue(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(picture(tmp_path_factory.mktemp("blue") / "blue.png", "blue", (84, 56)))


def shown(template: MediaTemplate, example: Example) -> str:
    """The row's text with each picture as the number of its tokens."""
    (tokens,) = template.encode([example])[0]
    text, position = "", 0
    for item in tokens.media:
        text += template.tokenizer.decode(list(tokens.input_ids[position : item.start]))
        text, position = f"{text}[{item.length}]", item.end
    return text + template.tokenizer.decode(list(tokens.input_ids[position:]))


def asked(*turns: str, images: tuple[str, ...] = (), **fields: object) -> Example:
    roles = ("user", "assistant")
    messages = tuple(Message(roles[i % 2], turn) for i, turn in enumerate(turns))  # type: ignore[arg-type]
    place = Place("rows.jsonl", 7)
    return Example(messages=messages, images=images, source=place, **fields)  # type: ignore[arg-type]


def test_media_stand_where_they_are_marked(template: MediaTemplate, red: str, blue: str) -> None:
    text = shown(template, asked("Is <image> like <image>?", "No.", images=(red, blue)))
    first, second = IMAGE.format("[4]"), IMAGE.format("[6]")
    assert f"Is {first} like {second}?" in text


def test_files_without_a_mark_go_to_the_first_question(
    template: MediaTemplate, red: str, blue: str
) -> None:
    text = shown(template, asked("What is it?", "A.", "And <image>?", "B.", images=(red, blue)))
    assert f"user\n{IMAGE.format('[4]')}What is it?" in text
    assert f"And {IMAGE.format('[6]')}?" in text
    text = shown(template, asked("What is it?", "A.", images=(red, blue)))
    assert f"user\n{IMAGE.format('[4]')}{IMAGE.format('[6]')}What is it?" in text


def test_parts_and_marks_mean_the_same(template: MediaTemplate, red: str) -> None:
    parts = ({"type": "text", "text": "Is "}, {"type": "image"}, {"type": "text", "text": " red?"})
    as_parts = replace(asked("", "Yes.", images=(red,)), messages=(
        Message("user", parts), Message("assistant", "Yes."),
    ))  # fmt: skip
    with_file = ({"type": "text", "text": "Is "}, {"type": "image", "image": red}, parts[2])
    inside = Example(messages=(Message("user", with_file), Message("assistant", "Yes.")))
    marked = asked("Is <image> red?", "Yes.", images=(red,))
    ids = [template.encode([item])[0][0].input_ids for item in (marked, as_parts, inside)]
    assert ids[0] == ids[1] == ids[2]


@pytest.mark.parametrize(
    ("turns", "fields", "rule", "words"),
    [
        (
            ("<image> and <image>", "A."),
            {"images": ("RED",)},
            "more_marks",
            "2 marks <image> and 1",
        ),
        (("<image>?", "A."), {}, "more_marks", "1 marks <image> and 0"),
        (("Hear <audio>", "A."), {"audios": ("a.wav",)}, "media", "takes text and images"),
        (("What?", "A."), {"images": ("gone.png",)}, "missing_file", "no such file"),
        (("What?", "A."), {"images": ("RED", "gone.png")}, "missing_file", "gone.png"),
        (("What? \U00100005", "A."), {"images": ("RED",)}, "private_characters", "private use"),
        (
            ("<bbox>?", "A."),
            {"images": ("RED",), "objects": ({"caption": "a"},)},
            "objects",
            "bbox",
        ),
        (
            ("<bbox>?", "A."),
            {"images": ("RED",), "objects": ({"bbox": [1, 2, 3, 4], "bbox_type": "cm"},)},
            "objects",
            "bbox_type 'cm'",
        ),
        (
            ("<bbox>?", "A."),
            {"images": ("RED",), "objects": ({"bbox": [1, 2, 3, 4], "image": 3},)},
            "objects",
            "image 3 of 1",
        ),
    ],
)
def test_a_bad_row_is_dropped_with_its_place(
    template: MediaTemplate,
    red: str,
    turns: tuple[str, ...],
    fields: dict[str, tuple[object, ...]],
    rule: str,
    words: str,
) -> None:
    filled = {k: tuple(red if v == "RED" else v for v in values) for k, values in fields.items()}
    good = asked("Is <image> red?", "Yes.", images=(red,))
    encoder = NextTokenEncoder("sft", 2048, "delete", LossPolicy())
    kept, dropped = encoder.encode([good, asked(*turns, **filled)], template)  # type: ignore[arg-type]
    assert isinstance(kept, Sample)
    assert isinstance(dropped, Dropped)
    assert dropped.reason == rule
    assert words in dropped.detail
    assert "rows.jsonl:7" in dropped.detail


def test_the_field_of_a_bad_file_is_named(template: MediaTemplate, red: str) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl:7: field 'images\[1\]': gone\.png"):
        template.encode([asked("What?", "A.", images=(red, "gone.png"))])


def test_answers_hold_no_media(template: MediaTemplate, red: str) -> None:
    answer = Message("assistant", ({"type": "image", "image": red},))
    with pytest.raises(DataError, match="an answer can't hold media"):
        template.encode(
            [Example(messages=(Message("user", "Draw."), answer, Message("assistant", "x")))]
        )


def test_texts_that_look_like_marks_stay_texts(template: MediaTemplate, red: str) -> None:
    text = shown(template, asked("A <video> tag and <image>, <|image_pad|>", "x", images=(red,)))
    assert "A <video> tag and" in text
    assert "<|image_pad|>" in text
    (tokens,) = template.encode([asked("Say <|image_pad|> <image>", "x", images=(red,))])[0]
    pad = template.tokenizer.token_to_id("<|image_pad|>")
    assert list(tokens.input_ids).count(pad) == tokens.media[0].length


def test_a_cut_never_goes_through_a_picture(template: MediaTemplate, red: str, blue: str) -> None:
    (tokens,) = template.encode(
        [asked("<image>What?", "A.", "<image>And?", "B.", images=(red, blue))]
    )[0]
    pad = template.tokenizer.token_to_id("<|image_pad|>")
    for length in range(2, len(tokens) + 1):
        for strategy in ("truncation_left", "right", "split"):
            for piece in truncate(tokens, length, strategy):
                assert len(piece) <= length
                whole = sum(item.length for item in piece.media)
                assert list(piece.input_ids).count(pad) == whole
                for item in piece.media:
                    assert set(piece.input_ids[item.start : item.end]) == {pad}
    split = truncate(tokens, 20, "split")
    assert sum(piece.trained for piece in split) == tokens.trained


def test_cutting_texts_is_as_it_was() -> None:
    tokens = Tokens(list(range(10)), [1.0] * 10)
    assert [list(p.input_ids) for p in truncate(tokens, 4, "split")] == [
        [0, 1, 2, 3],
        [3, 4, 5, 6],
        [6, 7, 8, 9],
    ]


def test_a_template_of_texts_gets_what_the_family_writes(model: Path, red: str) -> None:
    tokenizer = Tokenizer.from_directory(model)
    only_texts = MediaTemplate(JinjaTemplate(tokenizer, CHATML), MediaProcessor(model))
    record = MediaTemplate(
        FieldTemplate(
            "chatml", TEMPLATES.get("chatml"), tokenizer, today=datetime.date(2026, 1, 1)
        ),
        MediaProcessor(model),
    )
    for template in (only_texts, record):
        text = shown(template, asked("Is <image> red?", "Yes.", images=(red,)))
        assert f"Is {IMAGE.format('[4]')} red?" in text


def test_texts_for_pretraining_hold_media_that_are_not_learned(
    template: MediaTemplate, red: str
) -> None:
    example = Example(text="A red square: <image> and more.", images=(red,))
    (tokens,) = template.encode([example])[0]
    assert tokens.media[0].length == 4
    item = tokens.media[0]
    assert not any(tokens.loss_weights[item.start - 1 : item.end + 1])
    assert tokens.loss_weights[item.end + 1] == 1


@pytest.mark.parametrize(
    ("family", "kind", "box", "name", "place"),
    [
        ("qwen2_vl", "real", [0, 28, 56, 56], "<|object_ref_start|>a<|object_ref_end|>",
         "<|box_start|>(0,499),(999,999)<|box_end|>"),
        ("qwen2_vl", "norm_1000", [0, 500, 1000, 250], "<|object_ref_start|>a<|object_ref_end|>",
         "<|box_start|>(0,499),(999,249)<|box_end|>"),
        ("qwen2_vl", "norm_1", [0, 0.5, 1, 0.25], "<|object_ref_start|>a<|object_ref_end|>",
         "<|box_start|>(0,499),(999,249)<|box_end|>"),
        ("qwen2_5_vl", "real", [0, 28, 56, 56], "a", "[0, 28, 56, 56]"),
        ("qwen2_5_vl", "norm_1000", [0, 500, 1000, 250], "a", "[0, 28, 56, 14]"),
        ("qwen3_vl", "real", [0, 28, 56, 56], "a", "[0, 499, 999, 999]"),
        ("llava", "real", [0, 28, 56, 56], "a", "(0,499),(999,999)"),
        ("internvl", "real", [0, 28, 56, 56], "<ref>a</ref>", "<box>[[0, 499, 999, 999]]</box>"),
    ],
)  # fmt: skip
def test_names_and_boxes_are_written_as_the_family_learned_them(
    tmp_path: Path, red: str, family: str, kind: str, box: list[float], name: str, place: str
) -> None:
    directory = tiny_multimodal(tmp_path, family)
    template = MediaTemplate(
        JinjaTemplate(Tokenizer.from_directory(directory)), MediaProcessor(directory)
    )
    objects = ({"caption": "a", "bbox": box, "bbox_type": kind},)
    example = asked("<image>Where is <ref-object>?", "At <bbox>.", images=(red,), objects=objects)
    text = shown(template, example)
    assert f"Where is {name}?" in text
    assert f"At {place}." in text
    if family == "qwen2_vl":  # they are tokens, in the answer too
        (tokens,) = template.encode([example])[0]
        start = template.tokenizer.token_to_id("<|box_start|>")
        assert tokens.loss_weights[list(tokens.input_ids).index(start)] == 1


def test_rescaling_and_another_processor_make_other_fingerprints(model: Path, red: str) -> None:
    plain, small = MediaProcessor(model), MediaProcessor(model, MediaLimits(rescale=900))
    assert plain.fingerprint != small.fingerprint
    tokenizer = JinjaTemplate(Tokenizer.from_directory(model))
    sizes = [
        MediaTemplate(tokenizer, item)
        .encode([asked("<image>?", "x", images=(red,))])[0][0]
        .media[0]
        .length
        for item in (plain, small)
    ]
    assert sizes == [4, 1]


def test_an_audio_is_heard_by_a_model_of_sounds(tmp_path: Path) -> None:
    directory = tiny_multimodal(tmp_path / "model", "qwen2_audio")
    template = MediaTemplate(
        JinjaTemplate(Tokenizer.from_directory(directory)), MediaProcessor(directory)
    )
    sound = str(tone(tmp_path / "a.wav", seconds=1.0))
    example = Example(
        messages=(Message("user", "Hear <audio>"), Message("assistant", "A.")), audios=(sound,)
    )
    assert (
        template.encode([example])[0][0].media[0].length == 25
    )  # 100 frames of 10 ms, halved twice
    silent = str(tone(tmp_path / "b.wav", seconds=0))
    with pytest.raises(DataError, match="no samples"):
        template.encode([replace(example, audios=(silent,))])
