"""What ends a run against its will, and what is kept of it: losses that are no numbers, memory that ran out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ft_core.errors import FtError
from ft_core.runs import write_json
from ft_core.samples import Sample

NameRow = Callable[[int], str]
"""Says where a row is, by its index: ``rows.jsonl:12``."""

_SHOWN = 5


def not_a_number(
    what: str,
    step: int,
    samples: Sequence[Sample],
    run_directory: Path,
    *,
    name_row: NameRow | None = None,
    last_checkpoint: Path | None = None,
) -> FtError:
    """Save the rows that a loss or gradient came from, and return the error that names them.

    Args:
        what: what became of what: ``the loss became nan``.
        step: the optimizer step, counted from 1.
        samples: of the micro-batch, or of the whole step.
        run_directory: gets ``nan-step-<step>.json`` with the rows' tokens and weights.
        name_row: says where a row is; without it rows are named by number.
        last_checkpoint: that training can go on from.
    """
    name = name_row or (lambda row: f"row {row}")
    file = run_directory / f"nan-step-{step}.json"
    content = [
        {
            "row": sample.row,
            "place": name(sample.row),
            "sequences": [
                {
                    "input_ids": list(sequence.input_ids),
                    "loss_weights": list(sequence.loss_weights),
                }
                for sequence in sample.sequences
            ],
            "values": dict(sample.values),
        }
        for sample in samples
    ]
    write_json(file, {"step": step, "what": what, "rows": content})
    places = list(dict.fromkeys(name(sample.row) for sample in samples))
    shown = ", ".join(places[:_SHOWN])
    if len(places) > _SHOWN:
        shown += f" and {len(places) - _SHOWN} more"
    last = f"; the last checkpoint is {last_checkpoint}" if last_checkpoint else ""
    return FtError(
        f"{what} in step {step} ({shown}), so training can't go on. The batch is saved in {file}. Try a lower "
        f"--learning_rate, --dtype fp32, or leave these rows out{last}"
    )
