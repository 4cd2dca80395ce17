"""What each export of one model costs and is worth: size, perplexity, tokens a second, time.

Each variant is one ``ft export`` in a process of its own; what it proves of its result, in fresh processes of
transformers, is read from ``export.json``. Perplexity is of the answers of held-out rows; tokens a second are greedy
answers, one at a time; "to make" is without the verification.

    python benchmarks/export.py
    python benchmarks/export.py --ckpt_dir output/…/checkpoint-20 --variants merge rtn4 gguf-q4_0
    python benchmarks/export.py --variants awq4 gptq4 --quant_python /path/to/env/bin/python
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

VARIANTS: Mapping[str, tuple[str, ...]] = {
    "merge": ("--merge_lora", "true"),
    "rtn8": ("--quant_method", "rtn", "--quant_bits", "8"),
    "rtn4": ("--quant_method", "rtn", "--quant_bits", "4"),
    "fp8": ("--quant_method", "fp8", "--quant_bits", "8"),
    "bnb8": ("--quant_method", "bnb", "--quant_bits", "8"),
    "bnb4": ("--quant_method", "bnb", "--quant_bits", "4"),
    "awq4": ("--quant_method", "awq", "--quant_bits", "4"),
    "gptq8": ("--quant_method", "gptq", "--quant_bits", "8"),
    "gptq4": ("--quant_method", "gptq", "--quant_bits", "4"),
    "gptq3": ("--quant_method", "gptq", "--quant_bits", "3"),
    "gguf-f16": ("--to_gguf", "f16"),
    "gguf-q8_0": ("--to_gguf", "q8_0"),
    "gguf-q4_0": ("--to_gguf", "q4_0"),
}
"""Flags of each variant."""

FOREIGN = ("awq", "gptq")
"""Beginnings of variants that another environment may make."""


def main() -> int:
    """Run the variants one after another and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model_type", default="smollm2-135m-instruct")
    parser.add_argument("--model_dir", help="directory of a model, instead of --model_type")
    parser.add_argument(
        "--ckpt_dir", help="checkpoint of an adapter, which each variant merges first"
    )
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=VARIANTS,
        default=["rtn8", "rtn4", "fp8", "bnb8", "bnb4", "gguf-f16", "gguf-q8_0", "gguf-q4_0"],
    )
    parser.add_argument("--dataset", default="starter-instructions", help="calibration rows")
    parser.add_argument("--val_dataset", help="rows to measure on")
    parser.add_argument("--samples", type=int, default=32, help="calibration texts")
    parser.add_argument("--length", type=int, default=128, help="tokens of each")
    parser.add_argument("--quant_python", help="Python of an environment with GPTQModel")
    parser.add_argument("--json", type=Path, help="write all figures here")
    arguments = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}
    for name in arguments.variants:
        with tempfile.TemporaryDirectory() as directory:
            found[name] = run(name, arguments, Path(directory))
    show(found)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))
    return 0


def run(name: str, arguments: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """Export one variant and return what its record says."""
    if arguments.ckpt_dir:
        model = ["--ckpt_dir", arguments.ckpt_dir]
    elif arguments.model_dir:
        model = ["--model_id_or_path", arguments.model_dir]
    else:
        model = ["--model_type", arguments.model_type]
    command = [sys.executable, "-m", "ft_cli", "export", *model, *VARIANTS[name]]
    target = directory / "out"
    if name.startswith("gguf"):
        command += ["--gguf_output_dir", str(target)]
    elif name == "merge":
        target = Path(f"{arguments.ckpt_dir}-merged")
    else:
        command += ["--quant_output_dir", str(target)]
    if name.startswith(FOREIGN):
        command += ["--dataset", arguments.dataset]
        command += ["--quant_n_samples", str(arguments.samples)]
        command += ["--quant_seqlen", str(arguments.length)]
        if arguments.quant_python:
            command += ["--quant_python", arguments.quant_python]
    if arguments.val_dataset:
        command += ["--val_dataset", arguments.val_dataset]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr[-3000:]}")
    print(f"{name}: {done.stdout.strip()}", file=sys.stderr)
    record: dict[str, Any] = json.loads((target / "export.json").read_text(encoding="utf-8"))
    weights = (".safetensors", ".gguf", ".bin")
    record["size"] = sum(
        file["bytes"] for file_name, file in record["files"].items() if file_name.endswith(weights)
    )
    return record


def show(found: Mapping[str, Mapping[str, Any]]) -> None:
    """Print a table."""
    print(
        "| result | MB | perplexity | times the source's | same token | tokens/s | memory MB | s to make |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for number, (name, record) in enumerate(found.items()):
        proof = record["verification"]
        before, after = proof["perplexity_before"], proof["perplexity_after"]
        if number == 0:
            speed, memory = proof["tokens_per_second"][0], proof["peak_memory"][0]
            print(
                f"| source | | {before:.3f} | 1.000 | 100.0 % | {speed:.1f} | {memory / 1e6:,.0f} | |"
            )
        print(
            f"| {name} | {record['size'] / 1e6:,.1f} | {after:.3f} | {after / before:.3f} | "
            f"{100 * proof['same_choice']:.1f} % | {proof['tokens_per_second'][1]:.1f} | "
            f"{proof['peak_memory'][1] / 1e6:,.0f} | {record['seconds']:.0f} |"
        )


if __name__ == "__main__":
    sys.exit(main())
