"""Files behind addresses: on the web, and in stores."""

from __future__ import annotations

import gzip
import http.server
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from ft_core.errors import DataError, DependencyError, UsageError
from ft_data import load

ROWS = [{"query": f"q{i}", "response": f"a{i}"} for i in range(5)]


def lines(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def answers(source: str) -> list[str | None]:
    return [row.answer for row in load(source)]


def fault(address: str, rule: str, match: str) -> None:
    with pytest.raises(DataError, match=match) as caught:
        load(address)
    assert caught.value.rule == rule
    assert caught.value.place is not None
    assert caught.value.place.path == address


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_files_on_the_web(tmp_path: Path, server: str) -> None:
    pytest.importorskip("fsspec")
    pytest.importorskip("aiohttp")
    (tmp_path / "a.jsonl").write_bytes(lines(ROWS))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines(ROWS)))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "c.parquet")
    expected = [f"a{i}" for i in range(5)]
    for name in ("a.jsonl", "b.jsonl.gz", "c.parquet", "a.jsonl?download=true"):
        assert answers(f"{server}/{name}") == expected, name
    assert len(load(f"{server}/a.jsonl#3")) == 3
    fault(f"{server}/none.jsonl", "unreadable_file", "can't be read")
    with pytest.raises(DataError, match="can't be read"):
        load("http://127.0.0.1:9/a.jsonl")


def test_files_in_a_store() -> None:
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    for name, index in (("train.jsonl", 0), ("more/train.jsonl", 1), ("test.jsonl", 2)):
        store.pipe(f"/bucket/{name}", lines([ROWS[index]]))
    assert answers("memory://bucket/train.jsonl") == ["a0"]
    assert answers("memory://bucket/**/*.jsonl") == ["a1", "a2", "a0"]
    rows = load("memory://bucket")
    assert sorted(str(row.answer) for row in rows) == ["a0", "a1"]
    assert "test.jsonl" in str(rows.report)
    assert rows[0].source is not None
    assert rows[0].source.path.startswith("memory://")
    fault("memory://bucket/none.jsonl", "missing_file", "no such file")
    fault("memory://nothing", "missing_file", "no file of rows")
    store.rm("/bucket", recursive=True)


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fsspec")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(DependencyError, match=r"s3://bucket/a\.jsonl needs s3fs.*ft-data\[s3\]"):
        load("s3://bucket/a.jsonl")
    with pytest.raises(UsageError, match="no protocol"):
        load("nothing://bucket/a.jsonl")
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(DependencyError, match=r"needs fsspec.*ft-data\[remote\]"):
        load("s3://bucket/a.jsonl")
