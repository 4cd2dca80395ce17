"""All checks together, as a table and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ft_core.errors import DataError
from ft_core.examples import ROLES, Example
from ft_data.checks import repeats, talks
from ft_data.checks.findings import Finding, all_text
from ft_data.checks.languages import language_of
from ft_data.checks.sizes import Histogram, extremes
from ft_data.report import LoadReport

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ft_core.loss_scale import LossPolicy
    from ft_core.templates.template import Template


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What was found in rows.

    Attributes:
        rows: how many rows there are to train on.
        validation: and to evaluate on.
        findings: what is worth a look, most frequent first.
        languages: rows by language.
        turns: turns by role.
        rounds: rows by their number of user turns.
        characters: how long rows are.
        tokens: how long they are in tokens, with a chat format.
        loaded: what became of the sources.
    """

    rows: int
    validation: int
    findings: tuple[Finding, ...]
    languages: Counter[str]
    turns: Counter[str]
    rounds: Counter[int]
    characters: Histogram
    tokens: Histogram | None = None
    loaded: LoadReport = field(default_factory=LoadReport)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON, with the places of all findings."""
        return {
            "rows": self.rows,
            "validation": self.validation,
            "sources": [
                {
                    "source": source.source,
                    "format": source.format,
                    "reason": source.reason,
                    "read": source.read,
                    "used": source.used,
                    "dropped": source.dropped,
                    "faults": [fault.detail for fault in source.faults],
                    "notes": list(source.notes),
                }
                for source in self.loaded.sources
            ],
            "findings": [finding.to_json() for finding in self.findings],
            "languages": dict(self.languages.most_common()),
            "turns": dict(self.turns),
            "rounds": {str(rounds): rows for rounds, rows in sorted(self.rounds.items())},
            "characters": self.characters.to_json(),
            "tokens": None if self.tokens is None else self.tokens.to_json(),
        }

    def write(self, path: str) -> None:
        """Write the JSON to a file.

        Raises:
            DataError: it can't be written.
        """
        text = json.dumps(self.to_json(), ensure_ascii=False, indent=1) + "\n"
        try:
            Path(path).write_text(text, encoding="utf-8")
        except OSError as error:
            reason = error.strerror or error
            raise DataError(f"can't be written: {reason}", path=path, rule="unwritable") from error

    def to_terminal(self) -> RenderableType:
        """Return numbers, histograms and findings for a rich console."""
        from rich.console import Group
        from rich.text import Text

        # Lines instead of a table: places are paths, which must not be cut to fit a column.
        findings = [line for finding in self.findings for line in ("", *finding.lines())]
        shown = findings or ["nothing else to look at"]
        return Group(*map(Text, self.lines()), *self._histograms(), *map(Text, shown))

    def lines(self) -> list[str]:
        """Return a few lines of numbers."""
        if not self.rows:
            return ["no rows"]
        sizes = self.characters
        lines = [
            f"{self.rows:,} rows; characters: {sizes.least:,} at least, {sizes.middle:,} in the middle, "
            f"{sizes.most:,} at most"
        ]
        if self.turns:
            shares = ", ".join(
                f"{number} (in {count:,})" for number, count in sorted(self.rounds.items())
            )
            lines.append("turns: " + ", ".join(f"{self.turns[role]:,} {role}" for role in ROLES))
            lines.append(f"user turns per row: {shares}")
        return lines

    def _histograms(self) -> list[RenderableType]:
        from rich.table import Table

        shown: list[RenderableType] = []
        languages = [(name, count) for name, count in self.languages.most_common()]
        counted = [("language", languages)]
        for sizes in (self.characters, self.tokens):
            if sizes is not None:
                bins = [(f"up to {bound:,}", count) for bound, count in sizes.bins]
                counted.append((sizes.unit, bins))
        for heading, rows in counted:
            if not rows:
                continue
            table = Table(box=None, pad_edge=False)
            table.add_column(heading, min_width=16)
            table.add_column("rows", justify="right")
            table.add_column("")
            most = max(count for _, count in rows)
            for name, count in rows:
                table.add_row(name, f"{count:,}", "█" * -(-count * 32 // most))
            shown.append(table)
        return shown


def check(
    examples: Sequence[Example],
    validation: Sequence[Example] = (),
    *,
    template: Template | None = None,
    policy: LossPolicy | None = None,
    max_length: int = -1,
    loaded: LoadReport | None = None,
) -> CheckReport:
    """Look through rows.

    Args:
        examples: rows to train on.
        validation: rows to evaluate on, which are looked for among those.
        template: counts tokens, and knows the special ones; without it only usual special tokens are known.
        policy: what is learned of a row, for counting tokens.
        max_length: rows of more tokens are a finding; -1 is no limit.
        loaded: what became of the sources, for the report.
    """
    findings = [
        *repeats.duplicates(examples),
        *repeats.conflicts(examples),
        *repeats.leaks(examples, validation),
        *talks.orders(examples),
        *talks.empty_turns(examples),
        *talks.answers(examples),
        *extremes(examples),
    ]
    tokens = None
    from ft_core.loss_scale import LossPolicy
    from ft_data.checks.tokens import lengths, special_texts

    findings += special_texts(examples, template)
    if template is not None:
        sizes, more = lengths(examples, template, policy or LossPolicy(), max_length)
        tokens, findings = Histogram.of("tokens", sizes), [*findings, *more]
    talked = [example for example in examples if example.messages]
    readable = [example for example in examples if example.input_ids is None]
    return CheckReport(
        len(examples),
        len(validation),
        tuple(sorted(findings, key=lambda finding: -len(finding.places))),
        Counter(language_of(all_text(example)) for example in readable),
        Counter(message.role for example in talked for message in example.messages),
        Counter(sum(m.role == "user" for m in example.messages) for example in talked),
        Histogram.of("characters", (len(all_text(example)) for example in readable)),
        tokens,
        loaded or LoadReport(),
    )


def describe(examples: Sequence[Example]) -> list[str]:
    """Return a few lines of numbers about rows."""
    return check(examples).lines()
