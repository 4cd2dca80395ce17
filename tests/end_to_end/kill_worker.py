"""Trains in processes that are killed in the middle, and once undisturbed; writes what each step saw."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, set_seed

from ft_core.checkpoints import list_checkpoints
from ft_core.models.loading import load_model
from ft_core.recipe import Totals
from ft_core.samples import Sample
from ft_core.templates import choose_template
from ft_core.tokenizer import Tokenizer
from ft_core.tuners import TUNERS, LoraSettings
from ft_data import load, pack, parse_sources, stream
from ft_data.encoding import encode
from ft_data.streaming import EncodedStream
from ft_train import SftRecipe, TrainData, TrainingPlan, train

STEPS, ROWS, ROOM = 12, 17, 48
KILLS = 3


@dataclass(frozen=True)
class Ledger(SftRecipe):
    """A recipe that writes down the rows of each step, before the step is done."""

    file: Path = Path()

    def count(self, global_batch: Sequence[Sample]) -> Totals:
        rows = [(int(sample.values.get("source", 0)), sample.row) for sample in global_batch]
        with self.file.open("a", encoding="utf-8") as ledger:
            ledger.write(json.dumps(rows) + "\n")
        return super().count(global_batch)


class Kill(TrainerCallback):
    """Ends this process like a power cut, at a step: before it is saved, or while it is written."""

    def __init__(self, step: int | None) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def write_rows(file: Path) -> Path:
    rows = [{"query": f"q{i}", "response": f"answer {i} " * (1 + i % 4)} for i in range(ROWS)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def data_of(kind: str, file: Path, tokenizer: Tokenizer, recipe: SftRecipe) -> TrainData:
    template = choose_template("AUTO", tokenizer, registered=None, prefers_record=False).template
    if kind == "streaming":
        sources = parse_sources([str(file)])
        return TrainData(
            EncodedStream(
                tuple(stream(source) for source in sources),
                recipe,
                template,
                window=5,
                pack_length=None,
                seed=7,
            )
        )
    samples = encode(load([str(file)], seed=1).examples, recipe, template).samples
    if kind == "plain":
        return TrainData(samples)
    return TrainData(samples, groups=pack(samples.lengths.tolist(), ROOM))


def attempt(kind: str, base: Path, out: Path, *, die: int | None, writing: bool) -> None:
    """Train from the last checkpoint there is; in a process of its own."""
    set_seed(0)
    recipe = Ledger(max_length=ROOM, file=out / f"ledger-{os.getpid()}.jsonl")
    tokenizer = Tokenizer.from_directory(base)
    data = data_of(kind, out.parent / "rows.jsonl", tokenizer, recipe)
    found = list_checkpoints(out)
    model = load_model(base, dtype=torch.float32, for_training=True)
    tuner = TUNERS.get("lora")
    if found:
        model = tuner.load(model, found[-1], trainable=True)
    else:
        model = tuner.apply(model, LoraSettings(rank=2, dropout=0.2))
    plan = TrainingPlan(
        batch_size=1,
        gradient_accumulation_steps=2,
        steps=STEPS,
        learning_rate=1e-2,
        logging_steps=1,
        save_strategy="steps",
        save_steps=2,
        save_total_limit=2,
        dataloader_num_workers=2,
        disable_tqdm=True,
    )

    def sidecars(directory: Path) -> None:
        if (
            writing
            and die is not None
            and directory.name.startswith(f".checkpoint-{die + die % 2}.")
        ):
            os.kill(os.getpid(), signal.SIGKILL)

    (out / "started.jsonl").open("a").write(
        json.dumps([os.getpid(), int(found[-1].name.split("-")[1]) if found else 0]) + "\n"
    )
    train(
        recipe,
        model,
        tuner,
        data,
        plan,
        out,
        sidecars=sidecars,
        resume=found[-1] if found else None,
        callbacks=(Kill(None if writing else die),),
    )


def in_a_process(*words: Any, **options: Any) -> int:
    """Run an attempt in a fork, which has all modules already; return how it ended."""
    child = os.fork()
    if child == 0:
        try:
            attempt(*words, **options)
        except BaseException:  # a fork must never run on in the parent's code
            import traceback

            traceback.print_exc()
            os._exit(1)
        sys.stdout.flush()
        os._exit(0)
    return os.waitpid(child, 0)[1]


def main() -> None:
    base, out, kind, seed = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    out.mkdir(parents=True)
    write_rows(out / "rows.jsonl")
    for name in ("straight", "killed"):
        (out / name).mkdir()
    ends = [in_a_process(kind, base, out / "straight", die=None, writing=False)]
    draw = random.Random(seed)
    steps = sorted(draw.sample(range(2, STEPS), KILLS))
    for step in steps:
        writing = draw.random() < 0.5
        ends.append(in_a_process(kind, base, out / "killed", die=step, writing=writing))
    ends.append(in_a_process(kind, base, out / "killed", die=None, writing=False))
    (out / "ends.json").write_text(json.dumps({"steps": steps, "ends": ends}), encoding="utf-8")


if __name__ == "__main__":
    main()
