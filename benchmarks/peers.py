"""``ft sft`` against ms-swift and LLaMA-Factory: the same rows, model and settings, each by its own command.

Every tool trains one epoch of the same alpaca rows (so all see the same rows, each in its own order) in float32 on
the CPU, with rank-8 adapters on all linear layers or all weights. Tools run in turns, ``--rounds`` times, each in
its own environment, which ``make bench-peers`` makes. "documented" is a tool as its documentation sets this work
up; "tuned" adds the settings that help it on a CPU. Steps are timed by each tool's own log (``train_runtime``, and
ft's ``train_time``); "whole s" is the command from start to end.

    make bench-peers
    python benchmarks/peers.py --peers /path/with/swift-and-factory-environments --rows_used 48
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from turns import turns

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "alpaca_en_demo.json"


@dataclass(frozen=True, slots=True)
class Work:
    """What every tool does.

    Attributes:
        model: directory of the model.
        rows: file of the rows.
        method: ``lora`` or ``full``.
        batch_size: rows of a step.
        max_length: tokens at which rows are cut.
        threads: of torch.
        peers: directory with an environment for each peer.
    """

    model: Path
    rows: Path
    method: str
    batch_size: int
    max_length: int
    threads: int
    peers: Path


@dataclass(frozen=True, slots=True)
class Result:
    """What one run took.

    Attributes:
        seconds: of its training steps.
        whole: seconds of the command.
        peak_gib: memory of its process, or of the largest process it waited for.
        loss: mean of the last quarter of the steps.
    """

    seconds: float
    whole: float
    peak_gib: float
    loss: float


def ft(work: Work, output: Path, *, tuned: bool) -> list[str]:
    """Return the command of ft; it needs no tuning."""
    return [
        *(sys.executable, "-m", "ft_cli", "sft", "--model_id_or_path", str(work.model)),
        *("--dataset", str(work.rows), "--dtype", "fp32", "--sft_type", work.method),
        *("--target_modules", "ALL", "--lora_rank", "8", "--lora_alpha", "32"),
        *("--lora_dropout", "0.05", "--batch_size", str(work.batch_size)),
        *("--gradient_accumulation_steps", "1", "--learning_rate", "1e-4"),
        *("--lr_scheduler_type", "constant", "--max_length", str(work.max_length)),
        *("--dataset_test_ratio", "0", "--save_strategy", "no", "--sample_answers", "0"),
        *("--report_to", "none", "--add_output_dir_suffix", "false", "--logging_steps", "1"),
        *("--output_dir", str(output), "--gradient_checkpointing", "false"),
    ]


def swift(work: Work, output: Path, *, tuned: bool) -> list[str]:
    """Return the command of ms-swift."""
    return [
        *(str(work.peers / "swift/bin/swift"), "sft", "--model", str(work.model)),
        *("--model_type", "llama", "--template", "chatml", "--dataset", str(work.rows)),
        *("--tuner_type", work.method, "--torch_dtype", "float32", "--lora_rank", "8"),
        *("--lora_alpha", "32", "--lora_dropout", "0.05", "--target_modules", "all-linear"),
        *("--per_device_train_batch_size", str(work.batch_size), "--num_train_epochs", "1"),
        *("--gradient_accumulation_steps", "1", "--learning_rate", "1e-4"),
        *("--lr_scheduler_type", "constant", "--max_length", str(work.max_length)),
        *("--split_dataset_ratio", "0", "--save_strategy", "no", "--report_to", "none"),
        *("--logging_steps", "1", "--output_dir", str(output), "--add_version", "false"),
        *(("--gradient_checkpointing", "false", "--attn_impl", "sdpa") if tuned else ()),
    ]


def factory(work: Work, output: Path, *, tuned: bool) -> list[str]:
    """Return the command of LLaMA-Factory, which reads a directory of data sets and a file of settings."""
    output.mkdir(parents=True, exist_ok=True)
    columns = {"file_name": str(work.rows)}
    (output / "dataset_info.json").write_text(json.dumps({"rows": columns}))
    settings: dict[str, Any] = {
        "model_name_or_path": str(work.model),
        "stage": "sft",
        "do_train": True,
        "finetuning_type": work.method,
        "template": "chatml",
        "dataset": "rows",
        "dataset_dir": str(output),
        "cutoff_len": work.max_length,
        "per_device_train_batch_size": work.batch_size,
        "gradient_accumulation_steps": 1,
        "num_train_epochs": 1,
        "learning_rate": 1e-4,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "output_dir": str(output / "run"),
        "use_cpu": True,
        "bf16": False,
        "fp16": False,
    }
    if work.method == "lora":
        settings |= {"lora_rank": 8, "lora_alpha": 32, "lora_dropout": 0.05, "lora_target": "all"}
    if tuned:
        settings |= {"disable_gradient_checkpointing": True, "flash_attn": "sdpa"}
    file = output / "settings.yaml"
    file.write_text(json.dumps(settings))  # which is YAML; its reader of JSON is broken
    return [str(work.peers / "factory/bin/llamafactory-cli"), "train", str(file)]


TOOLS: dict[str, tuple[Callable[..., list[str]], bool]] = {
    "ft": (ft, False),
    "ms-swift documented": (swift, False),
    "ms-swift tuned": (swift, True),
    "LLaMA-Factory documented": (factory, False),
    "LLaMA-Factory tuned": (factory, True),
}


def main() -> None:
    """Run the tools in turns and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--peers", type=Path, default=Path.home() / ".cache/ft/peers")
    parser.add_argument("--rows", type=Path, default=DATA, help="alpaca rows (JSON)")
    parser.add_argument("--rows_used", type=int, default=64)
    parser.add_argument("--method", choices=("lora", "full"), default="lora")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--max_length", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS))
    arguments = parser.parse_args()
    results: dict[str, list[Result]] = {name: [] for name in arguments.tools}
    with tempfile.TemporaryDirectory() as directory:
        rows = Path(directory) / "rows.json"
        found = json.loads(arguments.rows.read_text(encoding="utf-8"))
        chosen = [row for row in found if row["output"].strip()][: arguments.rows_used]
        rows.write_text(json.dumps(chosen))
        work = Work(
            *(model_directory(), rows, arguments.method, arguments.batch_size),
            *(arguments.max_length, arguments.threads, arguments.peers),
        )
        trained = trained_tokens(work, chosen)
        for number, name in turns(arguments.tools, arguments.rounds):
            result = measure(name, work, Path(directory) / f"{number}-{name.replace(' ', '-')}")
            results[name].append(result)
            print(f"round {number}: {name}: {result}", file=sys.stderr)
    show(work, trained, results)


