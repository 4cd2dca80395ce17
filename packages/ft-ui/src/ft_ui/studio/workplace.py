"""The directory the studio works in; nothing outside of it is read or written."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ft_core.errors import UsageError

OWN = ".ft-studio"
"""Where the studio keeps the output of what it started."""

ROW_FILES = (".jsonl", ".json", ".csv", ".parquet")
LARGEST_UPLOAD = 32 * 2**20
MOST_FILES = 500


@dataclass(frozen=True, slots=True)
class Workplace:
    """A directory and what may be named in it.

    Attributes:
        root: the directory, without links on its way.
    """

    root: Path

    def inside(self, name: str | Path) -> Path:
        """Return the path that a name means here.

        Raises:
            UsageError: it leads out of the directory, also by ``..`` or a link.
        """
        path = (self.root / Path(name).expanduser()).resolve()
        if not path.is_relative_to(self.root):
            raise UsageError(
                f"{name}: is outside of {self.root}; the studio was started for files in there only"
            )
        return path

    def short(self, path: str | Path) -> str:
        """Return a path as a person writes it here."""
        full = Path(path)
        return str(full.relative_to(self.root)) if full.is_relative_to(self.root) else str(full)

    def files(self, suffixes: Sequence[str] = ROW_FILES) -> list[str]:
        """Return the files of rows below the directory, leaving out what runs wrote."""
        found = [
            self.short(path)
            for path in self._walk()
            if path.suffix in suffixes and not path.name.endswith("_args.json")
        ]
        return sorted(found)[:MOST_FILES]

    def _walk(self) -> Iterator[Path]:
        for directory, below, names in os.walk(self.root):
            if "run.json" in names or "adapter_config.json" in names or "config.json" in names:
                below.clear()
                continue
            below[:] = sorted(name for name in below if not name.startswith((".", "_")))
            for name in names:
                if not name.startswith("."):
                    yield Path(directory, name)

    def take_upload(self, source: str | Path) -> str:
        """Copy an uploaded file of rows into ``uploads`` and return its name here.

        Raises:
            UsageError: it is too large or no file of rows.
        """
        file = Path(source)
        if file.suffix.lower() not in ROW_FILES:
            raise UsageError(f"{file.name}: rows come as {', '.join(ROW_FILES)}")
        if (size := file.stat().st_size) > LARGEST_UPLOAD:
            raise UsageError(
                f"{file.name}: has {size / 2**20:.0f} MiB; up to {LARGEST_UPLOAD // 2**20} MiB can be uploaded, "
                "put larger files into the directory"
            )
        stem = re.sub(r"[^\w-]+", "_", file.stem)[:80] or "rows"
        directory = self.inside("uploads")
        directory.mkdir(exist_ok=True)
        number = 0
        while (target := directory / _numbered(stem, number, file.suffix.lower())).exists():
            number += 1
        target.write_bytes(file.read_bytes())
        return self.short(target)

    def refuse_outside(self, value: str) -> None:
        """Refuse a value of a flag that names a file elsewhere.

        Raises:
            UsageError: it does.
        """
        name = value.split("::", 1)[-1].rsplit("#", 1)[0].rsplit("=", 1)[-1]
        looks = name.startswith(("/", "~")) or ".." in Path(name).parts
        if looks or (self.root / name).is_symlink() or (self.root / name).exists():
            self.inside(name)


def _numbered(stem: str, number: int, suffix: str) -> str:
    return f"{stem}{f'-{number}' if number else ''}{suffix}"
