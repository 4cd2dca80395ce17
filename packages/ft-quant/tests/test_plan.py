"""What an export makes and refuses, known before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ft_core import ModelError, UsageError
from ft_core.checkpoints import SavedCheckpoint
from ft_quant.calibration import cut
from ft_quant.export_arguments import ConvertArguments, PublishArguments, QuantizeArguments
from ft_quant.methods.availability import check_installed
from ft_quant.plan import Plan, plan_export


def plan(checkpoint: SavedCheckpoint | None, *, merge_lora: bool = False, **flags: Any) -> Plan:
    quantize, convert = (
        group(**{name: value for name, value in flags.items() if name in group.model_fields})
        for group in (QuantizeArguments, ConvertArguments)
    )
    return plan_export(
        "qwen", checkpoint, merge_lora=merge_lora, quantize=quantize, convert=convert
    )


@pytest.fixture
def lora(tmp_path: Path) -> SavedCheckpoint:
    return SavedCheckpoint(tmp_path / "v0" / "checkpoint-7", "lora", {})


def test_results_of_a_model_go_here_and_those_of_a_checkpoint_beside_it(
    lora: SavedCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = plan(None, quant_method="gptq", quant_bits=8, to_gguf="q8_0", to_ollama=True).targets
    assert made == {
        "quantized": tmp_path / "qwen-gptq-int8",
        "gguf": tmp_path / "qwen-gguf-q8_0",
        "ollama": tmp_path / "qwen-ollama",
    }
    made = plan(lora, merge_lora=True, quant_bits=4).targets
    assert made == {
        "merged": tmp_path / "v0" / "checkpoint-7-merged",
        "quantized": tmp_path / "v0" / "checkpoint-7-awq-int4",
    }
    assert plan(lora, quant_bits=4, quant_output_dir="here").targets == {
        "quantized": tmp_path / "here"
    }


def test_an_adapter_is_merged_on_the_way_and_that_is_said(lora: SavedCheckpoint) -> None:
    quantized = plan(lora, quant_bits=4)
    assert quantized.merges and not quantized.keeps_merged
    assert "is not kept" in quantized.notes[0]
    ollama = plan(lora, to_ollama=True)
    assert ollama.keeps_merged and "is kept" in ollama.notes[0]
    assert not plan(lora, to_ollama=True, to_gguf="f16").keeps_merged
    assert plan(lora, merge_lora=True, quant_bits=4).notes == ()
    assert "ollama create -q" in plan(None, quant_bits=4, to_ollama=True).notes[0]


def test_what_cant_be_exported_is_refused(lora: SavedCheckpoint, tmp_path: Path) -> None:
    whole = SavedCheckpoint(tmp_path / "whole", "full", {})
    bottleneck = SavedCheckpoint(tmp_path / "narrow", "adapter", {})
    with pytest.raises(UsageError, match="nothing to export: give --merge_lora"):
        plan(lora)
    with pytest.raises(UsageError, match="--merge_lora true needs --ckpt_dir"):
        plan(None, merge_lora=True)
    with pytest.raises(ModelError, match="holds a whole model, not an adapter"):
        plan(whole, merge_lora=True)
    with pytest.raises(ModelError, match="can't be exported as a whole model: its bottlenecks"):
        plan(bottleneck, quant_bits=4)
    with pytest.raises(UsageError, match="--to_peft_format true needs --ckpt_dir"):
        plan(None, to_peft_format=True)
    (lora.path).mkdir(parents=True)
    (lora.path / "adapter_config.json").write_text(json.dumps({}))
    with pytest.raises(UsageError, match="holds an adapter of peft already"):
        plan(lora, to_peft_format=True)
    taken = tmp_path / "taken"
    taken.mkdir()
    with pytest.raises(UsageError, match=r"taken exists already.*another --quant_output_dir"):
        plan(lora, quant_bits=4, quant_output_dir=str(taken))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            {"quant_method": "awq", "quant_bits": 8},
            "awq stores weights in 4 bit; gptq, bnb, rtn, fp8 can do 8",
        ),
        ({"quant_method": "gptq", "quantization_bit": 4}, "give --quant_bits 4"),
        ({"quant_method": "gptq"}, r"no effect without --quant_bits.*\(2, 3, 4 or 8 for gptq\)"),
        ({"quant_method": "bnb", "quant_bits": 4, "quant_group_size": 64}, "setting of awq, gptq"),
        ({"quant_method": "rtn", "quant_bits": 4, "quant_python": "x"}, "needs no other environ"),
    ],
)
def test_flags_of_quantizing_that_dont_go_together(flags: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        QuantizeArguments(**flags).check(frozenset(flags))


def test_flags_of_other_things_that_dont_go_together() -> None:
    with pytest.raises(UsageError, match="--push_to_hub true needs --hub_model_id"):
        PublishArguments(push_to_hub=True).check(frozenset({"push_to_hub"}))
    with pytest.raises(UsageError, match="--commit_message has no effect without --push_to_hub"):
        PublishArguments(commit_message="x").check(frozenset({"commit_message"}))
    with pytest.raises(UsageError, match="matrices of an adapter are f32 or f16"):
        ConvertArguments(to_gguf="q8_0", gguf_adapter=True).check(frozenset({"gguf_adapter"}))
    with pytest.raises(UsageError, match="goes with neither --to_ollama"):
        ConvertArguments(to_gguf="f16", gguf_adapter=True, to_ollama=True).check(frozenset())
    with pytest.raises(UsageError, match="--gguf_output_dir has no effect without --to_gguf"):
        ConvertArguments(gguf_output_dir="x").check(frozenset({"gguf_output_dir"}))
    with pytest.raises(UsageError, match="--ollama_output_dir has no effect without"):
        ConvertArguments(ollama_output_dir="x").check(frozenset({"ollama_output_dir"}))


def test_an_interpreter_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--quant_python .*there is no such file"):
        check_installed("gptq", python=str(tmp_path / "python"), verify=True)
    (tmp_path / "python").write_text("x")
    with pytest.raises(UsageError, match="doesn't run as a Python"):
        check_installed("gptq", python=str(tmp_path / "python"), verify=True)


def test_rows_are_joined_and_cut() -> None:
    rows = [[1, 2, 3], [4, 5], [6, 7, 8, 9]]
    made = cut(rows, count=2, length=4, exact=True, longest=None)
    assert made.texts == ((1, 2, 3, 4), (5, 6, 7, 8)) and made.note == ""
    assert "give 3 texts of 3 tokens, fewer than --quant_n_samples 5" in (
        cut(rows, count=5, length=3, exact=True, longest=8).note
    )
    long = [list(range(4000))]
    assert cut(long, count=256, length=2048, exact=False, longest=None).length == 250
    assert cut(long, count=256, length=2048, exact=False, longest=100).length == 100
    with pytest.raises(UsageError, match=r"3 calibration rows have 9 tokens.*--quant_seqlen 10"):
        cut(rows, count=1, length=10, exact=True, longest=None)
    with pytest.raises(UsageError, match="the model was made for 8 tokens"):
        cut(rows, count=1, length=9, exact=True, longest=8)


def test_flags_of_other_methods_are_told() -> None:
    def idle(**flags: Any) -> frozenset[str]:
        return QuantizeArguments(**flags).without_effect()

    assert "quant_seqlen" in idle(quant_method="rtn", quant_bits=4)
    assert "quant_device_map" in idle(quant_method="rtn", quant_bits=4)
    assert "bnb_4bit_quant_type" in idle(quant_method="bnb", quant_bits=8)
    assert "bnb_4bit_quant_type" not in idle(quant_method="bnb", quant_bits=4)
    assert "quant_seqlen" not in idle(quant_method="gptq", quant_bits=4)
    assert "hqq_axis" in idle(quant_method="gptq", quant_bits=4)
