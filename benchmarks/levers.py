"""What each thing that makes training fast on a CPU is worth: ft as it is, and without one of them at a time.

Rows, order and settings are those of ``train.py``; every variant runs in a process of its own, in turns. "CPU s" is
the processor time of the steps, which other load on the machine changes less than the clock.

    python benchmarks/levers.py --steps 8 --rounds 2
    python benchmarks/levers.py --max_length 2048 --turns 12 --batch_size 2

- ``peft's layers``: LoRA as peft computes it, a dropout mask a layer.
- ``mask a layer``: our LoRA layers, but none shares its dropout mask.
- ``dense mask``: joined rows attend through the mask that transformers makes, instead of document by document.
- ``torch's backward``: attention's gradients by torch's own kernel.
- ``whole softmax``: the softmax of all scores is kept for the backward pass.
- ``memory given back``: freed memory returns to the system.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import train
from rich.console import Console
from rich.table import Table
from turns import run_in_process, turns


def peft_layers() -> None:
    """Let peft make its own layers."""
    from ft_core.tuners.lora import tuner

    _replace(tuner, "use_lean_layers", lambda config, model: None)


def mask_a_layer() -> None:
    """Draw a mask for each layer."""
    from ft_core.tuners.lora.lean import SharedMasks, draw_mask

    _replace(SharedMasks, "mask_for", lambda self, layer, x, rate: draw_mask(x, rate))


def dense_mask() -> None:
    """Leave attention to transformers."""
    from ft_train import training

    _replace(training, "enable_joined_attention", lambda model: model.config._attn_implementation)


def torch_backward() -> None:
    """Leave attention's gradients to torch."""
    from ft_core.sequences import attention

    _replace(attention, "can_attend", lambda query, key, value, dropout: False)


def whole_softmax() -> None:
    """Take log-probabilities from one softmax of all scores."""
    from torch.nn.functional import cross_entropy

    from ft_train.recipes import causal

    def picked(logits: Any, labels: Any, *, overwrite: bool) -> Any:
        return -cross_entropy(logits, labels, reduction="none")

    _replace(causal, "pick_logprobs", picked)


def memory_given_back() -> None:
    """Leave the C library as it is."""
    from ft_train import training

    _replace(training, "keeping_memory", lambda device: contextlib.nullcontext())


def _replace(owner: Any, name: str, value: Any) -> None:
    """Set an attribute that has to be there, so that a lever that moved is noticed."""
    getattr(owner, name)
    setattr(owner, name, value)


WITHOUT: dict[str, Callable[[], None]] = {
    "ft": lambda: None,
    "peft's layers": peft_layers,
    "mask a layer": mask_a_layer,
    "dense mask": dense_mask,
    "torch's backward": torch_backward,
    "whole softmax": whole_softmax,
    "memory given back": memory_given_back,
}


def main() -> int:
    """Run the variants in turns, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=Path, default=train.ROWS, help="alpaca rows (JSON)")
    train.add_model_arguments(parser)
    parser.add_argument("--method", choices=("lora", "full"), default="lora")
    parser.add_argument("--max_length", type=int, default=512)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--variants", nargs="+", choices=WITHOUT, default=list(WITHOUT))
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        variant, job_file, directory = arguments.worker
        WITHOUT[variant]()
        train.run_worker("ft", job_file, directory)
        return 0
    job = train.prepare_job(arguments)
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in arguments.variants}
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "job.json"
        file.write_text(json.dumps({name: getattr(job, name) for name in train.Job.__slots__}))
        for number, variant in turns(arguments.variants, arguments.rounds):
            result = run_in_process(__file__, variant, file, OMP_NUM_THREADS=str(job.threads))
            results[variant].append(result)
            print(f"round {number}: {variant}: {result['cpu_seconds']:.1f} CPU s", file=sys.stderr)
    show(results)
    return 0


def show(results: dict[str, list[dict[str, Any]]]) -> None:
    """Print the cheapest round of each variant beside that of all levers."""
    table = Table("without", "CPU s", "× ft", "peak GiB", "last loss")
    cheapest = {
        name: min(rounds, key=lambda r: r["cpu_seconds"]) for name, rounds in results.items()
    }
    own = cheapest.get("ft")
    for name, result in cheapest.items():
        table.add_row(
            "—" if name == "ft" else name,
            f"{result['cpu_seconds']:.1f}",
            f"{result['cpu_seconds'] / own['cpu_seconds']:.2f}" if own else "",
            f"{result['peak_gib']:.2f}",
            f"{result['losses'][-1]:.4f}",
        )
    Console(width=100).print(table)


if __name__ == "__main__":
    sys.exit(main())
