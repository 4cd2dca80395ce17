"""As much of Go's text/template as Modelfiles use, to check them against the chat formats they stand for."""

from __future__ import annotations

import json
import re
from typing import Any

_ACTION = re.compile(r"\{\{(-?)\s*(.*?)\s*(-?)\}\}", re.DOTALL)
_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|[()]|[^\s()]+')


def render(source: str, data: dict[str, Any]) -> str:
    """Execute a template on ``data``."""
    nodes, rest = _parse(_pieces(source))
    assert rest is None, f"unexpected {rest}"
    return _run(nodes, data, {"$": data, "variables": {}})


def _pieces(source: str) -> list[tuple[str, str]]:
    """Split into text and actions, with whitespace trimmed where an action says so."""
    found: list[tuple[str, str]] = []
    at, trim = 0, False
    for match in _ACTION.finditer(source):
        text = source[at : match.start()]
        text = text.lstrip() if trim else text
        found.append(("text", text.rstrip() if match[1] else text))
        found.append(("action", match[2]))
        at, trim = match.end(), bool(match[3])
    found.append(("text", source[at:].lstrip() if trim else source[at:]))
    return found


def _parse(pieces: list[tuple[str, str]]) -> tuple[list[Any], str | None]:
    nodes: list[Any] = []
    while pieces:
        kind, text = pieces.pop(0)
        if kind == "text":
            nodes.append(text)
        elif text == "end" or text.startswith("else"):
            return nodes, text
        elif text.startswith("if "):
            nodes.append(_branches(text[3:], pieces))
        elif text.startswith("range "):
            names, _, value = text[6:].partition(":=")
            body, end = _parse(pieces)
            assert end == "end"
            nodes.append(("range", [name.strip() for name in names.split(",")], value, body))
        else:
            nodes.append(("print", text))
    return nodes, None


def _branches(condition: str, pieces: list[tuple[str, str]]) -> Any:
    body, end = _parse(pieces)
    if end == "end":
        return ("if", condition, body, [])
    assert end is not None
    if end.startswith("else if "):
        return ("if", condition, body, [_branches(end[8:], pieces)])
    other, closing = _parse(pieces)
    assert closing == "end"
    return ("if", condition, body, other)


def _run(nodes: list[Any], dot: Any, names: dict[str, Any]) -> str:
    parts = []
    for node in nodes:
        if isinstance(node, str):
            parts.append(node)
        elif node[0] == "print":
            name, assigned, value = node[1].partition(":=" if ":=" in node[1] else " = ")
            if assigned:
                names["variables"][name.strip()] = _value(value, dot, names)
            else:
                parts.append(_text(_value(node[1], dot, names)))
        elif node[0] == "if":
            parts.append(_run(node[2] if _value(node[1], dot, names) else node[3], dot, names))
        else:
            for index, item in enumerate(_value(node[2], dot, names)):
                inner = {**names, node[1][0]: index, node[1][1]: item}
                parts.append(_run(node[3], item, inner))
    return "".join(parts)


def _value(text: str, dot: Any, names: dict[str, Any]) -> Any:
    return _call(_TOKEN.findall(text), dot, names)


def _call(tokens: list[str], dot: Any, names: dict[str, Any]) -> Any:
    values: list[Any] = []
    while tokens:
        token = tokens.pop(0)
        if token == ")":
            break
        if token == "(":
            values.append(_call(tokens, dot, names))
            if tokens and tokens[0].startswith("."):
                values[-1] = values[-1][tokens.pop(0)[1:]]
            continue
        values.append(_atom(token, dot, names))
    head, *rest = values
    return head(*rest) if callable(head) else head


def _atom(token: str, dot: Any, names: dict[str, Any]) -> Any:
    functions = {
        "eq": lambda left, right: left == right,
        "ne": lambda left, right: left != right,
        "index": lambda items, at: items[at],
        "gt": lambda left, right: left > right,
        "len": len,
        "slice": lambda items, start: items[start:],
    }
    if token in functions:
        return functions[token]
    if token.startswith('"'):
        return json.loads(token)
    if token.isdigit():
        return int(token)
    if token == ".":
        return dot
    if token.startswith("."):
        for field in token[1:].split("."):
            dot = dot.get(field) if field in ("Tools", "ToolCalls") else dot[field]
        return dot
    name, _, field = token.partition(".")
    value = names["variables"][name] if name in names["variables"] else names[name]
    return value[field] if field else value


def _text(value: Any) -> str:
    """Write a value; what Ollama has a type for, it writes as JSON."""
    return json.dumps(value) if isinstance(value, dict) else str(value)
