"""Alignment of SmolLM2-135M with LoRA on preferences: ft against TRL's trainers, in turns, on the same rows.

Every variant trains the same rows in the same order, in float32, with rank-8 adapters without dropout on all
linear layers. Each runs in a process of its own, one after another, ``--rounds`` times, so that a busy minute
hits all of them. The table shows the fastest round of each; "CPU s" is the processor time of that round's
steps, which other load on the machine changes less than the clock.

    python benchmarks/align.py --method dpo --steps 8 --rounds 2

- ``ft``: ``ft_train.train`` with a recipe of ft-align.
- ``trl``: the trainer of the method as its documentation sets it up, but for float32 and no shuffling.
- ``trl tuned``: the same without gradient checkpointing.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from turns import run_in_process, turns

VARIANTS = ("ft", "trl", "trl tuned")
METHODS = ("dpo", "orpo", "cpo", "kto")
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
LORA = {"r": 8, "lora_alpha": 32, "lora_dropout": 0.0}
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
RATE = 5e-5
BETA = 0.1
MARGIN = "rewards/margins"


@dataclass(frozen=True, slots=True)
class Job:
    """What every variant does.

    Attributes:
        method: how it learns.
        model: directory of the model.
        rows: texts of ``prompt`` and answers for TRL, and ``sequences``, ``values`` for ft, in the order in
            which they are trained.
        batch_size: rows of a step.
        steps: optimizer steps.
        threads: of torch.
    """

    method: str
    model: str
    rows: list[dict[str, Any]]
    batch_size: int
    steps: int
    threads: int


def main() -> int:
    """Prepare the rows, run the variants in turns, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--method", choices=METHODS, default="dpo")
    parser.add_argument("--rows", type=Path, help="preferences or labelled answers")
    parser.add_argument("--model_type", default="smollm2-135m-instruct")
    parser.add_argument("--max_length", type=int, default=512, help="longer rows are left out")
    parser.add_argument("--batch_size", type=int, default=2)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--json", type=Path, help="write all rounds here")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        run_worker(*arguments.worker)
        return 0
    if arguments.rows is None:
        kind = "kto" if arguments.method == "kto" else "dpo"
        arguments.rows = DATA / f"{kind}_en_demo.json"
    if not arguments.rows.is_file():
        parser.error(f"--rows {arguments.rows}: no such file")
    job = prepare_job(arguments)
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in arguments.variants}
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "job.json"
        file.write_text(json.dumps({name: getattr(job, name) for name in Job.__slots__}))
        for number, variant in turns(arguments.variants, arguments.rounds):
            result = run_in_process(
                __file__,
                variant,
                file,
                OMP_NUM_THREADS=str(job.threads),
                TRL_EXPERIMENTAL_SILENCE="1",
            )
            results[variant].append(result)
            print(f"round {number}: {variant}: {result['seconds']:.1f} s", file=sys.stderr)
    show(job, results)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2))
    return 0


def prepare_job(arguments: argparse.Namespace) -> Job:
    """Encode as many rows as the steps need, with ft's template."""
    import ft_data
    from ft_align.encoding import AnswerEncoder, PairEncoder
    from ft_align.lengths import Lengths
    from ft_core.arguments import ModelArguments, TemplateArguments
    from ft_core.prepare import prepare
    from ft_core.samples import Sample

    prepared = prepare(ModelArguments(model_type=arguments.model_type), TemplateArguments())
    wanted = arguments.steps * arguments.batch_size
    loaded = ft_data.load([str(arguments.rows)], seed=42)
    lengths = Lengths(arguments.max_length, "delete", -1)
    encoder = (AnswerEncoder if arguments.method == "kto" else PairEncoder)(lengths=lengths)
    encoded = encoder.encode(loaded.examples, prepared.chosen.template)
    samples = [item for item in encoded if isinstance(item, Sample)][:wanted]
    if len(samples) < wanted:
        raise SystemExit(f"{arguments.rows} gives {len(samples)} samples, {wanted} are needed")
    decode = prepared.tokenizer.decode
    stop = prepared.tokenizer.named_tokens["eos_token"]
    rows = []
    for sample in samples:
        prompt = int(sample.values["prompt"])
        texts = []
        for tokens in sample.sequences:
            learned = [
                token
                for token, weight in zip(tokens.input_ids, tokens.loss_weights, strict=True)
                if weight
            ]
            # TRL puts the end of an answer there itself.
            texts.append(decode(learned).removesuffix(stop))
        rows.append(
            {
                "prompt": decode(list(sample.sequences[0].input_ids[:prompt])),
                "texts": texts,
                "values": dict(sample.values),
                "sequences": [[list(t.input_ids), list(t.loss_weights)] for t in sample.sequences],
            }
        )
    return Job(
        arguments.method,
        str(prepared.directory),
        rows,
        arguments.batch_size,
        arguments.steps,
        arguments.threads,
    )


def run_worker(variant: str, job_file: str, directory: str) -> None:
    """Train one variant in this process and write what it took."""
    import torch

    job = Job(**json.loads(Path(job_file).read_text()))
    torch.set_num_threads(job.threads)
    torch.manual_seed(42)
    run = prepare_ft(job, directory) if variant == "ft" else prepare_trl(job, directory, variant)
    ready = time.perf_counter()
    cpu = time.process_time()
    history = run()
    result = {
        "seconds": time.perf_counter() - ready,
        "cpu_seconds": time.process_time() - cpu,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "losses": [row["loss"] for row in history if "loss" in row],
        "margins": [row[MARGIN] for row in history if MARGIN in row],
    }
    (Path(directory) / "result.json").write_text(json.dumps(result))


