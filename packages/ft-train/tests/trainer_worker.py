"""One process of ``test_processes``: trains by the trainer, in each way that it is asked for."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from ft_core.launch import is_main, world_size
from ft_core.models.loading import load_model
from ft_core.samples import Sample, Tokens
from ft_core.tuners import TUNERS, FullSettings, LoraSettings
from ft_train import SftRecipe, TrainData, TrainingPlan, TrainResult, train
from ft_train.distributed.deepspeed_config import read_deepspeed
from ft_train.distributed.division import Division
from ft_train.distributed.fsdp_settings import read_fsdp
from ft_train.distributed.processes import process_group

DIVISIONS = {
    "plain": Division(),
    "zero2": Division(deepspeed=read_deepspeed("default-zero2")),
    "zero3": Division(deepspeed=read_deepspeed("default-zero3")),
    "offload": Division(deepspeed=read_deepspeed("zero3-offload")),
    "fsdp": Division(fsdp=read_fsdp("full_shard", None)),
    "sequence": Division(sequence_parallel_size=2),
}
STEPS = 4


def samples(count: int, seed: int) -> list[Sample]:
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for row in range(count):
        length = 6 + int(torch.randint(12, (), generator=generator))
        ids = torch.randint(3, 384, (length,), generator=generator).tolist()
        rows.append(Sample((Tokens(ids, [0.0] * 3 + [1.0] * (length - 3)),), row))
    return rows


def data() -> TrainData:
    """Packs of two rows, and as many rows to evaluate on as leave a process without any."""
    return TrainData(
        samples(24, 0),
        samples(5, 1),
        groups=[[index, index + 1] for index in range(0, 24, 2)],
    )


def plan(division: Division, accumulation: int) -> TrainingPlan:
    readers = world_size() // division.sequence_parallel_size
    return TrainingPlan(
        batch_size=1,
        gradient_accumulation_steps=accumulation // readers,
        steps=STEPS,
        steps_per_epoch=3,
        learning_rate=1e-2,
        logging_steps=1,
        evaluation_strategy="steps",
        eval_steps=2,
        save_steps=2,
        save_total_limit=None,
        gradient_checkpointing=True,
        disable_tqdm=True,
        world_size=world_size(),
        division=division,
    )


def run(
    directory: Path, base: Path, kind: str, name: str, resume: Path | None = None
) -> TrainResult:
    torch.manual_seed(0)
    tuner = TUNERS.get(kind)
    whole = resume is not None and kind == "full"
    model = load_model(resume if whole and resume else base, dtype=torch.float32, for_training=True)
    if resume is not None and kind == "lora":
        model = tuner.load(model, resume, trainable=True)
    elif resume is None or kind == "full":
        model = tuner.apply(
            model, FullSettings() if kind == "full" else LoraSettings(rank=2, dropout=0.0)
        )
    directory.mkdir(parents=True, exist_ok=True)
    return train(
        SftRecipe(), model, tuner, data(), plan(DIVISIONS[name], 4), directory, resume=resume
    )


def facts(result: TrainResult) -> dict[str, Any]:
    log = result.log_history
    return {
        "losses": [row["loss"] for row in log if "loss" in row],
        "norms": [row["grad_norm"] for row in log if "loss" in row],
        "evaluations": [row["eval_loss"] for row in log if "eval_loss" in row],
        "rows": [row["tokens_per_second"] > 0 for row in log if "loss" in row],
        "wrapped": result.wrapped,
        "last": str(result.last_checkpoint),
    }


def main() -> None:
    out, base = Path(sys.argv[1]), Path(sys.argv[2])
    with process_group(Division()):
        for kind, name, resumed in (word.split(":") for word in sys.argv[3:]):
            directory = out / kind / name
            if not resumed:
                found = facts(run(directory, base, kind, name))
            else:
                # In a directory of its own, as if the first run had been stopped there.
                directory = out / kind / f"{name}-continued"
                checkpoint = directory / "checkpoint-2"
                if is_main():
                    shutil.copytree(Path(resumed) / "checkpoint-2", checkpoint)
                torch.distributed.barrier()
                found = facts(run(directory, base, kind, name, checkpoint))
            if is_main():
                (directory / "facts.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