def model_directory() -> Path:
    """Return the directory of the model that every tool loads."""
    from ft_core.arguments import ModelArguments, TemplateArguments
    from ft_core.prepare import prepare

    model = ModelArguments(model_type="smollm2-135m-instruct")
    return Path(prepare(model, TemplateArguments()).directory)


def trained_tokens(work: Work, rows: list[dict[str, str]]) -> int:
    """Count the tokens of the answers, each with its end, which every tool trains."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(work.model / "tokenizer.json"))
    return sum(len(tokenizer.encode(row["output"]).ids) + 1 for row in rows)


def measure(name: str, work: Work, output: Path) -> Result:
    """Run one tool and read what its log says."""
    build, tuned = TOOLS[name]
    environment = {**os.environ, "OMP_NUM_THREADS": str(work.threads), "CUDA_VISIBLE_DEVICES": ""}
    environment |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    start = time.perf_counter()
    command = build(work, output, tuned=tuned)
    with (work.rows.parent / "tool.log").open("w+") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, cwd=work.rows.parent
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        whole = time.perf_counter() - start
        if process.returncode:
            log.seek(0)
            raise SystemExit(f"{name} failed:\n{log.read()[-3000:]}")
    seconds, loss = read_log(output)
    return Result(seconds, whole, usage.ru_maxrss / 2**20, loss)


def read_log(output: Path) -> tuple[float, float]:
    """Return the seconds of training and the mean loss of the last quarter of the steps."""
    files = [*output.rglob("logging.jsonl"), *output.rglob("trainer_state.json")]
    rows: list[dict[str, Any]] = []
    for file in files[:1]:
        text = file.read_text(encoding="utf-8")
        rows = (
            json.loads(text)["log_history"]
            if file.suffix == ".json"
            else [json.loads(line) for line in text.splitlines() if line]
        )
    seconds = next(
        float(row[key]) for row in rows for key in ("train_time", "train_runtime") if key in row
    )
    losses = [float(row["loss"]) for row in rows if "loss" in row]
    last = losses[-max(1, len(losses) // 4) :]
    return seconds, sum(last) / len(last)


def show(work: Work, trained: int, results: dict[str, list[Result]]) -> None:
    """Print the fastest round of each tool, and how it compares with ft."""
    table = Table(title=f"{work.method}, {trained:,} trained tokens, {work.threads} threads")
    for column in (
        *("tool", "trained tokens/s", "ft is … × as fast", "whole s", "peak GiB"),
        "last losses",
    ):
        table.add_column(column, justify="left" if column == "tool" else "right")
    best = {name: min(rounds, key=lambda item: item.seconds) for name, rounds in results.items()}
    for name, result in best.items():
        table.add_row(
            name,
            f"{trained / result.seconds:.1f}",
            f"{result.seconds / best['ft'].seconds:.2f}" if "ft" in best else "",
            f"{result.whole:.1f}",
            f"{result.peak_gib:.2f}",
            f"{result.loss:.4f}",
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
