import random
from pathlib import Path

import pytest

from ft_core.errors import UsageError
from ft_data import Source, format_source, parse_source, parse_sources


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("alpaca-en", Source("alpaca-en")),
        ("alpaca-en#2000", Source("alpaca-en", count=2000)),
        ("HF::llm-wizard/alpaca-zh#5", Source("llm-wizard/alpaca-zh", "hf", count=5)),
        ("ms::a/b:default/V3_format#2000", Source("a/b", "ms", ("default", "V3_format"), 2000)),
        ("./rows.jsonl#7", Source("./rows.jsonl", count=7)),
        (r"C:\data\rows.jsonl#3", Source(r"C:\data\rows.jsonl", count=3)),
        ("D:/rows.json", Source("D:/rows.json")),
        ("a#3.jsonl#10", Source("a#3.jsonl", count=10)),
        ("a#3#", Source("a#3")),
        ("a:b:", Source("a:b")),
        ("s3://bucket/rows.jsonl#5", Source("s3://bucket/rows.jsonl", count=5)),
        ("https://host:8080/a:b/rows.json", Source("https://host:8080/a:b/rows.json")),
        ("data/*.jsonl#5", Source("data/*.jsonl", count=5)),
    ],
)
def test_parses_the_grammar(text: str, expected: Source) -> None:
    assert parse_source(text, is_file=lambda _: False) == expected
    assert parse_source(format_source(expected), is_file=lambda _: False) == expected


@pytest.mark.parametrize("text", ["", "#5", "x#0", "x#-1", "x#2k", "x#1.5", "HF::", "x:a//b"])
def test_refuses_what_makes_no_sense(text: str) -> None:
    with pytest.raises(UsageError):
        parse_source(text, is_file=lambda _: False)
    with pytest.raises(UsageError):
        parse_source(text)


def test_addresses_have_no_subsets() -> None:
    with pytest.raises(UsageError, match="an address has no subsets"):
        Source("s3://bucket/rows", subsets=("a",))


def test_parse_and_format_are_inverse() -> None:
    rng = random.Random(0)
    alphabet = "ab:#,/\\.1209-HFMSk% é"
    seen = 0
    for _ in range(20_000):
        name = rng.choice(["", "", "", "s3://", "C:\\", "HF::"]) + "".join(
            rng.choices(alphabet, k=rng.randint(1, 9))
        )
        subsets = tuple(
            "".join(rng.choices("ab#1.-", k=rng.randint(1, 4)))
            for _ in range(0 if "://" in name else rng.choice([0, 0, 1, 2]))
        )
        source = Source(
            name,
            rng.choice([None, "hf", "ms"]),
            subsets,
            rng.choice([None, None, 1, 99]),
        )
        text = format_source(source)
        assert parse_source(text, is_file=lambda _: False) == source, text
        seen += 1
    assert seen == 20_000


def test_formatting_what_was_parsed_parses_alike() -> None:
    rng = random.Random(1)
    for _ in range(5_000):
        text = "".join(rng.choices("ab:#/1HF:: C\\", k=rng.randint(1, 12)))
        try:
            source = parse_source(text, is_file=lambda _: False)
        except UsageError:
            continue
        assert parse_source(format_source(source), is_file=lambda _: False) == source


def test_existing_files_win_over_the_grammar(tmp_path: Path) -> None:
    for name in ("rows#3", "a,b.jsonl", "x:y.json", "plain.json"):
        (tmp_path / name).write_text("{}")
    at = f"{tmp_path}/"
    assert parse_source(f"{at}rows#3") == Source(f"{at}rows#3")
    assert parse_source(f"{at}rows#3#2") == Source(f"{at}rows#3", count=2)
    assert parse_source(f"{at}x:y.json#4") == Source(f"{at}x:y.json", count=4)
    for name in ("v:2", "rows#4"):
        (tmp_path / name).mkdir()
    assert parse_source(f"{at}v:2") == Source(f"{at}v:2")
    assert parse_source(f"{at}rows#4#1") == Source(f"{at}rows#4", count=1)
    expected = [Source("one"), Source(f"{at}a,b.jsonl", count=9), Source(f"{at}plain.json")]
    assert parse_sources([f"one,{at}a,b.jsonl#9,{at}plain.json"]) == expected
    assert parse_sources(["one", f"{at}a", "b.jsonl#9", f"{at}plain.json"]) == expected


def test_commas_and_spaces_separate_items() -> None:
    assert parse_sources(["alpaca-en#2,alpaca-zh", " x "]) == [
        Source("alpaca-en", count=2),
        Source("alpaca-zh"),
        Source("x"),
    ]
