"""``ft-data check``: what is worth a look in rows before training on them, as tables and as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, ClassVar

from ft_core.command import ArgumentGroup, Command, Invocation, flag
from ft_core.errors import UsageError
from ft_data.commands import SourceArguments, load_rows, read_template

if TYPE_CHECKING:
    from ft_core.templates.template import Template
    from ft_data.load import Rows


class CheckArguments(ArgumentGroup):
    """What rows are compared and measured with."""

    title: ClassVar[str] = "check"

    val_dataset: list[str] = flag([], commas=True)
    """Rows to evaluate on, which are looked for among the others."""

    tokenizer: str | None = None
    """Directory with a tokenizer's files, to count tokens and to know its special tokens."""

    template_type: str = "AUTO"
    """Chat format that tokens are counted in; AUTO takes the tokenizer's own."""

    max_length: int = flag(-1, ge=-1)
    """Rows of more tokens than this are named; -1 names none."""

    report: str | None = None
    """Write everything that was found, with all places, to this JSON file."""

    json_report: bool = flag(False, aliases=("json",))
    """Print everything that was found as JSON instead of tables."""

    def check(self, given: frozenset[str]) -> None:
        """Refuse what only counts with a tokenizer."""
        for name in ("max_length", "template_type"):
            if name in given and self.tokenizer is None:
                raise UsageError(
                    f"--{name} counts tokens, which needs --tokenizer with the directory of a tokenizer or model"
                )


def run(invocation: Invocation) -> None:
    """Load rows, look through them, and show what was found."""
    from rich.console import Console

    from ft_data.checks import check

    arguments = invocation.get(CheckArguments)
    template: Template | None = None
    if arguments.tokenizer is not None:
        template = read_template(arguments.tokenizer, arguments.template_type)
    rows = load_rows(invocation)
    held_out: Rows | None = None
    if arguments.val_dataset:
        held_out = load_rows(invocation, arguments.val_dataset)
    report = check(
        rows.examples,
        () if held_out is None else held_out.examples,
        template=template,
        max_length=arguments.max_length,
        loaded=rows.report,
    )
    if arguments.report is not None:
        report.write(arguments.report)
    if arguments.json_report:
        print(json.dumps(report.to_json(), ensure_ascii=False))
        return
    for line in (*rows.report.lines(), *(() if held_out is None else held_out.report.lines())):
        print(line)
    Console(soft_wrap=True).print(report.to_terminal())
    if arguments.report is not None:
        print(f"report: {arguments.report}")


CHECK = Command(
    "check",
    "Look through rows for faults.",
    (SourceArguments, CheckArguments),
    run,
    positional="dataset",
    epilog="ft data check rows.jsonl --val_dataset held_out.jsonl --report report.json",
)
