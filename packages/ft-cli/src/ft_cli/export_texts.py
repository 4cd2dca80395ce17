"""The rows of an export: what a quantization looks at, and what results are measured on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ft_data
from ft_core.arguments import ModelArguments
from ft_core.command import Invocation
from ft_core.errors import DataError, HubError, UsageError
from ft_core.examples import Example, Message
from ft_core.prepare import Prepared, to_stderr
from ft_core.samples import Tokens
from ft_core.templates.template import Template
from ft_data.arguments import DataArguments
from ft_data.given import identity_of, register_given
from ft_quant.calibration import Calibration, cut
from ft_quant.export_arguments import ProofArguments, QuantizeArguments
from ft_quant.methods import METHODS
from ft_quant.plan import Plan
from ft_quant.proof.measure import HeldOut, Texts

USUAL = ("alpaca-zh#10000", "alpaca-en#10000")
"""Calibration rows where none are given."""

SHIPPED = "starter-instructions"
"""Rows that come with ft-data: for the verification, and for calibration without a network."""

_HELD_OUT_ROWS = 48
_HELD_OUT_TOKENS = 512


def texts_of(invocation: Invocation, prepared: Prepared, plan: Plan) -> Texts:
    """Load, encode and cut what an export needs of rows.

    Raises:
        DataError: rows that are given can't be read, or none of them suits the chat format.
        UsageError: they don't fill a calibration text.
    """
    data, quantize = invocation.get(DataArguments), invocation.get(QuantizeArguments)
    register_given(data)
    template = prepared.chosen.template
    sources: dict[str, Any] = {}
    calibrated = "quantized" in plan.targets and METHODS[quantize.quant_method].calibrated
    texts: tuple[tuple[int, ...], ...] = ()
    shares = False
    if calibrated:
        names, rows, shares = _calibration_rows(invocation)
        encoded = _encode(rows[: -_spare(rows)] if shares else rows, template, "calibration")
        made = _cut(invocation, prepared, [row.input_ids for row in encoded])
        texts = made.texts
        count = f"{len(texts)} texts of {made.length} tokens"
        sources["calibrated on"] = f"{', '.join(names)} ({count})"
    elif data.sources():
        to_stderr("--dataset has no effect: nothing here looks at calibration rows")
    if not invocation.get(ProofArguments).verify or not set(plan.targets) - {"peft", "ollama"}:
        return Texts((), (), calibration=texts, sources=sources)
    name, held_out = _held_out(invocation, shares)
    measured = [
        HeldOut(
            list(row.input_ids)[:_HELD_OUT_TOKENS],
            [int(weight > 0) for weight in row.loss_weights][:_HELD_OUT_TOKENS],
        )
        for row in _encode(held_out, template, "held-out")
    ]
    sources["measured on"] = f"{name} ({len(measured)} rows)"
    questions = Texts(()).questions
    prompts = [_prompt(template, text) for text in questions]
    has_template = (
        prepared.tokenizer.chat_template is not None or template.name != "default-generation"
    )
    return Texts(
        measured,
        questions,
        prompts=prompts if has_template else (),
        calibration=texts,
        sources=sources,
    )


def _prompt(template: Template, question: str) -> str:
    segments = template.render_prompt([Message("user", question)])
    return "".join(segment.text for segment in segments)


def _calibration_rows(invocation: Invocation) -> tuple[tuple[str, ...], Sequence[Example], bool]:
    """Return the rows, what they are called, and whether they are those of the verification too."""
    data = invocation.get(DataArguments)
    seed = data.seed_or(invocation.get(ModelArguments).seed)
    given = tuple(data.sources())
    try:
        names = given or USUAL
        rows = _load(invocation, names)
    except HubError as error:
        if given:
            raise
        to_stderr(
            f"the usual calibration rows ({', '.join(USUAL)}) can't be had ({str(error).splitlines()[0]}); the few rows "
            "that come with ft are taken, which is less: give your own with --dataset"
        )
        return (SHIPPED,), _load(invocation, (SHIPPED,)), not data.val_sources()
    return names, ft_data.shuffle(rows, f"{seed}/calibration"), False


def _held_out(invocation: Invocation, shares: bool) -> tuple[str, Sequence[Example]]:
    data = invocation.get(DataArguments)
    if given := tuple(data.val_sources()):
        return ", ".join(given), _load(invocation, given)[:_HELD_OUT_ROWS]
    rows = _load(invocation, (SHIPPED,))
    return SHIPPED, rows[-_spare(rows) :] if shares else rows[:_HELD_OUT_ROWS]


def _spare(rows: Sequence[Example]) -> int:
    """Return how many rows are kept from the calibration."""
    return max(len(rows) // 4, 1)


def _load(invocation: Invocation, names: Sequence[str]) -> Sequence[Example]:
    data = invocation.get(DataArguments)
    loaded = ft_data.load(
        list(names),
        seed=data.seed_or(invocation.get(ModelArguments).seed),
        check=data.check_dataset_strategy,
        identity=identity_of(data),
    )
    return loaded.examples


def _encode(rows: Sequence[Example], template: Template, what: str) -> list[Tokens]:
    """Return the tokens of rows that suit the chat format."""
    encoded: list[Tokens] = []
    fault: DataError | None = None
    for row in rows:
        try:
            samples = template.encode([row])[0]
        except DataError as error:
            fault = error
            continue
        encoded += [sample for sample in samples if sample.trained]
    if not encoded:
        raise fault or UsageError(f"there are no {what} rows")
    return encoded


def _cut(invocation: Invocation, prepared: Prepared, rows: Sequence[Sequence[int]]) -> Calibration:
    from ft_quant.dtypes import read_config

    arguments = invocation.get(QuantizeArguments)
    config = read_config(prepared.directory)
    longest = (config.get("text_config") or config).get("max_position_embeddings")
    made = cut(
        rows,
        count=arguments.quant_n_samples,
        length=arguments.quant_seqlen,
        exact=invocation.given("quant_seqlen"),
        longest=longest if isinstance(longest, int) else None,
    )
    if made.note:
        to_stderr(made.note)
    return made
