"""Exporting: what lies in a result, that it is proven, and that nothing half-written gets its name."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
import yaml
from safetensors.torch import load_file

from ft_core.errors import FtError, ModelError
from ft_core.models.loading import load_model
from ft_core.tuners import TUNERS, LoraSettings
from ft_core.tuners.backends import tuner_for
from ft_quant.compat import make_readable_by_v4
from ft_quant.dry_run import describe
from ft_quant.export import ExportJob, export
from ft_quant.methods import compressed
from ft_quant.methods.request import QuantizeRequest

Job = Callable[..., ExportJob]


@pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None,
    reason="bitsandbytes is not installed (pip install 'ft-quant[bnb]')",
)
def test_an_adapter_becomes_a_quantized_model_in_one_go(
    job: Job, base: Path, adapter: Path, tmp_path: Path
) -> None:
    made = export(
        job(
            base,
            adapter,
            quant_method="bnb",
            quant_bits=8,
            quant_output_dir=str(tmp_path / "small"),
        )
    )
    assert [item.kind for item in made] == ["quantized"]
    target = tmp_path / "small"
    assert made[0].path == target
    proof = made[0].proof
    assert proof is not None and proof.verdict != "broken" and proof.same_prompts
    assert proof.before > 1 and abs(proof.after / proof.before - 1) < 0.1
    assert "perplexity" in str(made[0]) and str(target) in str(made[0])
    record = json.loads((target / "export.json").read_text(encoding="utf-8"))
    assert (record["made"], record["method"], record["bits"]) == ("quantized", "bnb", 8)
    weights = adapter / "adapter_model.safetensors"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert record["origin"]["checkpoint"]["sha256"] == {weights.name: digest}
    assert record["verification"]["verdict"] == proof.verdict
    digest = hashlib.sha256((target / "model.safetensors").read_bytes()).hexdigest()
    assert record["files"]["model.safetensors"]["sha256"] == digest
    assert "transformers" in record["versions"]
    head = (target / "README.md").read_text(encoding="utf-8").split("---")[1]
    assert yaml.safe_load(head)["library_name"] == "transformers"
    assert "rows.jsonl" in (target / "README.md").read_text(encoding="utf-8")
    assert {stat.st_mode & 0o077 for stat in map(os.stat, target.iterdir())} == {0o044}
    arguments = json.loads((target / "sft_args.json").read_text(encoding="utf-8"))
    assert arguments["sft_type"] == "full"
    assert not list(tmp_path.glob(".*"))


def test_a_broken_result_is_refused_and_leaves_nothing(
    job: Job, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(request: QuantizeRequest) -> dict[str, object]:
        model = load_model(request.source, dtype=torch.float32)
        model.get_input_embeddings().weight.data[:] = float("nan")
        model.save_pretrained(request.target)
        return {}

    monkeypatch.setattr(compressed, "quantize", spoil)
    flags = {"quant_method": "rtn", "quant_bits": 4, "quant_output_dir": str(tmp_path / "out")}
    said: list[str] = []
    with pytest.raises(ModelError, match=r"broken model, so nothing was written.*--force true"):
        export(job(base, **flags))
    assert list(tmp_path.iterdir()) == []
    forced = job(base, **flags, force=True)
    object.__setattr__(forced, "say", said.append)
    made = export(forced)
    assert made[0].proof is not None and made[0].proof.verdict == "broken"
    assert any("--force" in line for line in said)
    assert (
        json.loads((tmp_path / "out" / "export.json").read_text())["verification"][
            "perplexity_after"
        ]
        is None
    )


def test_a_disk_that_is_full_leaves_nothing(
    job: Job, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(request: QuantizeRequest) -> dict[str, object]:
        (request.target / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(compressed, "quantize", fill)
    flags = {"quant_method": "rtn", "quant_bits": 4, "quant_output_dir": str(tmp_path / "out")}
    with pytest.raises(FtError, match=r"out can't be written: No space left on device"):
        export(job(base, **flags))
    assert list(tmp_path.iterdir()) == []

    def stop(request: QuantizeRequest) -> dict[str, object]:
        raise KeyboardInterrupt

    monkeypatch.setattr(compressed, "quantize", stop)
    with pytest.raises(KeyboardInterrupt):
        export(job(base, **flags))
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_of_the_older_layout_becomes_one_of_peft(
    job: Job, base: Path, tmp_path: Path
) -> None:
    older = tmp_path / "checkpoint-9"
    older.mkdir()
    tuner = tuner_for("lora", "swift")
    model = load_model(base, dtype=torch.float32, for_training=True)
    model = tuner.apply(model, LoraSettings(target_modules=("q_proj",)))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.fill_(0.05)
    tuner.save(model, older)
    assert (older / "default" / "adapter_config.json").is_file()
    (older / "optimizer.pt").write_bytes(b"x")
    (older / "sft_args.json").write_text(
        json.dumps({"model_id_or_path": str(base), "sft_type": "lora", "tuner_backend": "swift"})
    )
    made = export(job(base, older, to_peft_format=True))
    assert made[0].path == tmp_path / "checkpoint-9-peft" and made[0].proof is None
    assert not (made[0].path / "optimizer.pt").exists()
    assert json.loads((made[0].path / "sft_args.json").read_text())["tuner_backend"] == "peft"
    plain = TUNERS.get("lora").load(load_model(base, dtype=torch.float32), made[0].path)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        torch.testing.assert_close(plain(input_ids=ids).logits, model.eval()(input_ids=ids).logits)


def test_configurations_for_transformers_4(base: Path, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((base / name).read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["rope_parameters"] = {"rope_type": "linear", "rope_theta": 5e5, "factor": 2.0}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "TokenizersBackend"}')
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    make_readable_by_v4(tmp_path)
    found = json.loads((tmp_path / "config.json").read_text())
    assert (found["rope_theta"], found["torch_dtype"]) == (5e5, "float32")
    assert found["rope_scaling"] == {"rope_type": "linear", "factor": 2.0}
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert settings["chat_template"] == "{{ messages }}"
    again = transformers.AutoConfig.from_pretrained(tmp_path)
    assert again.rope_parameters["rope_theta"] == 5e5


def test_a_dry_run_names_sizes(job: Job, base: Path, adapter: Path, tmp_path: Path) -> None:
    asked = job(base, adapter, merge_lora=True, quant_method="rtn", quant_bits=4, to_gguf="q8_0")
    lines = list(describe(asked.prepared, asked.plan, asked.quantize, asked.convert))
    assert [line.split()[0] for line in lines] == ["merged", "quantized", "gguf", "memory"]
    assert "checkpoint-3-merged" in lines[0] and "groups of 64" in lines[1]
    size = sum(t.numel() * 4 for t in load_file(base / "model.safetensors").values())
    assert f"about {size / 1e6:,.1f} MB" in lines[0]
    assert not any(target.exists() for target in asked.plan.targets.values())
