"""Fine-tuning of SmolLM2-135M on alpaca rows: ft against TRL's SFTTrainer, in turns, on the same rows.

Every variant trains the same tokens of the same rows in the same order, in float32 if not told otherwise: rank-8
adapters on all linear layers, or with ``--method full`` all weights. A GPU is used where there is one. Each runs in a process of its own, one after another, ``--rounds``
times, so that a busy minute hits all of them. The table shows the fastest round of each; "CPU s" is the processor
time of that round's steps, which other load on the machine changes less than the clock; "first step s" is the time
from the start of the process to the end of its first step; "of the limit" compares the operations of the steps
with what plain matrix products reach in the same process.

    python benchmarks/train.py --steps 16 --rounds 3
    python benchmarks/train.py --method full
    python benchmarks/train.py --max_length 2048 --turns 12       # conversations of 1 to 12 rounds
    python benchmarks/random_model.py /tmp/1b                     # on a GPU, with random weights
    python benchmarks/train.py --model_dir /tmp/1b --dtype bfloat16 --max_length 2048 --turns 12 --batch_size 16 \
        --repeat --steps 16 --warmup 4 --variants ft "ft liger" trl "trl tuned" "trl liger"

- ``ft``: ``ft_train.train`` with its defaults.
- ``trl``: SFTTrainer as its documentation sets it up, but for float32 and no shuffling.
- ``trl tuned``: the same without gradient checkpointing.
- ``trl padding-free``: that with ``padding_free``; on a GPU it needs a package of flash attention.
- ``ft liger``, ``trl liger``: with Liger's kernels, TRL without checkpointing; both need a GPU.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table
from transformers import TrainerCallback
from turns import run_in_process, turns

VARIANTS = ("ft", "trl", "trl tuned", "trl padding-free")
LIGER = ("ft liger", "trl liger")
ROWS = Path(__file__).resolve().parents[2] / "shared" / "data" / "alpaca_en_demo.json"
LORA = {"r": 8, "lora_alpha": 32, "lora_dropout": 0.05}
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
RATE = 1e-4


@dataclass(frozen=True, slots=True)
class Job:
    """What every variant does.

    Attributes:
        model: directory of the model.
        method: ``lora`` or ``full``.
        samples: ``(input_ids, loss_weights)`` of the rows, in the order in which they are trained.
        batch_size: rows of a step.
        steps: optimizer steps.
        warmup: the first steps, which aren't timed.
        threads: of torch.
        dtype: of the weights, as torch names it.
    """

    model: str
    method: str
    samples: list[tuple[list[int], list[float]]]
    batch_size: int
    steps: int
    warmup: int
    threads: int
    dtype: str

    def timed(self) -> list[tuple[list[int], list[float]]]:
        """Return the samples of the timed steps."""
        return self.samples[self.warmup * self.batch_size :]


def main() -> int:
    """Prepare the rows, run the variants in turns, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=Path, default=ROWS, help="alpaca rows (JSON)")
    add_model_arguments(parser)
    parser.add_argument("--method", choices=("lora", "full"), default="lora")
    parser.add_argument("--max_length", type=int, default=512)
    parser.add_argument(
        "--turns", type=int, default=1, help="rows joined to a conversation, at most"
    )
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS + LIGER, default=list(VARIANTS))
    parser.add_argument("--json", type=Path, help="write all rounds here")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        run_worker(*arguments.worker)
        return 0
    if not arguments.rows.is_file():
        parser.error(f"--rows {arguments.rows}: no such file; give a JSON file of alpaca rows")
    job = prepare_job(arguments)
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in arguments.variants}
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "job.json"
        file.write_text(json.dumps({name: getattr(job, name) for name in Job.__slots__}))
        for number, variant in turns(arguments.variants, arguments.rounds):
            result = run_in_process(__file__, variant, file, OMP_NUM_THREADS=str(job.threads))
            results[variant].append(result)
            speed = result["trained_tokens"] / result["seconds"]
            print(f"round {number}: {variant}: {speed:.0f} trained tokens/s", file=sys.stderr)
    show(job, results)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2))
    return 0


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what says which model is trained, and how long before the clock runs."""
    parser.add_argument("--model_type", default="smollm2-135m-instruct")
    parser.add_argument("--model_dir", help="directory of a model, instead of --model_type")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--warmup", type=int, default=0, help="first steps, which aren't timed")
    parser.add_argument("--repeat", action="store_true", help="rows may come again")


def prepare_job(arguments: argparse.Namespace) -> Job:
    """Encode as many rows as the steps need, with ft's template, and put them in ft's order."""
    from ft_core.arguments import ModelArguments, TemplateArguments
    from ft_core.examples import Example, Message
    from ft_core.prepare import prepare
    from ft_core.samples import Sample
    from ft_train import SftRecipe
    from ft_train.order import BatchOrder

    given = (
        {"model_id_or_path": arguments.model_dir}
        if arguments.model_dir
        else {"model_type": arguments.model_type}
    )
    prepared = prepare(ModelArguments(**given), TemplateArguments())
    wanted = arguments.steps * arguments.batch_size
    examples = [
        Example(tuple(Message(role, text) for role, text in turns))
        for turns in conversations(arguments.rows, arguments.turns)
    ]
    encoded = SftRecipe(arguments.max_length).encode(examples, prepared.chosen.template)
    samples = [item.sequences[0] for item in encoded if isinstance(item, Sample)]
    if arguments.repeat:
        samples *= math.ceil(wanted / len(samples))
    samples = samples[:wanted]
    if len(samples) < wanted:
        raise SystemExit(f"{arguments.rows} gives {len(samples)} samples, {wanted} are needed")
    order = BatchOrder(wanted, seed=42).order()
    return Job(
        str(prepared.directory),
        arguments.method,
        [(list(samples[i].input_ids), list(samples[i].loss_weights)) for i in order],
        arguments.batch_size,
        arguments.steps,
        arguments.warmup,
        arguments.threads,
        arguments.dtype,
    )


def conversations(file: Path, turns: int) -> list[list[tuple[str, str]]]:
    """Return the rows of a file as conversations of 1 to ``turns`` rounds, as many as a fixed seed draws."""
    draw = random.Random(42)
    found: list[list[tuple[str, str]]] = []
    left = 0
    for row in json.loads(file.read_text(encoding="utf-8")):
        if not row["output"].strip():
            continue
        if not left:
            found.append([])
            left = draw.randint(1, turns)
        query = row["instruction"] + ("\n" + row["input"] if row.get("input") else "")
        found[-1] += [("user", query), ("assistant", row["output"])]
        left -= 1
    return found


def run_worker(variant: str, job_file: str, directory: str) -> None:
    """Train one variant in this process and write what it took."""
    import torch

    job = Job(**json.loads(Path(job_file).read_text()))
    torch.set_num_threads(job.threads)
    torch.manual_seed(42)
    watch = Watch(job.warmup)
    prepare = prepare_ft if variant.startswith("ft") else prepare_trl
    run = prepare(job, directory, variant, watch)
    watch.note()
    losses = run()
    result = {
        "seconds": time.perf_counter() - watch.seconds,
        "cpu_seconds": time.process_time() - watch.cpu_seconds,
        "first_step_seconds": watch.first_ended - psutil.Process().create_time(),
        "peak_gib": peak_gib(),
        "losses": losses,
        "trained_tokens": sum(sum(1 for w in weights if w) for _, weights in job.timed()),
    }
    if variant == "ft":
        result |= limit_of(job)
    (Path(directory) / "result.json").write_text(json.dumps(result))


class Watch(TrainerCallback):
    """Notes when the first step of a run has ended, and the last one before the clock runs.

    Attributes:
        seconds, cpu_seconds: by the clock and of this process when the timed steps begin.
        first_ended: when the first step ended.
    """

    def __init__(self, warmup: int) -> None:
        self._warmup = warmup
        self.seconds = self.cpu_seconds = self.first_ended = 0.0

    def note(self) -> None:
        """Let the clock begin now."""
        self.seconds, self.cpu_seconds = time.perf_counter(), time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note the time, of a GPU when it has done the step."""
        if state.global_step in (1, self._warmup):
            peak_gib()
            self.first_ended = self.first_ended or time.time()
        if state.global_step == self._warmup:
            self.note()


