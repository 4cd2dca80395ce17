"""Data sets of questions about images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ft_data.conversion import BadRowError
from ft_data.datasets.columns import (
    choices,
    items,
    lines,
    mapping,
    number,
    optional,
    text,
    texts,
    turns,
)
from ft_data.datasets.images import IMAGE, described, image_in
from ft_data.formats import Row
from ft_data.formats.media import media_paths


def chart_qa(row: Row) -> Row:
    """Return a row of ChartQA, after renaming; its answer is a list of one."""
    return described(image_in(row, "images"), text(row, "query"), texts(row, "response")[0])


def gqa(row: Row) -> Row:
    """Return a row of GQA, which names its images by number."""
    image = f"{text(row, 'imageId')}.jpg"
    return described([image], text(row, "question"), text(row, "fullAnswer"))


def a_okvqa(row: Row) -> Row:
    """Return a row of A-OKVQA with the first of the reasons given for its answer."""
    return described(image_in(row, "image"), text(row, "question"), texts(row, "rationales")[0])


def okvqa(row: Row) -> Row:
    """Return a row of OK-VQA with the answer that most people gave."""
    ((answer, _),) = Counter(texts(row, "answers")).most_common(1)
    return described(image_in(row, "image"), text(row, "question"), answer)


def ocr_vqa(row: Row) -> Row:
    """Return a row of OCR-VQA: all questions about an image, as one conversation."""
    questions, answers = texts(row, "questions"), texts(row, "answers")
    if len(questions) != len(answers):
        raise BadRowError(
            f"has {len(answers)} answers to {len(questions)} questions", "answers", "wrong_type"
        )
    return _asked(image_in(row, "image"), list(zip(questions, answers, strict=True)))


def lnqa(row: Row) -> Row:
    """Return a row of lnqa: all questions about an image, as one conversation."""
    return _asked(image_in(row, "image"), _pairs(items(row, "qa"), "qa"))


def midefics(row: Row) -> Row:
    """Return a row of MideficsDataset: all questions about a medical image, as one conversation."""
    data = items(mapping(row.get("conversation"), "conversation"), "data")
    return _asked(image_in(row, "image"), _pairs(data, "conversation.data"))


def _pairs(found: list[Any], where: str) -> list[tuple[str, str]]:
    pairs = [mapping(item, f"{where}[{n}]") for n, item in enumerate(found)]
    return [(text(pair, "question"), text(pair, "answer")) for pair in pairs]


def _asked(images: list[str], pairs: list[tuple[str, str]]) -> Row:
    messages = turns(*(said for pair in pairs for said in pair))
    messages[0]["content"] = IMAGE + messages[0]["content"]
    return {"messages": messages, "images": images}


def science_qa(row: Row) -> Row | None:
    """Return a row of ScienceQA, with its solution before the answer; rows without an image are no part of it."""
    if row.get("image") is None:
        return None
    options, right = texts(row, "choices"), number(row.get("answer"), "answer")
    if not 0 <= right < len(options):
        raise BadRowError(f"{right} is none of {len(options)} choices", "answer", "wrong_type")
    question = lines(optional(row, "hint"), text(row, "question"), choices(options))
    answer = f"The answer is {chr(ord('A') + right)}. {options[right]}"
    return described(
        image_in(row, "image"), question, lines(optional(row, "solution").strip(), answer)
    )


def m3it(row: Row) -> Row:
    """Return a row of M3IT, whose images are written as base64."""
    images = [
        item if item.startswith("data:") else f"data:image/jpeg;base64,{item}"
        for item in texts(row, "image_base64_str")
    ]
    question = optional(row, "inputs").strip() or IMAGE * len(images)
    messages = turns(question, text(row, "outputs"))
    return {"system": text(row, "instruction"), "messages": messages, "images": images}


def marked_parts(row: Row) -> Row:
    """Return a row of llava-instruct-mix, whose turns are lists of texts and of places for images."""
    messages = [mapping(item, f"messages[{n}]") for n, item in enumerate(items(row, "messages"))]
    return {
        "messages": [
            {"role": text(turn, "role"), "content": _marked(turn, f"messages[{n}].content")}
            for n, turn in enumerate(messages)
        ],
        "images": media_paths(row.get("images"), "images"),
    }


def _marked(turn: Mapping[str, Any], where: str) -> str:
    content = turn.get("content")
    if isinstance(content, str):
        return content
    parts = [mapping(item, where) for item in items(turn, "content")]
    return "".join(
        IMAGE if part.get("type") == "image" else optional(part, "text") for part in parts
    )
