"""Encoding: nothing lost, the same from one process, several, or the cache."""

from __future__ import annotations

import pickle
import shutil
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

import ft_data.encoding as encode_module
import ft_data.encoding_processes as process_module
from ft_core import DataError, Example, Message, UsageError
from ft_core.errors import Place
from ft_core.samples import Dropped, Sample, Tokens
from ft_core.templates import Template, choose_template
from ft_core.testing import tiny_tokenizer
from ft_core.tokenizer import Tokenizer
from ft_data import LazyRows, encode
from ft_data.encoded_arrays import Chunk
from ft_data.encoded_files import EncodedWriter, read_encoded
from ft_data.encoding import cache_key


@dataclass(frozen=True)
class Recipe:
    """Drops rows with "bad" in them, gives two samples for rows with "twice"."""

    name: str = "test"
    fingerprint: str = "test-1"

    def encode(self, examples: Sequence[Example], template: Template) -> list[Sample | Dropped]:
        result: list[Sample | Dropped] = []
        for row, (example, encoded) in enumerate(
            zip(examples, template.encode(examples), strict=True)
        ):
            text = example.answer or ""
            if "bad" in text:
                result.append(Dropped(row, "bad", f"row {row} is bad", example.source))
                continue
            for _ in range(2 if "twice" in text else 1):
                result.append(Sample(tuple(encoded), row, {"size": len(text) / 10}))
        return result

    def count(self, global_batch: Any) -> Any:
        raise AssertionError

    def collate(self, samples: Any) -> Any:
        raise AssertionError

    def loss(self, model: Any, batch: Any, reference: Any) -> Any:
        raise AssertionError


class Weighing(Recipe):
    """Gives weights that a 32-bit float can't hold."""

    def encode(self, examples: Sequence[Example], template: Template) -> list[Sample | Dropped]:
        return [
            item if isinstance(item, Dropped) else replace(item, sequences=_weighed(item))
            for item in super().encode(examples, template)
        ]


def _weighed(sample: Sample) -> tuple[Tokens, ...]:
    return tuple(
        Tokens(tokens.input_ids, [weight * 0.3 for weight in tokens.loss_weights])
        for tokens in sample.sequences
    )


class Forgetful(Recipe):
    """Loses the last row of every batch."""

    def encode(self, examples: Sequence[Example], template: Template) -> list[Sample | Dropped]:
        return super().encode(examples, template)[:-1]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    directory = tiny_tokenizer(tmp_path_factory.mktemp("tokenizer") / "t")
    return choose_template(
        "AUTO", Tokenizer.from_directory(directory), registered=None, prefers_record=False
    ).template


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_module, "CHUNK", 4)
    monkeypatch.setattr(encode_module, "WORTH_CACHING", 1)


def rows(count: int = 11) -> list[Example]:
    words = {3: "bad", 5: "twice", 9: "bad and twice"}
    return [
        Example(messages=(Message("user", f"q{i}"), Message("assistant", words.get(i, f"a{i}"))))
        for i in range(count)
    ]


def test_rows_keep_their_numbers_and_none_is_lost(template: Template) -> None:
    seen: list[tuple[int, int | None]] = []
    encoded = encode(rows(), Recipe(), template, progress=lambda done, of: seen.append((done, of)))
    assert [sample.row for sample in encoded.samples] == [0, 1, 2, 4, 5, 5, 6, 7, 8, 10]
    assert [item.row for item in encoded.dropped] == [3, 9]
    assert seen == [(4, 11), (8, 11), (11, 11)]
    assert encoded.drops == {"bad": 2}
    lines = "\n".join(encoded.report_lines())
    assert "11 rows gave 10 samples" in lines and "dropped 2 (bad)" in lines
    with pytest.raises(AssertionError, match="lost 1 of 4 rows"):
        encode(rows(), Forgetful(), template)