def prepare_ft(job: Job, directory: str) -> Any:
    """Return the training run of ft."""
    import torch

    from ft_align.arguments import AlignArguments
    from ft_align.lengths import Lengths
    from ft_align.recipes import build_recipe
    from ft_align.reference import adapter_off
    from ft_align.shared_prompts import enable_shared_prompts
    from ft_core.loss_scale import LossPolicy
    from ft_core.models.loading import load_model
    from ft_core.samples import Sample, Tokens
    from ft_core.tuners import TUNERS, LoraSettings
    from ft_train import TrainData, TrainingPlan, train
    from ft_train.order import BatchOrder

    tuner = TUNERS.get("lora")
    settings = LoraSettings(
        rank=LORA["r"], alpha=LORA["lora_alpha"], dropout=0.0, target_modules=tuple(LINEAR)
    )
    model = tuner.apply(
        load_model(Path(job.model), dtype=torch.float32, for_training=True), settings
    )
    enable_shared_prompts(model)
    arguments = AlignArguments(rlhf_type=job.method, beta=BETA, sft_beta=0.0)
    recipe = build_recipe(arguments, frozenset(), Lengths(-1, "delete", -1), LossPolicy())
    # Undo ft's order, since the rows come in theirs already.
    rows: list[Any] = [None] * len(job.rows)
    order = BatchOrder(len(rows), seed=42).order()
    for number, (place, row) in enumerate(zip(order, job.rows, strict=True)):
        sequences = tuple(Tokens(ids, weights) for ids, weights in row["sequences"])
        rows[place] = Sample(sequences, number, row["values"])
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
    )
    reference = adapter_off(model) if arguments.refers else None

    def run() -> list[Any]:
        result = train(
            recipe, model, tuner, TrainData(rows), plan, Path(directory), reference=reference
        )
        return list(result.log_history)

    return run


def prepare_trl(job: Job, directory: str, variant: str) -> Any:
    """Return the training run of TRL."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer

    trainer_class, config_class = trl_classes(job.method)
    options: dict[str, Any] = {"max_length": 4096, "beta": BETA}
    if variant == "trl tuned":
        options["gradient_checkpointing"] = False
    if job.method in ("orpo", "cpo"):
        options["remove_unused_columns"] = False
    config = config_class(
        output_dir=directory,
        per_device_train_batch_size=job.batch_size,
        max_steps=job.steps,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        adam_beta2=0.95,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        bf16=False,
        train_sampling_strategy="sequential",
        **options,
    )
    trainer = trainer_class(
        model=AutoModelForCausalLM.from_pretrained(job.model, dtype=torch.float32),
        args=config,
        train_dataset=Dataset.from_list([trl_row(job.method, row) for row in job.rows]),
        processing_class=AutoTokenizer.from_pretrained(job.model),
        peft_config=LoraConfig(**LORA, target_modules=LINEAR, task_type="CAUSAL_LM"),
    )

    def run() -> list[Any]:
        trainer.train()
        return list(trainer.state.log_history)

    return run


def trl_classes(method: str) -> tuple[Any, Any]:
    """Return TRL's trainer of a method and its configuration."""
    if method == "dpo":
        from trl import DPOConfig, DPOTrainer

        return DPOTrainer, DPOConfig
    if method == "kto":
        from trl import KTOConfig, KTOTrainer

        return KTOTrainer, KTOConfig
    if method == "orpo":
        from trl.experimental.orpo import ORPOConfig, ORPOTrainer

        return ORPOTrainer, ORPOConfig
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    return CPOTrainer, CPOConfig


def trl_row(method: str, row: dict[str, Any]) -> dict[str, Any]:
    """Return a row in the columns that a method of TRL takes."""
    if method == "kto":
        label = bool(row["values"]["label"])
        return {"prompt": row["prompt"], "completion": row["texts"][0], "label": label}
    chosen, rejected = row["texts"]
    return {"prompt": row["prompt"], "chosen": chosen, "rejected": rejected}


def show(job: Job, results: dict[str, list[dict[str, Any]]]) -> None:
    """Print the fastest round of each variant, and how it compares with ft."""
    tokens = sum(len(ids) for row in job.rows for ids, _ in row["sequences"])
    rows = len(job.rows)
    table = Table(
        title=f"{job.method}: {job.steps} steps of {job.batch_size} rows, {tokens:,} tokens, {job.threads} threads"
    )
    for column in ("variant", "rows/s", "ft is … × as fast", "CPU s", "ft CPU ratio", "peak GiB", "losses", "margins"):  # fmt: skip
        table.add_column(column, justify="left" if column == "variant" else "right")
    fastest = {name: min(rounds, key=lambda r: r["seconds"]) for name, rounds in results.items()}
    least_cpu = {name: min(r["cpu_seconds"] for r in rounds) for name, rounds in results.items()}
    own = fastest.get("ft")
    for name, result in fastest.items():
        table.add_row(
            name,
            f"{rows / result['seconds']:.2f}",
            f"{result['seconds'] / own['seconds']:.2f}" if own else "",
            f"{least_cpu[name]:.1f}",
            f"{least_cpu[name] / least_cpu['ft']:.2f}" if own else "",
            f"{result['peak_gib']:.2f}",
            " ".join(f"{value:.3f}" for value in _ends(result["losses"])),
            " ".join(f"{value:.3f}" for value in _ends(result["margins"])),
        )
    Console(width=150).print(table)


def _ends(values: list[float]) -> list[float]:
    """Return the first and the last of a curve."""
    return [values[0], *values[-2:]] if values else []


if __name__ == "__main__":
    sys.exit(main())
