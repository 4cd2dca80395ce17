"""What a page shows of a conversation, and that a model's text is never HTML."""

from __future__ import annotations

import pytest
from markdown_it import MarkdownIt

from ft_ui.chat.messages import Conversation
from ft_ui.chat.shown import harmless, shown_messages, split_thought

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "text <b>bold</b>\n\n<iframe src='http://example.org'></iframe>",
    "![spy](http://example.org/pixel.png)",
    "`<i>` then <img src=x> and `unclosed <img src=y>",
    "```\n<code>\n```\n<img src=x>",
    "``` not a fence ` <img src=x>\n```\n<img src=y>\n```",
    "~~~\n```\n~~~\n<img src=x>\n```\n",
    "[![x](http://example.org/a.png)](http://example.org)",
    "    <indented>\n<img src=x>",
    "- item\n  ```\n  <x>\n  ```\n<img src=x>",
]


def elements(markdown: str) -> list[str]:
    """Return the HTML and image tokens that CommonMark sees."""
    found = []
    for token in MarkdownIt("commonmark").parse(markdown):
        found += [
            t.type
            for t in (token, *(token.children or []))
            if t.type.startswith("html") or t.type == "image"
        ]
    return found


@pytest.mark.parametrize("text", HOSTILE)
def test_a_models_text_holds_neither_html_nor_images(text: str) -> None:
    assert elements(harmless(text)) == []


def test_the_oracle_sees_html() -> None:
    assert elements(HOSTILE[1]) == ["html_block"]
    assert elements(HOSTILE[3]) == ["image"]


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "a *b* `x < y` c",
        "```python\nif a < b:\n    pass\n```",
        "1. one\n2. two",
        "a\n\n\nb",
    ],
)
def test_ordinary_text_and_code_stay_as_they_are(text: str) -> None:
    assert harmless(text) == text


def test_a_thought_is_a_message_of_its_own() -> None:
    chat = Conversation().ask("2 + 2?").append("<think>two and two")
    messages, turns = shown_messages(chat)
    assert messages[1]["metadata"] == {"title": "Thinking", "status": "pending"}
    assert messages[1]["content"] == "two and two"
    chat = chat.append("</think>\n\nFour.").finish()
    messages, turns = shown_messages(chat)
    assert [m["content"] for m in messages] == ["2 + 2?", "two and two", "Four."]
    assert messages[1]["metadata"]["status"] == "done"
    assert turns == [0, 0, 0]


def test_a_thought_is_split_from_what_is_said() -> None:
    assert split_thought("<think>a</think>b") == ("a", "b", True)
    assert split_thought("<think>a") == ("a", "", False)
    assert split_thought("b") == (None, "b", True)


def test_incomplete_answers_say_so() -> None:
    stopped = Conversation().ask("a").append("b").stop()
    assert shown_messages(stopped)[0][-1]["content"] == "b\n\n*(stopped)*"
    cut = Conversation().ask("a").append("b").finish("length")
    assert shown_messages(cut)[0][-1]["content"] == "b\n\n*(cut at the token limit)*"
