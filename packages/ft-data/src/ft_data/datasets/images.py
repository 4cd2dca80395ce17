"""Data sets of images and what is to be seen on them."""

from __future__ import annotations

from ft_data.conversion import BadRowError
from ft_data.datasets.columns import mapping, text, texts, turns
from ft_data.formats import Row
from ft_data.formats.media import media_paths

IMAGE = "<image>"
"""Stands in a text for the next of its images."""
_DESCRIBE = f"{IMAGE}Please describe the image."
_DESCRIBE_ZH = f"{IMAGE}请描述这张图片。"


def image_in(row: Row, *names: str) -> list[str]:
    """Return the image in the first of some columns that the row has."""
    for name in names:
        if found := media_paths(row.get(name), name):
            return found[:1]
    raise BadRowError("there is no image", names[0], "missing_columns")


def described(images: list[str], question: str, answer: str) -> Row:
    """Return a row with a question about images and its answer."""
    return {"messages": turns(question, answer), "images": images}


def coco(row: Row) -> Row:
    """Return a row of coco_2014_caption, whose captions are joined by ``&&``."""
    caption = text(row, "caption").partition("&&")[0].strip()
    return described(image_in(row, "image", "image:FILE"), _DESCRIBE, caption)


def captcha(row: Row) -> Row:
    """Return a row of captcha-images."""
    question = f"{IMAGE}Which characters are written in the image?"
    return described(image_in(row, "image"), question, text(row, "solution"))


def captioned(row: Row) -> Row:
    """Return a row with an image and its caption, after renaming: the image alone is the question."""
    return described(image_in(row, "images"), IMAGE, text(row, "response"))


def text_caps(row: Row) -> Row:
    """Return a row of TextCaps with the first of its captions."""
    return described(image_in(row, "image"), _DESCRIBE, texts(row, "reference_strs")[0])


def pixelprose(row: Row) -> Row:
    """Return a row of pixelprose."""
    caption = text(row, "vlm_caption").strip().removeprefix("This image displays:").lstrip()
    return described(image_in(row, "url"), _DESCRIBE, caption)


def sa1b_dense(row: Row) -> Row:
    """Return a row of SA1B-Dense-Caption."""
    caption = text(mapping(row.get("cap_seg"), "cap_seg"), "global_caption")
    return described(image_in(row, "url"), _DESCRIBE_ZH, caption)


def sa1b_paired(row: Row) -> Row:
    """Return a row of SA1B-Paired-Captions-Images."""
    return described(image_in(row, "opensource_url"), _DESCRIBE_ZH, text(row, "global_caption"))
