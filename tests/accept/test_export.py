"""Exports of an adapter of the real model, one command each, loaded by processes that know nothing of ft.

``scripts/quant_environments.sh`` makes the environments that ``FT_QUANT_PYTHON`` (GPTQModel) and ``FT_V4_PYTHON``
(transformers 4) name; without them what needs them is skipped.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ft_quant.proof.verdict import PERPLEXITY_BOUNDS

MODEL = "smollm2-135m-instruct"
TEXT = (
    "The water cycle describes how water moves between the oceans, the air and the land. The sun warms the surface of "
    "the sea, and some of the water evaporates and rises as vapour. High up it cools, condenses into small drops and "
    "forms clouds. When the drops become heavy enough, they fall as rain or snow. Part of it sinks into the ground, "
    "part runs into rivers, and in the end most of it flows back into the sea, where the cycle begins again."
)
PROBE = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
directory, gguf, text = sys.argv[1:]
extra = {"gguf_file": gguf} if gguf else {}
tokenizer = AutoTokenizer.from_pretrained(directory, **extra)
model = AutoModelForCausalLM.from_pretrained(directory, torch_dtype=torch.float32, **extra).eval()
ids = torch.tensor([tokenizer(text)["input_ids"]])
with torch.no_grad():
    loss = float(model(input_ids=ids, labels=ids).loss)
prompt = None
if tokenizer.chat_template:
    talk = [{"role": "user", "content": "Who are you?"}]
    prompt = tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
print(json.dumps({"loss": loss, "ids": ids[0].tolist(), "prompt": prompt}))
"""

CALIBRATION = "--dataset starter-instructions --quant_n_samples 8 --quant_seqlen 128"
EXPORTS = {
    "merge": ("--merge_lora true --compat v4", "merge"),
    "bnb8": ("--quant_method bnb --quant_bits 8 --compat v4", "8"),
    "bnb4": ("--quant_method bnb --quant_bits 4 --compat v4", "4"),
    "rtn8": ("--quant_method rtn --quant_bits 8", "8"),
    # Rounding alone loses too much of so small a model at 4 bit, which the verification says.
    "rtn4": ("--quant_method rtn --quant_bits 4 --compat v4", "worse"),
    "gguf-f16": ("--to_gguf f16", "16"),
    "gguf-q8_0": ("--to_gguf q8_0 --to_ollama true", "8"),
    "gguf-q4_0": ("--to_gguf q4_0", "4"),
    "gptq8": (f"--quant_method gptq --quant_bits 8 {CALIBRATION}", "8"),
    "gptq4": (f"--quant_method gptq --quant_bits 4 {CALIBRATION}", "4"),
    "awq4": (f"--quant_method awq --quant_bits 4 {CALIBRATION}", "4"),
}
"""Flags of each export, and whose bound it has to keep."""

pytestmark = pytest.mark.accept


def ft(*words: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "ft_cli", *map(str, words)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def probe(directory: Path, gguf: str = "", *, python: str = sys.executable) -> dict[str, Any]:
    """Return what plain transformers makes of a text."""
    done = subprocess.run(
        [python, "-P", "-c", PROBE, str(directory), gguf, TEXT],
        cwd=directory,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def environment(variable: str) -> str:
    python = os.environ.get(variable)
    if python is None:
        pytest.skip(f"{variable} names no Python (scripts/quant_environments.sh makes one)")
    return python


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("export")
    ft(
        *("sft", "--model_type", MODEL, "--dataset", "starter-instructions", "--max_steps", 4),
        *(
            "--batch_size",
            2,
            "--learning_rate",
            1e-3,
            "--output_dir",
            output,
            "--sample_answers",
            0,
        ),
    )
    return next(output.glob("*/v0-*/checkpoint-4"))


@pytest.fixture(scope="module")
def merged(checkpoint: Path) -> dict[str, Any]:
    """What plain transformers makes of the merged model."""
    done = ft("export", "--ckpt_dir", checkpoint, *EXPORTS["merge"][0].split())
    assert "perplexity" in done.stdout
    return probe(checkpoint.with_name("checkpoint-4-merged"))


def export(name: str, checkpoint: Path, target: Path, *more: str) -> str:
    """Make one result and return the name of its GGUF file, if it is one."""
    flags = EXPORTS[name][0].split()
    where = "--gguf_output_dir" if "--to_gguf" in flags else "--quant_output_dir"
    if "--to_ollama" in flags:
        more = (*more, "--ollama_output_dir", str(target.with_name(f"{target.name}-ollama")))
    ft("export", "--ckpt_dir", checkpoint, *flags, where, target, *more)
    return next((file.name for file in target.glob("*.gguf")), "")


@pytest.mark.parametrize("name", [name for name in EXPORTS if name != "merge"])
def test_a_result_loads_elsewhere_and_keeps_its_bound(
    name: str, checkpoint: Path, merged: dict[str, Any], tmp_path: Path
) -> None:
    target, python, more = tmp_path / name, sys.executable, ()
    if name.startswith(("gptq", "awq")):
        python = environment("FT_QUANT_PYTHON")
        more = ("--quant_python", python)
    file = export(name, checkpoint, target, *more)
    record = json.loads((target / "export.json").read_text(encoding="utf-8"))
    bound = EXPORTS[name][1]
    expected = "worse" if bound == "worse" else "good"
    assert record["verification"]["verdict"] == expected, record["verification"]
    found = probe(target, file, python=python)
    assert found["ids"] == merged["ids"]
    if expected == "good":
        assert math.exp(found["loss"] - merged["loss"]) <= PERPLEXITY_BOUNDS[bound]
    if not file:
        assert found["prompt"] == merged["prompt"]
    if "ollama" in EXPORTS[name][0]:
        modelfile = (tmp_path / f"{name}-ollama" / "Modelfile").read_text(encoding="utf-8")
        assert modelfile.startswith(f"FROM {target / file}\n")


@pytest.mark.parametrize("name", ["merge", "bnb8", "bnb4", "rtn4"])
def test_transformers_4_reads_the_same(
    name: str, checkpoint: Path, merged: dict[str, Any], tmp_path: Path
) -> None:
    python = environment("FT_V4_PYTHON")
    target = checkpoint.with_name("checkpoint-4-merged")
    if name != "merge":
        target = tmp_path / name
        export(name, checkpoint, target)
    ours, theirs = probe(target), probe(target, python=python)
    assert theirs["ids"] == ours["ids"]
    assert theirs["prompt"] == ours["prompt"]
    assert theirs["loss"] == pytest.approx(ours["loss"], rel=5e-3)