def peak_gib() -> float:
    """Return the most memory that this process took, of the GPU where it has one, after all its work is done."""
    import torch

    if not torch.cuda.is_available():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    torch.cuda.synchronize()
    return float(torch.cuda.max_memory_allocated()) / 2**30


def limit_of(job: Job) -> dict[str, float]:
    """Return the operations of all steps, and how many a second plain matrix products do in this process."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from ft_core.tuners import TUNERS
    from ft_train.duration import matrix_rate, token_operations

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(job.model))
    if job.method == "lora":
        model = TUNERS.get("lora").apply(model, lora_settings())
    tokens = sum(len(ids) for ids, _ in job.timed())
    trained = sum(1 for _, weights in job.timed() for weight in weights if weight)
    operations = tokens * token_operations(model, trained / tokens)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rate = matrix_rate(device, getattr(torch, job.dtype))
    return {"operations": operations, "matrix_rate": rate, "tokens": tokens}


def lora_settings() -> Any:
    """Return the adapters of ft, as ``LORA`` describes them for peft."""
    from ft_core.tuners import LoraSettings

    return LoraSettings(
        rank=LORA["r"],
        alpha=LORA["lora_alpha"],
        dropout=LORA["lora_dropout"],
        target_modules=tuple(LINEAR),
    )


def prepare_ft(job: Job, directory: str, variant: str, watch: Watch) -> Any:
    """Return the training run of ft."""
    import torch

    from ft_core.models.loading import load_model
    from ft_core.samples import Sample, Tokens
    from ft_core.tuners import TUNERS, FullSettings
    from ft_train import SftRecipe, TrainData, TrainingPlan, train
    from ft_train.order import BatchOrder

    tuner = TUNERS.get(job.method)
    on_gpu = torch.cuda.is_available()
    model = load_model(Path(job.model), dtype=getattr(torch, job.dtype), for_training=True)
    model = tuner.apply(model, lora_settings() if job.method == "lora" else FullSettings())
    # Undo ft's order, since the rows come in it already.
    rows: list[Any] = [None] * len(job.samples)
    for place, (ids, weights) in zip(
        BatchOrder(len(rows), seed=42).order(), job.samples, strict=True
    ):
        rows[place] = Sample((Tokens(ids, weights),), place)
    plan = TrainingPlan(
        batch_size=job.batch_size,
        gradient_accumulation_steps=1,
        steps=job.steps,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        logging_steps=1,
        save_strategy="no",
        disable_tqdm=True,
        device="cuda" if on_gpu else "cpu",
        mixed_precision="bf16" if on_gpu and job.dtype == "bfloat16" else "no",
        use_liger_kernel=variant == "ft liger",
    )

    def run() -> list[float]:
        data, place = TrainData(rows), Path(directory)
        result = train(SftRecipe(), model, tuner, data, plan, place, callbacks=(watch,))
        return [row["loss"] for row in result.log_history]

    return run


def prepare_trl(job: Job, directory: str, variant: str, watch: Watch) -> Any:
    """Return the training run of TRL."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    on_gpu = torch.cuda.is_available()
    model = AutoModelForCausalLM.from_pretrained(job.model, dtype=getattr(torch, job.dtype))
    rows = [
        {
            "input_ids": ids,
            "labels": [
                token if weight else -100 for token, weight in zip(ids, weights, strict=True)
            ],
        }
        for ids, weights in job.samples
    ]
    options: dict[str, Any] = {}
    if variant != "trl":
        options["gradient_checkpointing"] = False
    if variant == "trl padding-free":
        options["padding_free"] = True
    if variant == "trl liger":
        options["use_liger_kernel"] = True
    config = SFTConfig(
        output_dir=directory,
        max_length=None,
        per_device_train_batch_size=job.batch_size,
        max_steps=job.steps,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        adam_beta2=0.95,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=not on_gpu,
        bf16=on_gpu and job.dtype == "bfloat16",
        train_sampling_strategy="sequential",
        **options,
    )
    trainer = SFTTrainer(
        model=model,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(job.model),
        peft_config=LoraConfig(**LORA, target_modules=LINEAR, task_type="CAUSAL_LM")
        if job.method == "lora"
        else None,
        callbacks=[watch],
    )

    def run() -> list[float]:
        trainer.train()
        return [row["loss"] for row in trainer.state.log_history if "loss" in row]

    return run


