"""Conversations to token ids and loss masks: ft against TRL's own preparation, in turns, on the same rows.

Each variant runs in one process of its own, ``--rounds`` times in turns, so that a busy minute hits all of
them. What is timed begins with the rows as the variant holds them (examples, a dataset, lists) and ends with its
ids and masks; the table shows the fastest round. A batch of texts gives the tokenizer's threads something to
share, a single text doesn't; ``--threads 1`` takes that away.

    python benchmarks/encode.py --rounds 3

- ``ft``: ``SftRecipe.encode`` with the model's chat template, in one batch after another of ``--batch`` rows.
- ``ft record``: the same with the ChatML record instead of Jinja.
- ``trl``: ``SFTTrainer``'s preparation of prompt-completion rows, which is how its documentation masks prompts.
- ``trl messages``: its preparation of plain messages, without any mask: everything is trained.
- ``per row``: ``apply_chat_template`` and tokenizing row by row, without masks, and nothing around it.
- ``limit``: the tokenizer's own batch on the rendered strings, and nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from turns import turns

VARIANTS = ("ft", "ft record", "trl", "trl messages", "per row", "limit")
ROWS = Path(__file__).resolve().parents[2] / "shared" / "data" / "alpaca_en_demo.json"

Rows = list[list[dict[str, str]]]


def main() -> int:
    """Prepare the rows, run the variants in turns, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=Path, default=ROWS, help="alpaca rows (JSON)")
    parser.add_argument("--model_type", default="smollm2-135m-instruct")
    parser.add_argument("--count", type=int, default=4000, help="conversations; rows are repeated")
    parser.add_argument("--batch", type=int, default=1000, help="conversations of a batch of ft")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of the tokenizer")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        run_worker(*arguments.worker)
        return 0
    if not arguments.rows.is_file():
        parser.error(f"--rows {arguments.rows}: no such file; give a JSON file of alpaca rows")
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in arguments.variants}
    with tempfile.TemporaryDirectory() as directory:
        job = Path(directory) / "job.json"
        job.write_text(json.dumps(prepare_job(arguments)))
        for _, variant in turns(arguments.variants, arguments.rounds):
            results[variant].append(run_variant(variant, job))
    show(arguments, results)
    return 0


