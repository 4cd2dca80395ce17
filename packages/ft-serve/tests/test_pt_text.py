"""Text as it comes: whole characters, stop strings across any border."""

from __future__ import annotations

import random

import pytest
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models

from ft_core.testing import tiny_tokenizer
from ft_core.tokenizer import Tokenizer
from ft_serve.engines.pt.detokenize import Decoder, TextStream
from ft_serve.engines.stop_strings import StopStrings

TEXTS = [
    "plain words, and more of them",
    "日本語 и русский, mixed: naïve café",
    "👩‍👩‍👧‍👦 family, 🏳️‍🌈 flag, 🇫🇷",
    "  leading  and   inner   spaces\n\n\ttabs ",
    "a replacement \N{REPLACEMENT CHARACTER} of its own",
]


class ByteFallback:
    """Decodes as SentencePiece models with byte tokens do, where a text loses its first space."""

    def __init__(self) -> None:
        words = ["▁the", "▁cat", "s", "▁", "!"]
        vocabulary = {word: i for i, word in enumerate(words)}
        self.words = len(words)
        vocabulary |= {f"<0x{byte:02X}>": self.words + byte for byte in range(256)}
        self._library = Library(models.BPE(vocabulary, [], byte_fallback=True))
        self._library.decoder = decoders.Sequence(
            [
                decoders.Replace("▁", " "),
                decoders.ByteFallback(),
                decoders.Fuse(),
                decoders.Strip(" ", 1, 0),
            ]
        )

    def encode(self, text: str) -> list[int]:
        return [self.words + byte for byte in text.encode()]

    def decode(self, ids: list[int], /, *, skip_special_tokens: bool) -> str:
        return str(self._library.decode(ids, skip_special_tokens=skip_special_tokens))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.from_directory(tiny_tokenizer(tmp_path_factory.mktemp("tokenizer")))


def _stream(decoder: Decoder, tokens: list[int]) -> list[str]:
    stream = TextStream(decoder)
    return [*(stream.push(token) for token in tokens), stream.finish()]


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_are_whole_characters_and_give_the_whole_text(
    tokenizer: Tokenizer, text: str
) -> None:
    pieces = _stream(tokenizer, tokenizer.encode(text))
    assert "".join(pieces) == text
    if "\N{REPLACEMENT CHARACTER}" not in text:
        assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


@pytest.mark.parametrize("text", TEXTS[1:3])
def test_byte_tokens_wait_for_their_character(text: str) -> None:
    decoder = ByteFallback()
    pieces = _stream(decoder, decoder.encode(text))
    assert "".join(pieces) == text
    assert max(len(piece) for piece in pieces) == 1


def test_the_space_before_a_later_word_is_kept() -> None:
    assert "".join(_stream(ByteFallback(), [0, 1, 2, 1, 4, 3, 3, 0])) == "the cats cat!   the"


def test_special_tokens_are_no_text(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode("one<|im_end|><|im_start|> two")
    assert "".join(_stream(tokenizer, tokens)) == "one two"


def test_any_bytes_give_the_text_of_all_tokens(tokenizer: Tokenizer) -> None:
    source = random.Random(0)
    for _ in range(50):
        tokens = [source.randrange(384) for _ in range(60)]
        whole = tokenizer.decode(tokens, skip_special_tokens=True)
        assert "".join(_stream(tokenizer, tokens)) == whole


def test_an_unfinished_character_comes_out_at_the_end(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode("ab😀")[:-1]
    pieces = _stream(tokenizer, tokens)
    assert "".join(pieces[:-1]) == "ab"
    assert pieces[-1] == "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    ("text", "stop", "want"),
    [
        ("say STOP now", ["STOP"], "say "),
        ("aaab", ["aab"], "a"),
        ("one two three", ["three", "two"], "one "),
        ("STO", ["STOP"], "STO"),
        ("nothing", [], "nothing"),
        ("nothing", [""], "nothing"),
        ("abcabd", ["abd"], "abc"),
        ("STOP", ["STOP"], ""),
        ("first END, then END", ["END"], "first "),
    ],
)
def test_stop_strings_in_every_division(text: str, stop: list[str], want: str) -> None:
    for size in range(1, len(text) + 1):
        stops = StopStrings(stop)
        pieces = [stops.push(text[i : i + size]) for i in range(0, len(text), size)]
        got = "".join(pieces) + stops.finish()
        assert got == want
        assert (stops.found is not None) == (want != text)


def test_only_what_may_belong_to_a_stop_string_is_held_back() -> None:
    stops = StopStrings(["\n\nUser:"])
    assert stops.push("hello\n") == "hello"
    assert stops.push("world") == "\nworld"
    assert stops.push("\n\nUse") == ""
    assert stops.push("ful") == "\n\nUseful"
