"""Every registered data set: a few rows as its source writes them, and what is read of them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ft_core.errors import DataError
from ft_core.examples import Example
from ft_core.examples import Source as Origin
from ft_data import DATASETS, Identity, Rows, formats, load

FINCH = Identity.of(["小雀", "Finch"], ["ft项目", "the ft project"])
FIXTURES: dict[str, dict[str, Any]] = {
    name: entry
    for line in (Path(__file__).parent / "fixtures" / "datasets.jsonl")
    .read_text(encoding="utf-8")
    .splitlines()
    for entry in [json.loads(line)]
    for name in entry["datasets"]
}
ON_HUBS = [name for name in DATASETS if name != "starter-instructions"]

Read = Callable[..., Rows]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Read:
    """Return a function that loads a data set from a hub which has these rows."""

    def read_rows(name: str, rows: list[Any], **options: Any) -> Rows:
        file = tmp_path / "rows.jsonl"
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        file.write_text(text, encoding="utf-8")

        def fetch(identity: str, *, hub: str, subset: str | None, splits: tuple[str, ...]) -> Any:
            # The rows are in the first subset and split only, so that none comes twice.
            info = DATASETS.get(name)
            return {splits[0]: (file,)} if subset in (None, *info.subsets[:1]) else {}

        monkeypatch.setattr("ft_data.hub.fetch_dataset", fetch)
        hub = "HF" if DATASETS.get(name).huggingface_id else "MS"
        return load(f"{hub}::{name}", identity=FINCH, **options)

    return read_rows


def test_there_are_rows_for_every_data_set() -> None:
    assert set(FIXTURES) == set(ON_HUBS)
    assert len(ON_HUBS) == 158


@pytest.mark.parametrize("name", ON_HUBS)
def test_rows_are_read(read: Read, name: str) -> None:
    fixture = FIXTURES[name]
    rows = read(name, fixture["rows"])
    assert [row.to_json() for row in rows] == fixture["expected"]
    (report,) = rows.report.sources
    assert len(report.faults) == fixture["dropped"], str(rows.report)
    assert all(fault.place is not None for fault in report.faults)


def test_functions_of_columns_take_their_types_of_tables(read: Read) -> None:
    """Tables give tuples and numbers where text files give lists and texts."""
    from ft_data.registry import DatasetInfo

    def converted(name: str, row: dict[str, Any]) -> Any:
        info: DatasetInfo = DATASETS.get(name)
        return [made for made, _ in info.plan.apply([(row, Origin("x", 1))])]

    pairs = {"image": "1.jpg", "questions": ("q",), "answers": ("a",)}
    assert converted("ocr-vqa", pairs)[0]["messages"][1]["content"] == "a"
    assert converted("cmnli-zh", {"sentence1": "a", "sentence2": "b", "label": 2.0})
    (bad,) = converted("cmnli-zh", {"sentence1": "a", "sentence2": "b", "label": 1.5})
    assert isinstance(bad, DataError)
    assert bad.place == Origin("x", 1, "label")


def test_bytes_of_images_are_kept_in_the_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FT_CACHE", str(tmp_path))
    png = b"\x89PNG\r\n\x1a\n" + b"pixels"
    for value in ({"bytes": png, "path": "x.png"}, png, [{"bytes": png, "path": None}]):
        row = {"image": value, "question": "q", "answer": "a"}
        ((made, _),) = DATASETS.get("path-vqa").plan.apply([(row, Origin("x", 1))])
        (path,) = made["images"]
        assert Path(path).suffix == ".png"
        assert Path(path).is_relative_to(tmp_path)
        assert Path(path).read_bytes() == png
    assert len([item for item in tmp_path.rglob("*") if item.is_file()]) == 1
    for wrong in (3, {"bytes": None, "path": None}, {"other": 1}, [[]]):
        row = {"image": wrong, "question": "q", "answer": "a"}
        ((fault, _),) = DATASETS.get("path-vqa").plan.apply([(row, Origin("x", 1))])
        assert isinstance(fault, DataError)
        assert "images" in str(fault)


VALUES: list[Any] = [
    None,
    "",
    " ",
    "text",
    "[1",
    "{'a': 1}",
    "[{'role': 'user'}]",
    0,
    -1,
    1.5,
    1e400,
    10**400,
    True,
    [],
    {},
    [[]],
    [None],
    ["a", 1],
    [{"role": 1}],
    [{"from": "user", "value": None}],
    {"text": "x"},
    {"data": [{}]},
    "\n\nHuman: a\n\nAssistant: b",
    [[0, 99, 0, 0, 1, 1]],
]


def broken(rows: list[dict[str, Any]], rng: random.Random) -> Iterator[dict[str, Any]]:
    """Yield rows with columns that are missing or hold something else."""
    for row in rows:
        for name in row:
            yield {key: value for key, value in row.items() if key != name}
            for value in rng.sample(VALUES, 6):
                yield {**row, name: value}


@pytest.mark.parametrize("name", ON_HUBS)
def test_broken_rows_are_examples_or_faults(name: str) -> None:
    """Whatever a source holds, a row of it becomes an example or a fault with its place, and nothing else."""
    rng = random.Random(name)
    info = DATASETS.get(name)
    origin = Origin("rows", 7)
    for row in broken(FIXTURES[name]["rows"], rng):
        for made, place in info.plan.apply([(row, origin)]):
            assert place == origin
            if isinstance(made, DataError):
                assert made.place is not None
                assert (made.place.path, made.place.line) == ("rows", 7)
                continue
            found = formats.find(made)
            if found is None:
                continue
            try:
                example = formats.read(found.format, made, origin)
            except DataError as error:
                assert error.place is not None
            else:
                assert isinstance(example, Example)


def test_rows_that_are_no_objects_are_faults(read: Read) -> None:
    for name in ("hh-rlhf", "orca_dpo_pairs", "ms-bench", "mind2web"):
        good = FIXTURES[name]["rows"][0]
        rows = read(name, [good, "text", ["list"], 3])
        assert rows.report.sources[0].dropped == {"wrong_type": 3}


def test_known_faults_are_left_out_also_where_faults_stop(read: Read) -> None:
    good = FIXTURES["ms-bench"]["rows"][0]
    bad = {"conversations": [{"from": "narrator", "value": "x"}]}
    assert len(read("ms-bench", [good, bad], check="error")) == 1
    with pytest.raises(DataError, match=r"rows\.jsonl:2"):
        read("toolbench", [FIXTURES["toolbench"]["rows"][0], bad], check="error")


def test_no_row_that_belongs_to_the_set(read: Read) -> None:
    without = {"image": None, "question": "q", "choices": ["a"], "answer": 0}
    with pytest.raises(DataError, match="none of its rows is part"):
        read("science-qa", [without])


SPECIFICATION = Path(__file__).parents[3] / "tests" / "spec" / "datasets.json"


@pytest.mark.skipif(not SPECIFICATION.is_file(), reason="the specification is not here")
def test_ids_subsets_and_splits_are_those_of_the_specification() -> None:
    specified = json.loads(SPECIFICATION.read_text(encoding="utf-8"))
    assert set(specified) == set(ON_HUBS)
    moved = {"clue": "clue/clue", "wikipedia": "legacy-datasets/wikipedia"}
    for name, facts in specified.items():
        info = DATASETS.get(name)
        huggingface = facts["huggingface_id"]
        assert info.huggingface_id == moved.get(huggingface, huggingface), name
        assert (info.modelscope_id or "None") == (facts["modelscope_id"] or "None"), name
        assert list(info.subsets) == facts.get("subsets", []), name
        assert list(info.split) == facts.get("split", ["train"]), name
        assert info.huge == facts.get("huge", False), name
        if "columns" in facts and name not in ("text2sql-en",):
            assert info.columns == facts["columns"], name