def prepare_job(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what every variant gets: the tokenizer's directory and the conversations."""
    from ft_core.arguments import ModelArguments, TemplateArguments
    from ft_core.prepare import prepare

    prepared = prepare(ModelArguments(model_type=arguments.model_type), TemplateArguments())
    conversations: Rows = []
    for row in json.loads(arguments.rows.read_text(encoding="utf-8")):
        query = row["instruction"] + ("\n" + row["input"] if row.get("input") else "")
        if row["output"].strip():
            turns = (("user", query), ("assistant", row["output"]))
            conversations.append([{"role": role, "content": text} for role, text in turns])
    repeated = conversations * (arguments.count // len(conversations) + 1)
    return {
        "directory": str(prepared.directory),
        "rows": repeated[: arguments.count],
        "batch": arguments.batch,
        "threads": arguments.threads,
    }


def run_variant(variant: str, job: Path) -> dict[str, Any]:
    """Run one variant in a fresh process."""
    threads = json.loads(job.read_text())["threads"]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "RAYON_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(job.parent / "datasets"),
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    }
    command = [sys.executable, __file__, "--worker", variant, str(job)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"{variant} failed:\n{ended.stderr[-4000:]}")
    result: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return result


def run_worker(variant: str, job_file: str) -> None:
    """Encode in this process and print what it took."""
    job = json.loads(Path(job_file).read_text())
    prepare = {
        "ft": prepare_ft,
        "ft record": prepare_ft_record,
        "trl": prepare_trl,
        "trl messages": prepare_trl_messages,
        "per row": prepare_per_row,
        "limit": prepare_limit,
    }[variant]
    run, count = prepare(job)
    started, cpu = time.perf_counter(), time.process_time()
    encoded = run()
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    tokens, trained = count(encoded)
    print(
        json.dumps(
            {
                "seconds": seconds,
                "cpu_seconds": cpu_seconds,
                "tokens": tokens,
                "trained": trained,
            }
        )
    )


Run = tuple[Callable[[], Any], Callable[[Any], tuple[int, int]]]
"""What is timed, and what counts all and the trained tokens in its result."""


def prepare_ft(job: dict[str, Any], template_type: str = "AUTO") -> Run:
    """Return ft's encoding: rows become examples, examples samples with loss weights."""
    from ft_core.examples import Example
    from ft_core.samples import Sample
    from ft_core.templates import choose_template
    from ft_core.tokenizer import Tokenizer
    from ft_train import SftRecipe

    tokenizer = Tokenizer.from_directory(Path(job["directory"]))
    chosen = choose_template(template_type, tokenizer, registered=None, prefers_record=False)
    recipe = SftRecipe(-1)
    examples = [Example.from_json({"messages": row}) for row in job["rows"]]

    def run() -> list[Sample]:
        samples: list[Sample] = []
        for start in range(0, len(examples), job["batch"]):
            encoded = recipe.encode(examples[start : start + job["batch"]], chosen.template)
            samples += [item for item in encoded if isinstance(item, Sample)]
        return samples

    def count(samples: list[Sample]) -> tuple[int, int]:
        sequences = [sequence for sample in samples for sequence in sample.sequences]
        return sum(map(len, sequences)), sum(sequence.trained for sequence in sequences)

    return run, count


def prepare_ft_record(job: dict[str, Any]) -> Run:
    """Return ft's encoding in a record's format."""
    return prepare_ft(job, "smollm2")


def prepare_trl(job: dict[str, Any]) -> Run:
    """Return TRL's preparation of prompts and completions."""
    return _trl(job, [{"prompt": row[:-1], "completion": row[-1:]} for row in job["rows"]])


def prepare_trl_messages(job: dict[str, Any]) -> Run:
    """Return TRL's preparation of messages."""
    return _trl(job, [{"messages": row} for row in job["rows"]])


def _trl(job: dict[str, Any], rows: list[dict[str, Any]]) -> Run:
    from datasets import Dataset
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    tokenizer = AutoTokenizer.from_pretrained(job["directory"])
    # The trainer wants a model; nothing is computed with it.
    tiny = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
    )
    with tempfile.TemporaryDirectory() as directory:
        config = SFTConfig(
            output_dir=directory, max_length=None, report_to="none", use_cpu=True, bf16=False
        )
        trainer = SFTTrainer(
            LlamaForCausalLM(tiny),
            args=config,
            train_dataset=Dataset.from_list(rows[:2]),
            processing_class=tokenizer,
        )
    dataset = Dataset.from_list(rows)

    def run() -> Dataset:
        return trainer._prepare_dataset(dataset, tokenizer, config, False, None, "train")

    def count(prepared: Dataset) -> tuple[int, int]:
        columns = prepared[:]
        labels = columns.get("labels", columns["input_ids"])
        tokens = sum(map(len, columns["input_ids"]))
        return tokens, sum(sum(label != -100 for label in row) for row in labels)

    return run, count


def prepare_per_row(job: dict[str, Any]) -> Run:
    """Return the plainest loop over transformers' own function."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(job["directory"])

    def run() -> list[list[int]]:
        return [tokenizer.apply_chat_template(row, return_dict=False) for row in job["rows"]]

    return run, _count_ids


def prepare_limit(job: dict[str, Any]) -> Run:
    """Return the tokenizer's own batch, on strings that are rendered already."""
    import tokenizers
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(job["directory"])
    texts = [theirs.apply_chat_template(row, tokenize=False) for row in job["rows"]]
    tokenizer = tokenizers.Tokenizer.from_file(str(Path(job["directory"]) / "tokenizer.json"))

    def run() -> list[list[int]]:
        encoded = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encoded]

    return run, _count_ids


def _count_ids(ids: list[list[int]]) -> tuple[int, int]:
    return sum(map(len, ids)), 0


def show(arguments: argparse.Namespace, results: dict[str, list[dict[str, Any]]]) -> None:
    """Print the table."""
    best = {name: min(rounds, key=lambda item: item["seconds"]) for name, rounds in results.items()}
    title = f"{arguments.count} conversations, one process, {arguments.threads} tokenizer threads"
    table = Table(title=title)
    columns = ("variant", "rows/s", "of the limit", "ft is", "tokens", "trained tokens", "CPU s")
    for name in columns:
        table.add_column(name, justify="left" if name == "variant" else "right")
    for name, result in best.items():
        limit = best["limit"]["seconds"] if "limit" in best else None
        ours = best["ft"]["seconds"] if "ft" in best else None
        table.add_row(
            name,
            f"{arguments.count / result['seconds']:,.0f}",
            "" if limit is None else f"{limit / result['seconds']:.0%}",
            "" if ours is None else f"{result['seconds'] / ours:.2f} ×",
            f"{result['tokens']:,}",
            f"{result['trained']:,}" if result["trained"] else "",
            f"{result['cpu_seconds']:.2f}",
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    sys.exit(main())
