"""``ft preview``: rendered rows with the trained tokens marked."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from ft_cli.recipes import build_recipe
from ft_core.arguments import (
    LossArguments,
    ModelArguments,
    TemplateArguments,
    VocabularyArguments,
)
from ft_core.command import ArgumentGroup, Command, Invocation, flag
from ft_core.errors import DataError, UsageError
from ft_core.prepare import prepare, to_stderr
from ft_core.samples import Sample
from ft_data.arguments import DataArguments

if TYPE_CHECKING:
    from ft_data.load import Rows

_NO_EFFECT = frozenset(
    {
        *("val_dataset", "custom_val_dataset_path", "dataset_test_ratio"),
        *("train_dataset_sample", "val_dataset_sample"),
    }
)
"""Flags that say which rows are trained or evaluated on."""


class PreviewArguments(ArgumentGroup):
    """How rows are shown."""

    title: ClassVar[str] = "preview"

    recipe: Literal["sft", "pt"] = "sft"
    """The recipe whose samples are shown."""

    limit: int = flag(10, ge=1)
    """Show at most this many rows."""

    html: str | None = None
    """Write a page to this file instead of printing."""

    json_lines: bool = flag(False, aliases=("json",))
    """Print one JSON object a sample: text, input_ids, tokens, loss_weights."""

    raw: bool = False
    """Print rows as they were read instead: what was taken from each, and the columns that were left aside."""


def run(invocation: Invocation) -> None:
    """Load, render and encode a few rows, and show them."""
    import ft_data
    from ft_data.commands import show_raw

    shown = invocation.get(PreviewArguments)
    if not invocation.get(DataArguments).sources():
        raise UsageError("ft preview needs rows: give --dataset with a file, such as rows.jsonl#3")
    for name in sorted(_NO_EFFECT & invocation.set_by_a_person):
        to_stderr(f"--{name} has no effect on previews, which show rows of --dataset as they come")
    if shown.raw:
        show_raw(_load(invocation).examples[: shown.limit])
        return
    recipe = build_recipe(shown.recipe, invocation)
    prepared = prepare(
        invocation.get(ModelArguments),
        invocation.get(TemplateArguments),
        new_tokens=invocation.get(VocabularyArguments).tokens(),
        given=invocation.set_by_a_person,
        weights=False,
    )
    template = prepared.chosen.template
    to_stderr(f"template   {template.name} ({prepared.chosen.reason})")
    encoded = recipe.encode(_load(invocation).examples[: shown.limit], template)
    for item in encoded:
        if not isinstance(item, Sample):
            to_stderr(f"dropped ({item.reason}): {item.detail}")
    previews = [
        ft_data.preview_row(tokens, template.tokenizer)
        for item in encoded
        if isinstance(item, Sample)
        for tokens in item.sequences
    ]
    if not previews:
        raise DataError(
            "none of these rows gives a sample; the reasons are above", rule="nothing_to_learn"
        )
    ft_data.preview.show(previews, html_file=shown.html, as_json=shown.json_lines)


def _load(invocation: Invocation) -> Rows:
    """Load the rows of ``--dataset`` and report what was read."""
    import ft_data
    from ft_data.given import identity_of, register_given

    data = invocation.get(DataArguments)
    register_given(data)
    rows = ft_data.load(
        data.sources(),
        seed=data.seed_or(invocation.get(ModelArguments).seed),
        check=data.check_dataset_strategy,
        identity=identity_of(data),
    )
    for line in rows.report.lines():
        to_stderr(line)
    return rows


COMMAND = Command(
    "preview",
    "Show rendered rows with the trained tokens marked.",
    (
        ModelArguments,
        VocabularyArguments,
        TemplateArguments,
        DataArguments,
        LossArguments,
        PreviewArguments,
    ),
    run,
    epilog="ft preview --model_type smollm2-135m-instruct --dataset rows.jsonl#3 --html rows.html",
)
