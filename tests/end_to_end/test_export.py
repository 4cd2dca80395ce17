"""``ft export`` as a person runs it, its results loaded by plain transformers."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import torch
import transformers

from ft_core.testing import tiny_model

Ft = Callable[..., CompletedProcess[str]]

IDS = torch.tensor([[5, 9, 17, 33, 2, 250, 71, 8]])


def logits(directory: Path, **how: Any) -> torch.Tensor:
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, **how)
    with torch.no_grad():
        found: torch.Tensor = model.eval()(IDS).logits
    return found


def test_an_adapter_is_merged_quantized_and_converted_in_one_command(
    ft: Ft, trained: Path, tmp_path: Path
) -> None:
    checkpoint = trained / "checkpoint-4"
    done = ft(
        *("export", "--ckpt_dir", checkpoint, "--merge_lora", "true", "--quant_method", "bnb"),
        *("--quant_bits", 8, "--quant_output_dir", tmp_path / "small", "--to_gguf", "f32"),
        *("--gguf_output_dir", tmp_path / "gguf", "--to_ollama", "true", "--temperature", 0.7),
        *("--compat", "v4"),
        cwd=tmp_path,
    )
    merged = trained / "checkpoint-4-merged"
    kinds = [line.split()[0] for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert kinds == ["merged", "quantized", "gguf", "ollama"]
    assert done.stdout.count("perplexity") == 3
    for target in (merged, tmp_path / "small"):
        record = json.loads((target / "export.json").read_text(encoding="utf-8"))
        assert record["verification"]["verdict"] in ("good", "worse")
        assert record["verification"]["same_prompts"] is True
    torch.testing.assert_close(
        logits(tmp_path / "gguf", gguf_file="model-f32.gguf"), logits(merged), atol=1e-5, rtol=1e-5
    )
    assert json.loads((merged / "config.json").read_text(encoding="utf-8"))["rope_theta"]
    modelfile = next(tmp_path.glob("*-ollama")) / "Modelfile"
    text = modelfile.read_text(encoding="utf-8")
    assert text.startswith(f"FROM {tmp_path / 'gguf' / 'model-f32.gguf'}\n")
    assert 'PARAMETER stop "<|im_end|>"' in text and "PARAMETER temperature 0.7" in text
    again = ft("export", "--ckpt_dir", checkpoint, "--merge_lora", "true", code=2)
    assert f"{merged} exists already" in again.stderr


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        ((), 2, "nothing to export: give --merge_lora true"),
        (("--quant_bits", 5), 2, "--quant_bits 5: allowed are 0, 2, 3, 4, 8"),
        (("--quant_bits", 4, "--quant_method", "eetq"), 2, "allowed are awq, gptq, bnb"),
        (("--quant_bits", 8), 2, "awq stores weights in 4 bit; gptq, bnb"),
        (("--merge_lora", "true"), 2, "--merge_lora true needs --ckpt_dir"),
        (
            ("--ckpt_dir", "nowhere", "--merge_lora", "true"),
            1,
            "--ckpt_dir nowhere: does not exist",
        ),
        (("--push_to_hub", "true"), 2, "--push_to_hub true needs --hub_model_id"),
        (("--quantization_bit", 4), 2, "give --quant_bits 4"),
    ],
)
def test_bad_input(ft: Ft, model: Path, flags: tuple[object, ...], code: int, said: str) -> None:
    named = () if "--ckpt_dir" in flags else ("--model_id_or_path", model)
    assert said in ft("export", *named, *flags, code=code).stderr


def test_a_method_whose_package_is_missing_is_named(ft: Ft, model: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("gptqmodel") is not None:
        pytest.skip("GPTQModel is installed here")
    done = ft("export", "--model_id_or_path", model, "--quant_bits", 4, cwd=tmp_path, code=1)
    assert "--quant_method awq needs GPTQModel: pip install 'ft-quant[awq]'" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_writes_nothing(ft: Ft, model: Path, tmp_path: Path) -> None:
    done = ft(
        *("export", "--model_id_or_path", model, "--to_gguf", "q8_0", "--max_new_tokens", 5),
        "--dry_run",
        cwd=tmp_path,
    )
    assert "gguf" in done.stdout and "memory" in done.stdout
    assert "--max_new_tokens has no effect on this export" in done.stderr
    assert "nothing was made or written" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "bits"), [("awq", 4), ("gptq", 4), ("gptq", 3), ("rtn", 4), ("fp8", 8)]
)
def test_methods_that_need_their_packages(ft: Ft, tmp_path: Path, method: str, bits: int) -> None:
    """``FT_QUANT_PYTHON`` may name the Python of an environment that has GPTQModel."""
    foreign = method in ("awq", "gptq")
    python = os.environ.get("FT_QUANT_PYTHON") if foreign else None
    needed = "gptqmodel" if foreign else "compressed_tensors"
    if python is None and importlib.util.find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed (and FT_QUANT_PYTHON names no environment with it)")
    model = tiny_model(
        tmp_path / "tiny", hidden_size=256, intermediate_size=512, initializer_range=0.1
    )
    done = ft(
        *("export", "--model_id_or_path", model, "--quant_method", method, "--quant_bits", bits),
        *("--dataset", "starter-instructions", "--quant_n_samples", 8, "--quant_seqlen", 64),
        *(() if python is None else ("--quant_python", python)),
        cwd=tmp_path,
    )
    target = tmp_path / f"tiny-{method}-int{bits}"
    record = json.loads((target / "export.json").read_text(encoding="utf-8"))
    assert record["verification"]["verdict"] != "broken"
    assert record["verification"]["same_choice"] > 0.3  # a random model is sure of nothing
    assert f"{target} (" in done.stdout
