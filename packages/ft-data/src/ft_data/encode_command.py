"""``ft-data encode``: encode rows ahead of training, which then finds them in the cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from ft_core.arguments import (
    LossArguments,
    ModelArguments,
    TemplateArguments,
    VocabularyArguments,
)
from ft_core.command import ArgumentGroup, Command, Invocation, flag
from ft_core.errors import UsageError
from ft_data.arguments import DataArguments, MixArguments

if TYPE_CHECKING:
    from ft_core.next_tokens import NextTokenEncoder


class EncodeArguments(ArgumentGroup):
    """What rows are encoded for."""

    title: ClassVar[str] = "encode"

    recipe: Literal["sft", "pt"] = "sft"
    """The command that will train on them."""

    preprocess_num_proc: int = flag(1, ge=1)
    """Processes that tokenize rows."""


def run(invocation: Invocation) -> None:
    """Load rows as training does, encode them, and say where they lie."""
    import ft_data
    from ft_core.hub import cache_directory
    from ft_core.prepare import prepare, to_stderr
    from ft_data.progress import EncodingProgress

    data = invocation.get(DataArguments)
    if not data.sources():
        raise UsageError("encode needs rows: a file, a registered name or a hub id")
    encoder = encoder_of(invocation)
    model = invocation.get(ModelArguments)
    prepared = prepare(
        model,
        invocation.get(TemplateArguments),
        new_tokens=invocation.get(VocabularyArguments).tokens(),
        given=invocation.set_by_a_person,
        weights=False,
        say=to_stderr,
    )
    template = prepared.chosen.template
    to_stderr(f"template   {template.name} ({prepared.chosen.reason})")
    loaded = ft_data.load_given(data, seed=model.seed, mixing=invocation.get(MixArguments))
    for line in loaded.report.lines():
        to_stderr(line)
    for name, rows in (("train", loaded.train), ("evaluation", loaded.val)):
        if not rows:
            continue
        encoded = ft_data.encode(
            rows.examples,
            encoder,
            template,
            num_proc=invocation.get(EncodeArguments).preprocess_num_proc,
            cache_dir=cache_directory() / "encoded",
            keep=True,
            progress=EncodingProgress(),
            say=to_stderr,
        )
        for line in encoded.report_lines():
            to_stderr(line)
        if encoded.path is None:
            raise UsageError(
                f"the cache {cache_directory()} can't be written; set FT_CACHE to a directory that can"
            )
        print(f"{name}: {encoded.path}")


def encoder_of(invocation: Invocation) -> NextTokenEncoder:
    """Return what encodes rows as the recipe will."""
    from ft_core.next_tokens import NextTokenEncoder

    name = invocation.get(EncodeArguments).recipe
    template = invocation.get(TemplateArguments)
    splits = name == "pt" and not invocation.given("truncation_strategy")
    return NextTokenEncoder(
        name,
        template.max_length,
        "split" if splits else template.truncation_strategy,
        invocation.get(LossArguments).policy(),
    )


ENCODE = Command(
    "encode",
    "Encode rows ahead of training, which then finds them in the cache.",
    (
        EncodeArguments,
        ModelArguments,
        VocabularyArguments,
        TemplateArguments,
        DataArguments,
        MixArguments,
        LossArguments,
    ),
    run,
    positional="dataset",
    epilog="ft data encode rows.jsonl --model_type smollm2-135m-instruct --max_length 1024",
)
