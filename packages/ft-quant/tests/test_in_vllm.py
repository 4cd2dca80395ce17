"""Quantized exports of the real model in a real vLLM: it loads them, and says what is so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

VLLM = os.environ.get("FT_VLLM_PYTHON")
GPTQMODEL = os.environ.get("FT_QUANT_PYTHON")
CALIBRATION = "--dataset starter-instructions --quant_n_samples 8 --quant_seqlen 64"
EXPORTS = {
    "rtn8": "--quant_method rtn --quant_bits 8",
    "rtn4": "--quant_method rtn --quant_bits 4",
    "gptq4": f"--quant_method gptq --quant_bits 4 {CALIBRATION}",
}
SCRIPT = """
import json, sys
from vllm import LLM, SamplingParams
if __name__ == "__main__":
    model = LLM(sys.argv[1], dtype="bfloat16", max_model_len=256, enforce_eager=True, max_num_seqs=4)
    talk = [{"role": "user", "content": "What is the capital of France?"}]
    (answer,) = model.chat(talk, SamplingParams(temperature=0, max_tokens=24))
    print(json.dumps({"answer": answer.outputs[0].text}))
"""

pytestmark = [
    pytest.mark.accept,
    pytest.mark.skipif(VLLM is None, reason="needs vLLM: make test-vllm"),
]


@pytest.mark.parametrize("name", EXPORTS)
def test_vllm_answers_with_what_was_exported(name: str, tmp_path: Path) -> None:
    words = EXPORTS[name].split()
    if name.startswith("gptq"):
        if GPTQMODEL is None:
            pytest.skip("FT_QUANT_PYTHON names no Python (scripts/quant_environments.sh makes one)")
        words += ["--quant_python", GPTQMODEL]
    target = tmp_path / name
    words += ["--model_type", "smollm2-135m-instruct", "--quant_output_dir", str(target)]
    made = subprocess.run(
        [sys.executable, "-m", "ft_cli", "export", *words, "--verify", "false"],
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr[-3000:]
    script = tmp_path / "ask.py"
    script.write_text(SCRIPT, encoding="utf-8")
    environment = {
        **os.environ,
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    asked = subprocess.run(
        [str(VLLM), str(script), str(target)], env=environment, capture_output=True, text=True
    )
    assert asked.returncode == 0, asked.stderr[-3000:]
    assert "Paris" in json.loads(asked.stdout.splitlines()[-1])["answer"]
