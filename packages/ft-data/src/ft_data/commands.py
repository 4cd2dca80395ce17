"""The commands ``ft-data preview`` and ``ft-data convert``, and what the others share with them."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ft_core.command import ArgumentGroup, Command, Invocation, flag
from ft_core.errors import DataError, ModelError, UsageError
from ft_data.arguments import CheckStrategy

if TYPE_CHECKING:
    from ft_core.examples import Example
    from ft_core.templates.template import Template
    from ft_data.load import Rows
    from ft_data.preview import Preview


class SourceArguments(ArgumentGroup):
    """The rows."""

    title: ClassVar[str] = "rows"

    dataset: list[str] = flag([], commas=True)
    """Files, registered names or hub ids, each as [HF::|MS::]name[:subset/subset][#rows]."""

    dataset_seed: int = 42
    """Seed of the sampling that #rows asks for."""

    check_dataset_strategy: CheckStrategy = "warning"
    """A row that breaks a rule: none counts it, discard and warning report each, error stops."""

    custom_dataset_info: str | dict[str, Any] | None = None
    """Data sets to register: a JSON file, or its text, of names with dataset_id, hf_dataset_id or dataset_path."""

    model_name: list[str | None] = flag([None, None])
    """The model's name for rows with {{NAME}}: in Chinese rows and in others; one value serves both."""

    model_author: list[str | None] = flag([None, None])
    """Who made the model, for rows with {{AUTHOR}}: in Chinese rows and in others; one value serves both."""


class PreviewArguments(ArgumentGroup):
    """How rows are encoded and shown."""

    title: ClassVar[str] = "preview"

    tokenizer: str | None = None
    """Directory with the tokenizer's files."""

    template_type: str = "AUTO"
    """Chat format; AUTO takes the tokenizer's own."""

    limit: int = flag(10, ge=1)
    """Show at most this many rows."""

    html: str | None = None
    """Write a page to this file instead of printing."""

    json_lines: bool = flag(False, aliases=("json",))
    """Print one JSON object a sample: text, input_ids, tokens, loss_weights."""

    raw: bool = False
    """Print rows as they were read instead: what was taken from each, and the columns that were left aside."""

    def check(self, given: frozenset[str]) -> None:
        """Refuse a page and JSON lines at once."""
        if self.html is not None and self.json_lines:
            raise UsageError("--html writes a page and --json prints JSON lines; drop one of them")
        if self.raw and self.html is not None:
            raise UsageError(
                "--raw prints rows and --html writes a page of tokens; drop one of them"
            )


class ConvertArguments(ArgumentGroup):
    """Where converted rows go."""

    title: ClassVar[str] = "convert"

    to: str | None = None
    """File for JSON lines of messages."""


def run_preview(invocation: Invocation) -> None:
    """Load, render and encode a few rows, and show them."""
    import ft_data

    arguments = invocation.get(PreviewArguments)
    if arguments.raw:
        rows = load_rows(invocation)
        _report(rows.report.lines())
        show_raw(rows.examples[: arguments.limit])
        return
    if arguments.tokenizer is None:
        raise UsageError(
            "ft-data preview needs --tokenizer with the directory of a tokenizer or model"
        )
    template = read_template(arguments.tokenizer, arguments.template_type)
    tokenizer = template.tokenizer
    rows = load_rows(invocation)
    _report(rows.report.lines())
    previews: list[Preview] = []
    for example in rows.examples[: arguments.limit]:
        try:
            (encoded,) = template.encode([example])
        except DataError as error:
            _report([f"dropped ({error.rule}): {error}"])
        else:
            previews += [ft_data.preview_row(tokens, tokenizer) for tokens in encoded]
    if not previews:
        raise DataError(
            "none of these rows can be shown; the reasons are above", rule="nothing_to_learn"
        )
    ft_data.preview.show(previews, html_file=arguments.html, as_json=arguments.json_lines)


def run_convert(invocation: Invocation) -> None:
    """Write rows of any shape as JSON lines of messages."""
    target = invocation.get(ConvertArguments).to
    if target is None:
        raise UsageError("ft-data convert needs --to with the file to write")
    if Path(target).is_dir():
        raise UsageError(f"--to {target} is a directory; name a file in it")
    rows = load_rows(invocation)
    _report(rows.report.lines())
    temporary = Path(f"{target}.partial")
    try:
        with temporary.open("w", encoding="utf-8") as stream:
            for example in rows.examples:
                stream.write(json.dumps(example.to_json(), ensure_ascii=False) + "\n")
        temporary.replace(target)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        reason = error.strerror or error
        raise DataError(f"can't be written: {reason}", path=target, rule="unwritable") from error
    print(f"{len(rows):,} rows: {target}")


def _report(lines: Iterable[str]) -> None:
    for line in lines:
        print(line, file=sys.stderr)


def show_raw(examples: Iterable[Example]) -> None:
    """Print rows as JSON lines: their place, what was taken of them, and the columns left aside."""
    for example in examples:
        row = {"source": None if example.source is None else str(example.source)}
        print(
            json.dumps(
                {**row, **example.to_json(), "aside": example.aside},
                ensure_ascii=False,
                default=str,
            )
        )


def read_template(tokenizer: str, template_type: str) -> Template:
    """Return a chat format bound to the tokenizer of a directory.

    Raises:
        ModelError: there is no such directory, or no tokenizer in it.
    """
    from ft_core.templates import choose_template
    from ft_core.tokenizer import Tokenizer

    if not Path(tokenizer).is_dir():
        raise ModelError(f"--tokenizer {tokenizer}: no such directory")
    read = Tokenizer.from_directory(Path(tokenizer))
    return choose_template(template_type, read, registered=None, prefers_record=False).template


def load_rows(invocation: Invocation, sources: list[str] | None = None) -> Rows:
    """Load the rows that ``--dataset`` names, or other sources in the same way."""
    import ft_data

    arguments = invocation.get(SourceArguments)
    if not arguments.dataset:
        raise UsageError(
            f"ft-data {invocation.command.name} needs rows: a file, a name or a hub id"
        )
    if arguments.custom_dataset_info is not None:
        ft_data.register_dataset_info(arguments.custom_dataset_info)
    return ft_data.load(
        arguments.dataset if sources is None else sources,
        seed=arguments.dataset_seed,
        check=arguments.check_dataset_strategy,
        identity=ft_data.Identity.of(arguments.model_name, arguments.model_author),
        require_answer=invocation.command.name != "convert",
    )


PREVIEW = Command(
    "preview",
    "Show rendered rows with the trained tokens marked.",
    (SourceArguments, PreviewArguments),
    run_preview,
    positional="dataset",
    elsewhere={"model_type": "ft-cli", "model_id_or_path": "ft-cli"},
)
CONVERT = Command(
    "convert",
    "Write rows of any shape as JSON lines of messages.",
    (SourceArguments, ConvertArguments),
    run_convert,
    positional="dataset",
)
