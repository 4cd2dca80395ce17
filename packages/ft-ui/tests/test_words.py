"""The words of the pages: both languages say everything."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import ft_ui
from ft_ui.words import LANGUAGES, words_in

SOURCES = sorted(Path(ft_ui.__file__).parent.rglob("*.py"))


def keys_used() -> set[str]:
    """Return every text like ``screen.word`` in the sources that is a whole string."""
    texts = {
        node.value
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    screens = {key.partition(".")[0] for key in words_in("en").entries}
    return {t for t in texts if re.fullmatch(rf"({'|'.join(screens)})\.[a-z_]+", t)}


def test_both_languages_have_the_same_sentences_and_places() -> None:
    english, chinese = (words_in(language).entries for language in LANGUAGES)
    assert set(english) == set(chinese)
    for key, text in english.items():
        places = r"\{(\w+)"
        assert sorted(re.findall(places, text)) == sorted(re.findall(places, chinese[key])), key
        assert text.strip() and chinese[key].strip()


def test_every_sentence_a_page_asks_for_is_there() -> None:
    used = keys_used()
    assert len(used) > 80
    assert used - set(words_in("en").entries) == {"job.json"}, "the only one that is a file"


def test_chinese_sentences_are_chinese() -> None:
    names = {"LoRA", "DPO", "ORPO", "SimPO", "KTO", "GiB", "Top p", "Top k"}
    chinese = words_in("zh").entries
    plain = {key for key, text in chinese.items() if not re.search(r"[\u4e00-\u9fff]", text)}
    assert {chinese[key] for key in plain} <= names


def test_an_unknown_sentence_is_an_error() -> None:
    with pytest.raises(KeyError):
        words_in("en")("no.such")
    assert words_in("en")("chat.title", name="x") == "Chat with x"


def test_help_of_flags_falls_back_to_their_own() -> None:
    assert words_in("zh").flag_help("no_such_flag", "Own help.") == "Own help."
