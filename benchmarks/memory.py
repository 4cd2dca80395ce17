"""What ``ft sft --dry_run`` says a run will take beside what the run then takes.

For each case the command is asked for its estimate, and then makes ``--steps`` steps in a process of its own, whose
largest resident memory is measured. Rows are texts of about ``max_length`` tokens, so that batches are full. CPU only:
there the largest resident memory is all there is.

    python benchmarks/memory.py
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

_ESTIMATE = re.compile(r"memory +about ([\d.]+) GiB")


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of run.

    Attributes:
        sft_type: what is trained.
        max_length: tokens of a row.
        batch_size: rows of a micro-batch.
    """

    sft_type: str
    max_length: int
    batch_size: int


CASES = (
    Case("lora", 512, 4),
    Case("lora", 2048, 1),
    Case("full", 512, 4),
    Case("full", 2048, 1),
)


def main() -> None:
    """Measure each case, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model_type", default="smollm2-135m-instruct")
    parser.add_argument("--steps", type=int, default=2)
    arguments = parser.parse_args()
    table = Table(title=f"{arguments.model_type}, fp32, GiB")
    for heading in ("sft_type", "max_length", "batch_size", "estimate", "measured", "difference"):
        table.add_column(heading, justify="left" if heading == "sft_type" else "right")
    for case in CASES:
        with tempfile.TemporaryDirectory() as directory:
            estimate, measured = measure(
                case, arguments.model_type, arguments.steps, Path(directory)
            )
        table.add_row(
            case.sft_type,
            f"{case.max_length:,}",
            str(case.batch_size),
            f"{estimate:.2f}",
            f"{measured:.2f}",
            f"{estimate / measured - 1:+.0%}",
        )
    Console().print(table)


def measure(case: Case, model_type: str, steps: int, folder: Path) -> tuple[float, float]:
    """Return the estimate and the largest resident memory of a run, in GiB."""
    rows = folder / "rows.jsonl"
    write_rows(rows, case)
    command = [
        *(sys.executable, "-m", "ft_cli", "sft", "--model_type", model_type, "--dtype", "fp32"),
        *("--dataset", str(rows), "--dataset_test_ratio", "0", "--sft_type", case.sft_type),
        *("--max_length", str(case.max_length), "--batch_size", str(case.batch_size)),
        *("--truncation_strategy", "right", "--gradient_accumulation_steps", "1"),
        *("--gradient_checkpointing", "false", "--max_steps", str(steps), "--report_to", "none"),
        *("--save_strategy", "no", "--sample_answers", "0", "--output_dir", str(folder / "out")),
    ]
    said = subprocess.run([*command, "--dry_run"], capture_output=True, text=True, check=True)
    match = _ESTIMATE.search(said.stderr)
    if match is None:
        raise SystemExit(f"no estimate in what --dry_run says:\n{said.stderr[-2000:]}")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{case}: the run ended with status {status}")
    return float(match[1]), usage.ru_maxrss / 2**20


def write_rows(file: Path, case: Case) -> None:
    """Write rows that fill ``max_length``: a short question and a long answer."""
    rng = random.Random(0)
    words = ["river", "stone", "light", "garden", "winter", "paper", "music", "harbour", "summer"]
    with file.open("w", encoding="utf-8") as stream:
        for number in range(8 * case.batch_size):
            answer = " ".join(rng.choices(words, k=case.max_length))
            stream.write(json.dumps({"query": f"Tale {number}", "response": answer}) + "\n")


if __name__ == "__main__":
    main()
