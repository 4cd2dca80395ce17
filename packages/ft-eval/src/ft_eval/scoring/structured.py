"""Whether an answer is JSON, and follows a schema where one is given."""

from __future__ import annotations

import json
import re

from ft_core.errors import DataError
from ft_eval.measures import Measure, mean, scored
from ft_eval.respondents.protocol import Answer
from ft_eval.tasks.task import Item

_FENCE = re.compile(r"\s*```(?:json)?\s*\n(.*?)\n?```\s*", re.DOTALL)


def json_valid(item: Item, answer: Answer) -> float:
    """Return 1 where the answer as a whole, or in one code fence, is JSON that follows the schema."""
    from jsonschema import SchemaError
    from jsonschema.validators import validator_for

    text = match[1] if (match := _FENCE.fullmatch(answer.text)) else answer.text
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except ValueError:
        return 0.0
    schema = item.extra.get("schema")
    if schema is None:
        return 1.0
    kind = validator_for(schema)
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        place = item.place
        raise DataError(
            f"is no JSON schema: {error.message}",
            path=None if place is None else place.path,
            line=None if place is None else place.line,
            field="schema",
            rule="invalid_schema",
        ) from None
    return float(kind(schema).is_valid(value))


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


JSON_VALID = Measure("json_valid", mean, scored(json_valid), binary=True)
