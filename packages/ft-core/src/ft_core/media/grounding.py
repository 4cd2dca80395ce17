"""Things in images: their names and boxes, written as a family of models learned them.

A row has ``objects``, such as ``{"caption": "cat", "bbox": [10, 20, 90, 80], "bbox_type": "real", "image": 0}``,
and ``<ref-object>`` and ``<bbox>`` in its texts, which stand for them in their order.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, NoReturn

from ft_core.examples import Example, Message
from ft_core.templates.conversation import fail

Size = tuple[int, int]
"""Width and height in pixels."""

BoxType = Literal["real", "norm_1000", "norm_1"]
BOX_TYPES: Final[tuple[BoxType, ...]] = ("real", "norm_1000", "norm_1")

_PLACEHOLDER: Final = re.compile(r"<(ref-object|bbox)>")


@dataclass(frozen=True, slots=True)
class GroundingStyle:
    """How a family writes names and boxes.

    Attributes:
        name: what stands before and after a name.
        box: a box; ``{x1}`` and so on are filled in.
        scale: what the image's width and height are in the numbers; ``None`` takes pixels of the image as the
            model gets it.
    """

    name: tuple[str, str] = ("", "")
    box: str = "({x1},{y1}),({x2},{y2})"
    scale: int | None = 1000

    def written(self, box: Sequence[float]) -> str:
        """Return a box given in its own numbers."""
        x1, y1, x2, y2 = (f"{round(value)}" for value in box)
        return self.box.format(x1=x1, y1=y1, x2=x2, y2=y2)


PLAIN = GroundingStyle()

SizeOf = Callable[[int, bool], Size]
"""Returns the size of the row's image of this number: as it is, or (true) as the model gets it."""


def has_objects(example: Example) -> bool:
    """Whether names or boxes are to be filled in."""
    return bool(example.objects)


def fill_in(
    example: Example, style: GroundingStyle, size_of: SizeOf, token: Callable[[str], str]
) -> Example:
    """Return a row with its objects written out.

    Args:
        example: the row.
        style: how.
        size_of: for boxes in pixels.
        token: returns what stands for a text that is one token of the model.

    Raises:
        DataError: an object is wrong, or there are more places than objects.
    """
    filler = _Filler(example, style, size_of, token)
    messages = tuple(map(filler.message, example.messages))
    rejected = None
    if example.rejected is not None:
        again = _Filler(example, style, size_of, token)
        for message in example.prompt:
            again.message(message)
        rejected = tuple(map(again.message, example.rejected))
    return replace(example, messages=messages, rejected=rejected, objects=())


@dataclass(slots=True)
class _Filler:
    example: Example
    style: GroundingStyle
    size_of: SizeOf
    token: Callable[[str], str]
    names: int = 0
    boxes: int = 0

    def message(self, message: Message) -> Message:
        if isinstance(message.content, str):
            return replace(message, content=_PLACEHOLDER.sub(self._filled, message.content))
        parts = tuple(
            {**part, "text": _PLACEHOLDER.sub(self._filled, str(part["text"]))}
            if "text" in part
            else part
            for part in message.content
        )
        return replace(message, content=parts)

    def _filled(self, match: re.Match[str]) -> str:
        if match[1] == "bbox":
            self.boxes += 1
            return self._box(self.boxes - 1)
        self.names += 1
        before, after = self.style.name
        caption = self._object(self.names - 1).get("caption")
        if not isinstance(caption, str):
            self._fail(self.names - 1, "has no 'caption' for <ref-object>")
        return f"{self._tokens(before)}{caption}{self._tokens(after)}"

    def _tokens(self, text: str) -> str:
        return re.sub(r"<[^<>\s]+>", lambda match: self.token(match[0]), text)

    def _object(self, index: int) -> Mapping[str, Any]:
        objects = self.example.objects
        if index >= len(objects):
            self._fail(index, f"is missing: the texts have more places than {len(objects)} objects")
        return objects[index]

    def _box(self, index: int) -> str:
        item = self._object(index)
        given = item.get("bbox")
        several = isinstance(given, (list, tuple)) and given and isinstance(given[0], (list, tuple))
        boxes = given if several else [given]
        return "".join(
            self._tokens(self.style.written(self._scaled(index, box))) for box in boxes or ()
        )

    def _scaled(self, index: int, box: object) -> list[float]:
        item = self.example.objects[index]
        numbers = _numbers(box)
        if numbers is None:
            self._fail(index, "has no 'bbox' of four numbers x1, y1, x2, y2")
        kind = item.get("bbox_type", "real")
        if kind not in BOX_TYPES:
            self._fail(index, f"has bbox_type {kind!r}; use one of {', '.join(BOX_TYPES)}")
        image = item.get("image", 0)
        if not isinstance(image, int) or not 0 <= image < max(len(self.example.images), 1):
            self._fail(index, f"names image {image!r} of {len(self.example.images)}")
        width, height = self.size_of(image, False) if kind == "real" else (1, 1)
        unit = 1000 if kind == "norm_1000" else 1
        shares = [
            min(max(value / (unit * side), 0.0), 1.0)
            for value, side in zip(numbers, (width, height, width, height), strict=True)
        ]
        if self.style.scale is not None:
            # The last place is scale - 1, so that every number has as many digits as the family knows.
            return [float(int(share * (self.style.scale - 1))) for share in shares]
        wide, high = self.size_of(image, True)
        return [share * side for share, side in zip(shares, (wide, high, wide, high), strict=True)]

    def _fail(self, index: int, message: str) -> NoReturn:
        fail(message, rule="objects", source=self.example.source, field=f"objects[{index}]")


def _numbers(box: object) -> list[float] | None:
    """Return four finite numbers, if it is a list of them."""
    if not isinstance(box, (list, tuple)) or len(box) != 4:
        return None
    if not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in box):
        return None
    return [float(v) for v in box] if all(map(math.isfinite, box)) else None
