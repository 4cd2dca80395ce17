"""Many rows from a file to tokens: memory and speed of ``ft data encode``, beside ``datasets.map`` row by row.

A file of ``--rows`` generated conversations is encoded by the command itself, in a process of its own, into a new
cache; what is shown is that process's time and its largest resident memory. The peer is what most training scripts do:
``datasets`` reads the file, and ``map`` calls the chat template and the tokenizer once a row, in one process and
without loss masks; it gets the first ``--peer_rows`` rows.

    python benchmarks/rows.py --rows 1000000
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

_PEER = """
import sys
from datasets import load_dataset
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(sys.argv[2])
rows = load_dataset("json", data_files=sys.argv[1], split="train", cache_dir=sys.argv[3])

def encode(row):
    messages = [{"role": "user", "content": row["query"]}, {"role": "assistant", "content": row["response"]}]
    return {"input_ids": tokenizer.apply_chat_template(messages, return_dict=False)}

done = rows.map(encode, remove_columns=rows.column_names, load_from_cache_file=False)
print(sum(len(ids) for ids in done["input_ids"]))
"""

_MODEL = """
from ft_core.arguments import ModelArguments, TemplateArguments
from ft_core.prepare import prepare
import sys

print(prepare(ModelArguments(model_type=sys.argv[1]), TemplateArguments(), weights=False).directory)
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """One process.

    Attributes:
        rows: how many it encoded.
        seconds: from its start to its end.
        cpu_seconds: of all its threads and children.
        memory_gib: the most it held at once.
    """

    rows: int
    seconds: float
    cpu_seconds: float
    memory_gib: float


def main() -> None:
    """Generate the rows, run both, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--peer_rows", type=int, default=20_000)
    parser.add_argument("--model_type", default="smollm2-135m-instruct")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        file, few = folder / "rows.jsonl", folder / "few.jsonl"
        generate(file, arguments.rows)
        generate(few, arguments.peer_rows)
        asked = [sys.executable, "-c", _MODEL, arguments.model_type]
        model = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()[-1]
        peer = [sys.executable, "-c", _PEER, str(few), model, str(folder / "datasets")]
        own = [
            *(sys.executable, "-m", "ft_cli", "data", "encode", str(file)),
            *("--model_id_or_path", model, "--dataset_test_ratio", "0"),
        ]
        environment = {"FT_CACHE": str(folder / "cache")}
        results = {
            "datasets.map": run(peer, arguments.peer_rows, {}),
            "ft data encode": run(own, arguments.rows, environment),
        }
    show(results)


def generate(file: Path, rows: int) -> None:
    """Write conversations of about fifty words, each different."""
    rng = random.Random(0)
    syllables = ["ka", "lo", "mi", "ter", "sun", "dra", "pel", "vo", "ring", "es", "tan", "qui"]
    words = ["".join(rng.choices(syllables, k=rng.randint(1, 3))) for _ in range(20_000)]
    with file.open("w", encoding="utf-8") as stream:
        for index in range(rows):
            question, answer = rng.choices(words, k=20), rng.choices(words, k=30)
            row = {"query": f"{index} {' '.join(question)}", "response": " ".join(answer)}
            stream.write(json.dumps(row) + "\n")


def run(command: list[str], rows: int, environment: dict[str, str]) -> Measured:
    """Run a process to its end and measure it alone."""
    start = time.monotonic()
    process = subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command[:5])} … ended with status {status}")
    seconds = time.monotonic() - start
    return Measured(rows, seconds, _cpu(usage), usage.ru_maxrss / 2**20)


def _cpu(usage: resource.struct_rusage) -> float:
    return usage.ru_utime + usage.ru_stime


def show(results: dict[str, Measured]) -> None:
    """Print what was measured, and the ratio of rates."""
    table = Table(title="rows of a file to tokens")
    for heading in ("", "rows", "rows/s", "rows per CPU s", "largest memory, GiB"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, item in results.items():
        table.add_row(
            name,
            f"{item.rows:,}",
            f"{item.rows / item.seconds:,.0f}",
            f"{item.rows / item.cpu_seconds:,.0f}",
            f"{item.memory_gib:.2f}",
        )
    Console().print(table)
    peer, own = results.values()
    rate = (own.rows / own.seconds) / (peer.rows / peer.seconds)
    share = (own.rows / own.cpu_seconds) / (peer.rows / peer.cpu_seconds)
    print(
        f"ft data encode is {rate:.1f} × datasets.map by rows per second, {share:.1f} × per CPU second"
    )


if __name__ == "__main__":
    main()
