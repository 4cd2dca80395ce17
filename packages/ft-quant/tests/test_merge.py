"""Merging: the whole model on disk against base and adapter, what comes along, and what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from ft_core import ModelError, UsageError
from ft_core.checkpoints import open_checkpoint, write_sidecars
from ft_core.errors import FtError
from ft_core.models.loading import load_checkpoint, load_model
from ft_core.testing import tiny_model
from ft_core.tokenizer import Tokenizer
from ft_core.tuners import (
    TUNERS,
    AdaLoraSettings,
    AdapterSettings,
    BoftSettings,
    FourierFtSettings,
    Ia3Settings,
    LlamaProSettings,
    LongLoraSettings,
    LoraSettings,
    VeraSettings,
)
from ft_core.tuners.backends import tuner_for
from ft_quant import MergeReport, merge_checkpoint

IDS = torch.tensor([[5, 9, 17, 33, 2, 250, 71, 8]])


def silent(sentence: str) -> None:
    """Say nothing of progress."""


def merge(*arguments: Any, **settings: Any) -> MergeReport:
    return merge_checkpoint(*arguments, report=silent, **settings)


def make_checkpoint(
    root: Path,
    architecture: str = "llama",
    *,
    dtype: torch.dtype = torch.float32,
    sidecars: bool = True,
    **settings: Any,
) -> Path:
    """Write a base model and the checkpoint of an adapter whose numbers are far from zero."""
    base = tiny_model(root / "base", architecture, initializer_range=0.2)
    model = load_model(base, dtype=torch.float32, for_training=True)
    if dtype != torch.float32:
        model.to(dtype).save_pretrained(base)
    lora = TUNERS.get("lora")
    model = lora.apply(model, LoraSettings(**{"target_modules": ("ALL",), **settings}))
    generator = torch.Generator().manual_seed(7)
    for name, parameter in model.named_parameters():
        if "lora_" in name or name.endswith(".bias"):
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data.copy_(0.1 * noise)
    checkpoint = root / "run" / "checkpoint-3"
    checkpoint.mkdir(parents=True)
    lora.save(model, checkpoint)
    if sidecars:
        write_sidecars(
            checkpoint,
            tokenizer=Tokenizer.from_directory(base),
            chat_template="{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}",
            generation_config=transformers.GenerationConfig(eos_token_id=[2, 0]),
            arguments={
                "model_id_or_path": str(base),
                "sft_type": "lora",
                "template_type": "AUTO",
                "dtype": "AUTO",
                "lora_rank": 8,
                "quantization_bit": 4,
                "quant_method": "bnb",
            },
        )
    return checkpoint


def plain_logits(directory: Path) -> torch.Tensor:
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    with torch.no_grad():
        logits: torch.Tensor = model(IDS).logits
    return logits


def adapter_logits(checkpoint: Path) -> torch.Tensor:
    """Base and adapter as plain peft loads them."""
    base = json.loads((checkpoint / "adapter_config.json").read_text())["base_model_name_or_path"]
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with torch.no_grad():
        logits: torch.Tensor = peft.PeftModel.from_pretrained(model, checkpoint).eval()(IDS).logits
    return logits


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma3_text", "phi3"])
def test_answers_like_base_and_adapter(tmp_path: Path, architecture: str) -> None:
    checkpoint = make_checkpoint(tmp_path, architecture)
    report = merge(checkpoint)
    expected = adapter_logits(checkpoint)
    assert (expected - plain_logits(tmp_path / "base")).abs().max() > 0.1
    torch.testing.assert_close(plain_logits(report.path), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.filterwarnings(
    "ignore:Model (has|with) `tie_word_embeddings=True`"
)  # plain peft warns
def test_adapted_embeddings_and_biases_of_a_tied_model(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(
        tmp_path, "gemma", target_modules=("ALL", "EMBEDDING"), bias="none"
    )
    report = merge(checkpoint)
    torch.testing.assert_close(
        plain_logits(report.path), adapter_logits(checkpoint), atol=1e-4, rtol=1e-4
    )


def test_trained_biases(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path, "qwen2", bias="all")
    report = merge(checkpoint)
    torch.testing.assert_close(
        plain_logits(report.path), load_and_ask(checkpoint), atol=1e-4, rtol=1e-4
    )


def load_and_ask(checkpoint: Path) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = load_checkpoint(checkpoint, dtype=torch.float32)(IDS).logits
    return logits


def test_what_is_written(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path)
    report = merge(checkpoint)
    assert report.path == checkpoint.with_name("checkpoint-3-merged")
    assert sorted(file.name for file in report.path.iterdir()) == [
        "chat_template.jinja",
        "config.json",
        "export.json",
        "generation_config.json",
        "model.safetensors",
        "sft_args.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    for name in ("chat_template.jinja", "generation_config.json", "tokenizer.json"):
        assert (report.path / name).read_bytes() == (checkpoint / name).read_bytes()
    assert json.loads((report.path / "sft_args.json").read_text()) == {
        "model_id_or_path": str(tmp_path / "base"),
        "sft_type": "full",
        "template_type": "AUTO",
        "dtype": "fp32",
        "lora_rank": 8,
        "quantization_bit": 0,
        "quant_method": None,
    }
    assert open_checkpoint(report.path).kind == "full"
    record = json.loads((report.path / "export.json").read_text())
    assert (record["made"], record["verification"]) == ("merged", None)
    adapter = hashlib.sha256((checkpoint / "adapter_model.safetensors").read_bytes()).hexdigest()
    assert record["origin"]["checkpoint"]["sha256"] == {"adapter_model.safetensors": adapter}
    assert {"torch", "ft-quant"} <= set(record["versions"])
    weights = (report.path / "model.safetensors").stat().st_size
    assert (report.base, report.dtype, report.size) == (str(tmp_path / "base"), "fp32", weights)
    tensors = load_file(report.path / "model.safetensors")
    assert report.parameters == sum(tensor.numel() for tensor in tensors.values())
    assert f"merged into {tmp_path / 'base'}: {report.path} (" in str(report)
    assert [item.name for item in checkpoint.parent.iterdir() if item.name.startswith(".")] == []


def test_what_the_checkpoint_lacks_comes_from_the_base(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path, sidecars=False)
    base = tmp_path / "base"
    # Published models carry such files, which transformers reads but refuses to write.
    sampling = {**json.loads((base / "generation_config.json").read_text()), "temperature": 0.6}
    (base / "generation_config.json").write_text(json.dumps(sampling))
    (base / "chat_templates").mkdir()
    (base / "chat_templates" / "tools.jinja").write_text("{{ messages }}")
    report = merge(checkpoint)
    for name in (
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
        "chat_templates/tools.jinja",
    ):
        assert (report.path / name).read_bytes() == (base / name).read_bytes()
    assert json.loads((report.path / "sft_args.json").read_text()) == {
        "sft_type": "full",
        "dtype": "fp32",
    }


@pytest.mark.parametrize(
    ("stored", "asked", "written"),
    [
        (torch.bfloat16, "AUTO", "bf16"),
        (torch.float16, "AUTO", "fp16"),
        (torch.bfloat16, "fp32", "fp32"),
        (torch.float32, "bf16", "bf16"),
    ],
)
def test_data_types(tmp_path: Path, stored: torch.dtype, asked: Any, written: str) -> None:
    checkpoint = make_checkpoint(tmp_path, dtype=stored)
    report = merge(checkpoint, dtype=asked)
    assert report.dtype == written
    torch_name = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}[written]
    assert json.loads((report.path / "config.json").read_text())["dtype"] == torch_name
    tensors = load_file(report.path / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {getattr(torch, torch_name)}


def test_each_weight_is_rounded_once(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path, dtype=torch.bfloat16)
    name = "model.layers.0.self_attn.q_proj.weight"
    base = load_file(tmp_path / "base" / "model.safetensors")[name].float()
    adapter = load_file(checkpoint / "adapter_model.safetensors")
    key = f"base_model.model.{name.removesuffix('.weight')}"
    product = adapter[f"{key}.lora_B.weight"].float() @ adapter[f"{key}.lora_A.weight"].float()
    expected = (base + product * (32 / 8)).to(torch.bfloat16)
    merged = load_file(merge(checkpoint).path / "model.safetensors")[name]
    # Sums in another order differ in their last bit, which may decide a rounding.
    assert (merged != expected).float().mean() < 0.01


def test_a_base_that_says_no_data_type(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path, dtype=torch.float16)
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    del config["dtype"]
    (tmp_path / "base" / "config.json").write_text(json.dumps(config))
    assert merge(checkpoint).dtype == "fp16"


def test_pickled_weights(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path)
    report = merge(checkpoint, safe_serialization=False)
    assert (report.path / "pytorch_model.bin").stat().st_size == report.size
    assert not list(report.path.glob("*.safetensors"))
    torch.testing.assert_close(
        plain_logits(report.path), adapter_logits(checkpoint), atol=1e-4, rtol=1e-4
    )


def test_named_output_and_device(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path)
    for device in ("cpu", "auto"):
        report = merge(checkpoint, tmp_path / "deep" / device, device=device)
        assert report.path == tmp_path / "deep" / device
        assert (report.path / "model.safetensors").is_file()


def test_progress_is_told(tmp_path: Path) -> None:
    said: list[str] = []
    merge_checkpoint(make_checkpoint(tmp_path), report=said.append)
    assert said == [
        "the adapter was trained on weights of 4 bits and goes into the plain ones of base, so answers may differ "
        "a little from those of the training",
        "merging the adapter of checkpoint-3 into base",
    ]


def test_an_existing_model_is_refused_or_replaced(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path)
    target = merge(checkpoint).path
    (target / "stale.txt").write_text("old")
    with pytest.raises(UsageError, match=r"checkpoint-3-merged exists already"):
        merge(checkpoint)
    assert (target / "stale.txt").exists()
    merge(checkpoint, overwrite=True)
    assert not (target / "stale.txt").exists()
    assert (target / "model.safetensors").is_file()


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path)
    target = merge(checkpoint).path
    before = (target / "model.safetensors").read_bytes()
    file = checkpoint / "adapter_model.safetensors"
    tensors = load_file(file)
    next(iter(tensors.values()))[0, 0] = float("nan")
    save_file(tensors, file)
    with pytest.raises(ModelError, match="can't be merged"):
        merge(checkpoint, overwrite=True)
    assert (target / "model.safetensors").read_bytes() == before
    assert sorted(item.name for item in checkpoint.parent.iterdir()) == [
        "checkpoint-3",
        "checkpoint-3-merged",
    ]


@pytest.mark.parametrize("where", ["checkpoint", "parent", "base"])
def test_never_replaces_what_it_is_made_from(tmp_path: Path, where: str) -> None:
    checkpoint = make_checkpoint(tmp_path)
    target = {"checkpoint": checkpoint, "parent": tmp_path, "base": tmp_path / "base"}[where]
    with pytest.raises(UsageError, match="give another directory"):
        merge(checkpoint, target, overwrite=True)
    assert (tmp_path / "base" / "model.safetensors").is_file()


def test_never_replaces_something_else(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path)
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.tex").write_text("precious")
    with pytest.raises(UsageError, match="something else than a model"):
        merge(checkpoint, tmp_path / "papers", overwrite=True)
    with pytest.raises(UsageError, match="is a file"):
        merge(checkpoint, tmp_path / "papers" / "thesis.tex", overwrite=True)
    assert (tmp_path / "papers" / "thesis.tex").read_text() == "precious"


def test_whole_models_have_nothing_to_merge(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path)
    for whole in (merge(checkpoint).path, tmp_path / "base"):
        with pytest.raises(ModelError, match=rf"{whole}: holds a whole model.*ft infer --ckpt_dir"):
            merge(whole)


TUNED = {
    "longlora": LongLoraSettings(rank=2),
    "adalora": AdaLoraSettings(init_r=4, target_r=2, total_steps=5),
    "ia3": Ia3Settings(),
    "vera": VeraSettings(rank=8),
    "boft": BoftSettings(),
    "fourierft": FourierFtSettings(n_frequency=50),
}


def tuned_checkpoint(root: Path, name: str, settings: Any, backend: Any = "peft") -> Path:
    """Write a checkpoint of a tuner whose trained numbers are moved at random."""
    base = tiny_model(root / "base", initializer_range=0.2)
    tuner = tuner_for(name, backend)
    torch.manual_seed(3)
    model = tuner.apply(load_model(base, dtype=torch.float32, for_training=True), settings)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    checkpoint = root / "run" / "checkpoint-3"
    checkpoint.mkdir(parents=True)
    tuner.save(model, checkpoint)
    arguments = {"sft_type": name, "model_id_or_path": str(base), "template_type": "chatml"}
    write_sidecars(checkpoint, arguments=arguments)
    return checkpoint


@pytest.mark.parametrize(
    ("name", "backend"), [*((name, "peft") for name in TUNED), ("longlora", "swift")]
)
def test_adapters_of_every_kind_are_merged(name: str, backend: str, tmp_path: Path) -> None:
    checkpoint = tuned_checkpoint(tmp_path, name, TUNED[name], backend)
    adapted = load_checkpoint(checkpoint, dtype=torch.float32)
    merged = transformers.AutoModelForCausalLM.from_pretrained(merge(checkpoint).path)
    with torch.no_grad():
        expected = adapted.eval()(IDS).logits
        torch.testing.assert_close(merged.eval()(IDS).logits, expected, rtol=0, atol=2e-4)


def test_what_can_not_be_merged_says_why_before_loading(tmp_path: Path) -> None:
    bottlenecks = tuned_checkpoint(tmp_path / "one", "adapter", AdapterSettings(length=4))
    shutil.rmtree(tmp_path / "one" / "base")  # not even looked for
    with pytest.raises(ModelError, match="--sft_type adapter and can't be merged: its bottlenecks"):
        merge(bottlenecks)
    grown = tuned_checkpoint(tmp_path / "two", "llamapro", LlamaProSettings(num_new_blocks=1))
    with pytest.raises(ModelError, match=r"holds a whole model.*--sft_type llamapro"):
        merge(grown)


def break_nothing_there(checkpoint: Path) -> None:
    shutil.rmtree(checkpoint)


def break_weights_gone(checkpoint: Path) -> None:
    (checkpoint / "adapter_model.safetensors").unlink()


def break_weights_damaged(checkpoint: Path) -> None:
    (checkpoint / "adapter_model.safetensors").write_bytes(b"\0" * 100)


def break_base_gone(checkpoint: Path) -> None:
    shutil.rmtree(checkpoint.parent.parent / "base")


def break_base_other(checkpoint: Path) -> None:
    tiny_model(checkpoint.parent.parent / "base", hidden_size=64)


def break_base_quantized(checkpoint: Path) -> None:
    file = checkpoint.parent.parent / "base" / "config.json"
    config = json.loads(file.read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    file.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (break_nothing_there, "does not exist"),
        (break_weights_gone, "no adapter weights"),
        (break_weights_damaged, "is damaged"),
        (break_base_gone, "no such directory"),
        (break_base_other, "doesn't fit"),
        (break_base_quantized, r"is quantized \(gptq\)"),
    ],
)
def test_broken_checkpoints(tmp_path: Path, break_it: Callable[[Path], None], words: str) -> None:
    checkpoint = make_checkpoint(tmp_path)
    break_it(checkpoint)
    with pytest.raises(ModelError, match=words):
        merge(checkpoint)
    assert not checkpoint.with_name("checkpoint-3-merged").exists()


def test_unknown_devices(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path)
    for device in ("gpu", "xla:3"):
        with pytest.raises(UsageError, match=f"--merge_device_map {device}: .* use cpu or auto"):
            merge(checkpoint, device=device)


def test_output_that_cant_be_written(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(FtError, match="can't be written"):
        merge(checkpoint, tmp_path / "file" / "merged")