def show(job: Job, results: dict[str, list[dict[str, Any]]]) -> None:
    """Print the fastest round of each variant, and how it compares with ft."""
    tokens = sum(len(ids) for ids, _ in job.timed())
    first = next(iter(results.values()))[0]
    title = (
        f"{job.method}: {job.steps - job.warmup} steps of {job.batch_size} rows, {tokens:,} tokens, {first['trained_tokens']:,} trained, "
        f"{job.threads} threads"
    )
    table = Table(title=title)
    columns: Sequence[str] = (
        "variant",
        "trained tokens/s",
        "ft is … × as fast",
        "CPU s",
        "ft CPU ratio",
        "peak GiB",
        "first step s",
        "first loss",
        "last 4 losses",
    )
    for column in columns:
        table.add_column(column, justify="left" if column == "variant" else "right")
    fastest = {name: min(rounds, key=lambda r: r["seconds"]) for name, rounds in results.items()}
    least_cpu = {name: min(r["cpu_seconds"] for r in rounds) for name, rounds in results.items()}
    own = fastest.get("ft")
    for name, result in fastest.items():
        table.add_row(
            name,
            f"{result['trained_tokens'] / result['seconds']:.1f}",
            f"{result['seconds'] / own['seconds']:.2f}" if own else "",
            f"{least_cpu[name]:.1f}",
            f"{least_cpu[name] / least_cpu['ft']:.2f}" if own else "",
            f"{result['peak_gib']:.2f}",
            f"{result['first_step_seconds']:.1f}",
            f"{result['losses'][0]:.4f}",
            f"{sum(result['losses'][-4:]) / len(result['losses'][-4:]):.4f}",
        )
    Console(width=140).print(table)
    if own:
        reached = own["operations"] / own["seconds"]
        print(
            f"ft: {reached / 1e9:.0f} GFLOP/s, {reached / own['matrix_rate']:.0%} of the limit: plain matrix products "
            f"reach {own['matrix_rate'] / 1e9:.0f} here"
        )


if __name__ == "__main__":
    sys.exit(main())
