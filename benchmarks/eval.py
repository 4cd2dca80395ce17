"""Multiple choice by likelihood with SmolLM2-135M in float32: ft's evaluator against lm-eval's transformers backend.

Both evaluate the same questions with the same prompts as one task of lm-eval, each in a process of its own, in
turns, ``--rounds`` times. The table shows the fastest round; "CPU s" is the processor time of that round, which
other load on the machine changes less than the clock. Loading the model is not counted.

    python benchmarks/eval.py --questions 100 --rounds 2

- ``builtin``: ``ft eval``'s own backend over ``PtEngine``.
- ``lm_eval``: lm-eval over ``PtEngine``.
- ``hf``: lm-eval over its own transformers backend (``HFLM``).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

VARIANTS = ("builtin", "lm_eval", "hf")


@dataclass(frozen=True, slots=True)
class Measured:
    """One round: questions per second, processor seconds, and the accuracy that shows the same was done."""

    rate: float
    cpu: float
    accuracy: float


def questions(count: int, words: int) -> Any:
    """Return a task of made-up arithmetic with a text in front of each question."""
    from ft_eval.respondents.protocol import Prompt
    from ft_eval.tasks.task import Item, Task

    source = random.Random(0)
    items = []
    for number in range(count):
        first, second = source.randrange(50), source.randrange(50)
        choices = [first + second + step for step in source.sample(range(-4, 5), 4)]
        if first + second not in choices:
            choices[source.randrange(4)] = first + second
        story = " ".join(
            source.choice(["the", "fox", "sea", "count", "blue", "tree", "reads", "slowly"])
            for _ in range(source.randrange(words // 2, words))
        )
        shown = "\n".join(
            f"{letter}. {value}" for letter, value in zip("ABCD", choices, strict=True)
        )
        text = f"{story}\n\nWhat is {first} + {second}?\n{shown}\nAnswer:"
        right = "ABCD"[choices.index(first + second)]
        items.append(Item(str(number), Prompt(text=text), (right,), tuple("ABCD"), {"before": " "}))
    return Task("sums", tuple(items), "likelihood", ("accuracy",))


def measure(variant: str, count: int, words: int, batch: int, threads: int) -> Measured:
    """Evaluate once in this process."""
    import torch
    from transformers import AutoModelForCausalLM

    from ft_core.hub import fetch
    from ft_core.models.resolution import resolve_model

    torch.set_num_threads(threads)
    directory = fetch(resolve_model("smollm2-135m-instruct", None))
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    task = questions(count, words)
    work = _hf(model, str(directory), task, batch)
    if variant != "hf":
        work = _ours(variant, model, directory, task, batch)
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
    accuracy = work()
    seconds, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Measured(count / seconds, cpu, accuracy)


def _ours(variant: str, model: Any, directory: Any, task: Any, batch: int) -> Callable[[], float]:
    from ft_core.templates import choose_template
    from ft_core.tokenizer import Tokenizer
    from ft_eval.backends.builtin import Examiner
    from ft_eval.respondents.engine import EngineRespondent
    from ft_serve.engines.pt import PtEngine

    tokenizer = Tokenizer.from_directory(directory)
    template = choose_template("chatml", tokenizer, registered=None, prefers_record=False).template
    engine = PtEngine(model, tokenizer, stop_token_ids=template.stop_token_ids)
    respondent = EngineRespondent("ft", engine, template, chat=False)
    runner = asyncio.Runner()
    if variant == "builtin":
        examiner = Examiner(respondent, batch)
        return lambda: runner.run(examiner.examine(task)).metric("accuracy").value
    from ft_eval.backends.lm_eval.model import RespondentLM

    return _harness(RespondentLM(respondent, runner.run, batch_size=batch, seed=0), task)


def _hf(model: Any, directory: str, task: Any, batch: int) -> Callable[[], float]:
    from lm_eval.models.huggingface import HFLM

    return _harness(HFLM(pretrained=model, tokenizer=directory, batch_size=batch), task)


def _harness(lm: Any, task: Any) -> Callable[[], float]:
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.evaluator import evaluate

    from ft_eval.backends.lm_eval.local import local_task

    made = ConfigurableTask(config=local_task(task))
    tasks = {"tasks": {made.task_name: made}, "groups": {}, "group_map": {}}

    def work() -> float:
        found = evaluate(lm, tasks, bootstrap_iters=0)
        assert found is not None
        return float(found["results"][made.task_name]["acc,none"])

    return work


def main() -> None:
    """Measure all variants in turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--words", type=int, default=150, help="longest text before a question")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", choices=VARIANTS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        shape = (given.questions, given.words, given.batch_size, given.threads)
        found = measure(given.only, *shape)
        print(json.dumps([found.rate, found.cpu, found.accuracy]))
        return
    rounds: dict[str, list[Measured]] = {name: [] for name in VARIANTS}
    for _ in range(given.rounds):
        for name in VARIANTS:
            done = subprocess.run(
                [sys.executable, __file__, *sys.argv[1:], "--only", name],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                sys.exit(f"{name} failed:\n{done.stderr[-3000:]}")
            rounds[name].append(Measured(*json.loads(done.stdout.splitlines()[-1])))
    best = {name: max(found, key=lambda item: item.rate) for name, found in rounds.items()}
    print(f"{'':10}{'questions/s':>12}{'ratio':>8}{'CPU s':>8}{'ratio':>8}{'accuracy':>10}")
    for name, item in best.items():
        rate, cpu = item.rate / best["hf"].rate, item.cpu / best["hf"].cpu
        print(
            f"{name:10}{item.rate:12.2f}{rate:8.2f}{item.cpu:8.1f}{cpu:8.2f}{item.accuracy:10.3f}"
        )


if __name__ == "__main__":
    main()
