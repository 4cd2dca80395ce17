"""``ft-data list``: the data sets that are known by name."""

from __future__ import annotations

from typing import ClassVar

from ft_core.command import ArgumentGroup, Command, Invocation, flag
from ft_core.errors import UsageError


class ListArguments(ArgumentGroup):
    """Which data sets are listed."""

    title: ClassVar[str] = "list"

    filter: str | None = None
    """List only data sets whose name, id or tags contain this text."""

    json_lines: bool = flag(False, aliases=("json",))
    """Print one JSON object a data set."""


def run(invocation: Invocation) -> None:
    """Print a table, or JSON lines, of the registered data sets."""
    import json

    from rich.console import Console
    from rich.table import Table

    from ft_data.registry import DATASETS

    arguments = invocation.get(ListArguments)
    wanted = (arguments.filter or "").casefold()
    found = {}
    for name in DATASETS:
        info = DATASETS.get(name)
        text = " ".join((name, info.describe(), *info.tags)).casefold()
        if wanted in text:
            found[name] = info
    if not found:
        raise UsageError(f"--filter {arguments.filter}: no data set's name, id or tags contain it")
    if arguments.json_lines:
        for name, info in found.items():
            row = {
                "name": name,
                "huggingface_id": info.huggingface_id,
                "modelscope_id": info.modelscope_id,
                "path": info.path,
                "subsets": list(info.subsets),
                "split": list(info.split),
                "tags": list(info.tags),
            }
            print(json.dumps(row, ensure_ascii=False))
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("name", "where its rows come from", "subsets", "tags"):
        table.add_column(heading)
    for name, info in found.items():
        table.add_row(name, info.describe(), ", ".join(info.subsets), ", ".join(info.tags))
    Console(soft_wrap=True).print(table)


LIST = Command(
    "list",
    "List the data sets that are known by name.",
    (ListArguments,),
    run,
    epilog="ft data list --filter math",
)