@pytest.mark.slow
def test_processes_give_the_same(template: Template, tmp_path: Path) -> None:
    """Run as a script, since other processes import the recipe by name."""
    script = tmp_path / "several.py"
    source = Path(__file__).read_text(encoding="utf-8")
    recipe = source[source.index("@dataclass(frozen=True)") : source.index("class Weighing")]
    script.write_text(
        "from __future__ import annotations\n"
        "import sys\nfrom collections.abc import Sequence\nfrom dataclasses import dataclass\n"
        "from pathlib import Path\nfrom typing import Any\n"
        "from ft_core import Example, Message\nfrom ft_core.samples import Dropped, Sample\n"
        "from ft_core.templates import Template, choose_template\n"
        "from ft_core.tokenizer import Tokenizer\nfrom ft_data import encode\n\n\n"
        + recipe
        + "if __name__ == '__main__':\n"
        "    template = choose_template('AUTO', Tokenizer.from_directory(Path(sys.argv[1])),\n"
        "        registered=None, prefers_record=False).template\n"
        "    rows = [Example(messages=(Message('user', str(i)), Message('assistant', 'twice' * (i % 3))))\n"
        "        for i in range(1500) if i % 3]\n"
        "    assert encode(rows, Recipe(), template, num_proc=2) == encode(rows, Recipe(), template)\n"
    )
    directory = template.tokenizer.directory
    done = subprocess.run(
        [sys.executable, script, directory], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_what_cannot_be_sent_to_a_process_is_named(template: Template) -> None:
    @dataclass(frozen=True)
    class Local(Recipe):
        pass

    with pytest.raises(UsageError, match=r"--preprocess_num_proc 2: .*Local.*num_proc 1"):
        encode(rows(), Local(), template, num_proc=2)


def test_the_cache_gives_the_same_and_notices_changes(template: Template, tmp_path: Path) -> None:
    first = encode(rows(), Recipe(), template, cache_dir=tmp_path)
    again = encode(rows(), Recipe(), template, cache_dir=tmp_path)
    assert not first.cached and again.cached
    assert first.path == again.path and first.path is not None
    assert replace(again, cached=False) == first
    assert first.samples == encode(rows(), Recipe(), template).samples
    changed = rows()
    changed[0] = changed[0].with_system("new")
    assert not encode(changed, Recipe(), template, cache_dir=tmp_path).cached
    other = Recipe(fingerprint="test-2")
    assert cache_key(rows(), other, template) != cache_key(rows(), Recipe(), template)


def test_the_cache_keeps_weights_exactly(template: Template, tmp_path: Path) -> None:
    first = encode(rows(), Weighing(), template, cache_dir=tmp_path)
    again = encode(rows(), Weighing(), template, cache_dir=tmp_path)
    assert again.cached and again.samples == first.samples
    assert 0.3 in first.samples[0].sequences[0].loss_weights


def test_few_rows_are_not_cached(
    template: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode_module, "WORTH_CACHING", 12)
    encode(rows(11), Recipe(), template, cache_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert encode(rows(11), Recipe(), template, cache_dir=tmp_path, keep=True).path is not None
    assert encode(rows(11), Recipe(), template, cache_dir=tmp_path).cached
    assert encode(rows(12), Recipe(), template, cache_dir=tmp_path).path is not None


def test_a_cut_off_cache_is_ignored_and_replaced(template: Template, tmp_path: Path) -> None:
    first = encode(rows(), Recipe(), template, cache_dir=tmp_path)
    assert first.path is not None
    expected = list(first.samples)
    for file in sorted(first.path.iterdir()):
        if not file.stat().st_size:  # no row has media
            continue
        file.write_bytes(file.read_bytes()[:-1])
        again = encode(rows(), Recipe(), template, cache_dir=tmp_path)
        assert not again.cached and list(again.samples) == expected, file.name
        assert encode(rows(), Recipe(), template, cache_dir=tmp_path).cached


def test_no_wrong_byte_gives_other_samples_or_an_error(tmp_path: Path) -> None:
    source = Place("rows.jsonl", 3)
    samples = [
        Sample((Tokens([1, 2], [0.0, 1.0]),), 0, {"size": 0.1}),
        Sample((Tokens([3], [0.0]), Tokens([4, 5], [0.0, 0.3])), 1),
        Sample((Tokens([6, 7], [0.0, 0.3]),), 3, {"label": 1.0, "size": 2.0}),
    ]
    dropped = (Dropped(2, "bad", "why", source), Dropped(4, "bad", "no place"))
    target = tmp_path / "rows"
    with EncodedWriter(target) as writer:
        writer.add(Chunk.of([*samples[:2], dropped[0]]), 3)
        writer.add(Chunk.of([replace(samples[2], row=0), replace(dropped[1], row=1)]), 2)
        assert not target.exists()
        writer.finish()
    whole = read_encoded(target)
    assert whole is not None and whole.rows == 5
    assert list(whole.samples) == samples and whole.dropped == dropped
    assert whole.samples.lengths.tolist() == [2, 3, 2] and whole.samples.trained.tolist() == [
        1,
        1,
        1,
    ]
    assert list(pickle.loads(pickle.dumps(whole.samples))) == samples
    for file in target.iterdir():
        intact = file.read_bytes()
        for position in range(len(intact)):
            damaged = bytearray(intact)
            damaged[position] ^= 0xFF
            file.write_bytes(damaged)
            assert read_encoded(target) is None, (file.name, position)
        file.write_bytes(intact)
    assert read_encoded(target) == whole


def test_a_killed_process_leaves_nothing_that_is_read(template: Template, tmp_path: Path) -> None:
    """What is written is looked at after every chunk, as if the process ended there."""
    seen: list[bool] = []

    def look(done: int, total: int | None) -> None:
        (partial,) = tmp_path.glob(".*.partial")
        copy = tmp_path / "copies" / str(done)
        shutil.copytree(partial, copy)
        seen.append(read_encoded(copy) is None)

    first = encode(rows(), Recipe(), template, cache_dir=tmp_path, progress=look)
    assert seen == [True, True, True] and first.path is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [first.path.name, f"{first.path.name}.lock", "copies"]
    )
    shutil.move(first.path, first.path.with_name(f".{first.path.name}.partial"))
    (tmp_path / f".{first.path.name}.partial" / "facts.json").unlink()
    assert not encode(rows(), Recipe(), template, cache_dir=tmp_path).cached
    assert encode(rows(), Recipe(), template, cache_dir=tmp_path).cached
    assert not list(tmp_path.glob(".*.partial"))


@pytest.mark.slow
def test_a_process_killed_while_it_encodes(template: Template, tmp_path: Path) -> None:
    script = tmp_path / "killed.py"
    script.write_text(
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from ft_core import Example, Message\nfrom ft_core.loss_scale import LossPolicy\n"
        "from ft_core.next_tokens import NextTokenEncoder\n"
        "from ft_core.templates import choose_template\nfrom ft_core.tokenizer import Tokenizer\n"
        "from ft_data import encode\n\n"
        "def kill(done, total):\n"
        "    if sys.argv[3] == 'kill' and done > 1000:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n\n"
        "template = choose_template('AUTO', Tokenizer.from_directory(Path(sys.argv[1])),\n"
        "    registered=None, prefers_record=False).template\n"
        "rows = [Example(messages=(Message('user', str(i)), Message('assistant', str(i))))\n"
        "    for i in range(2000)]\n"
        "encoded = encode(rows, NextTokenEncoder('sft', 64, 'delete'), template,\n"
        "    cache_dir=Path(sys.argv[2]), progress=kill)\n"
        "print(encoded.cached, len(encoded.samples))\n"
    )
    words = [sys.executable, script, template.tokenizer.directory, tmp_path / "cache"]
    assert subprocess.run([*words, "kill"], check=False).returncode == -signal.SIGKILL
    left = [path.name for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    assert len(left) == 1 and left[0].startswith(".")
    for expected in ("False 2000", "True 2000"):
        done = subprocess.run([*words, "go"], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected
    assert not list((tmp_path / "cache").glob(".*"))


def test_processes_that_want_the_same_rows_encode_them_once(
    template: Template, tmp_path: Path
) -> None:
    class Counting(Recipe):
        batches = 0

        def encode(self, examples: Sequence[Example], template: Template) -> Any:
            Counting.batches += 1
            return super().encode(examples, template)

    said: list[str] = []
    done: list[bool] = []

    def second() -> None:
        other = encode(rows(), Counting(), template, cache_dir=tmp_path, say=said.append)
        done.append(other.cached)

    thread = threading.Thread(target=second)

    def start(count: int, total: int | None) -> None:
        if count == 4:
            thread.start()

    assert not encode(rows(), Counting(), template, cache_dir=tmp_path, progress=start).cached
    thread.join()
    assert done == [True] and Counting.batches == 3


def test_rows_without_a_length_and_memory_that_stays_flat(template: Template) -> None:
    class Endless:
        """Rows that are made when they are asked for; at most a few chunks of them live at once."""

        living: ClassVar[weakref.WeakSet[Any]] = weakref.WeakSet()
        most = 0

        def __iter__(self) -> Iterator[Example]:
            for number in range(60):
                marker = _Marker(number)
                self.living.add(marker)
                Endless.most = max(self.most, len(self.living))
                yield Example(
                    messages=(Message("user", "q"), Message("assistant", f"a{number}")),
                    aside={"marker": marker},
                )

    seen: list[int | None] = []
    encoded = encode(Endless(), Recipe(), template, progress=lambda done, of: seen.append(of))
    assert len(encoded.samples) == 60 and set(seen) == {None}
    assert Endless.most <= 12


class _Marker:
    def __init__(self, number: int) -> None:
        self.number = number


def test_samples_as_plain_dicts(template: Template) -> None:
    encoded = encode(rows(3), Recipe(), template)
    first, *_ = encoded.dicts()
    sample = encoded.samples[0]
    assert first["input_ids"] == sample.sequences[0].input_ids and first["row"] == 0
    assert first["size"] == sample.values["size"]
    learned = [label for label in first["labels"] if label != -100]
    assert len(learned) == sample.sequences[0].trained > 0
    assert encoded.samples[-1] == encoded.samples[2] and len(encoded.samples[1:]) == 2
    with pytest.raises(IndexError):
        encoded.samples[3]


def test_a_cache_that_cannot_be_written_is_no_error(template: Template) -> None:
    assert encode(rows(), Recipe(), template, cache_dir=Path("/dev/null/x")).samples


def test_no_sample_at_all_says_why(template: Template) -> None:
    bad = [Example(messages=(Message("user", "q"), Message("assistant", "bad")))] * 3
    with pytest.raises(DataError, match=r"3 × bad.*row 0 is bad"):
        encode(bad, Recipe(), template)
    assert encode([], Recipe(), template).rows == 0


def test_lazy_rows(template: Template) -> None:
    lazy = LazyRows(rows(), Recipe(), template)
    eager = encode(rows(), Recipe(), template)
    assert len(lazy) == 11
    assert [item for row in lazy for item in row if isinstance(item, Sample)] == list(eager.samples)
    (dropped,) = lazy[3]
    assert isinstance(dropped, Dropped) and dropped.row == 3
    assert lazy[-1] == lazy[10] and lazy[-1][0].row == 10
    with pytest.raises(IndexError):
        lazy[11]
    assert isinstance(lazy[5][1], Sample) and lazy[4:6] == [lazy[4], lazy[5]]
    assert isinstance(lazy[0][0].sequences[0], Tokens)  # type: ignore[union-attr]
