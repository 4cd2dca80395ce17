"""GGUF files: transformers reads the same logits and tokens, and every value is where the format says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from ft_core import ModelError, UsageError
from ft_core.models.loading import load_model
from ft_core.testing import tiny_model
from ft_core.tuners import TUNERS, LoraSettings
from ft_quant import merge_checkpoint
from ft_quant.export import ExportJob
from ft_quant.gguf.adapter import write_adapter
from ft_quant.gguf.families import FAMILIES, describe, family_of, lay_out, rotation_factors
from ft_quant.gguf.vocabulary import read_vocabulary, split_name
from ft_quant.gguf.write import write_gguf

gguf = pytest.importorskip("gguf", reason="gguf is not installed (pip install 'ft-quant[gguf]')")
GGUFReader, dequantize = gguf.GGUFReader, gguf.dequantize

IDS = torch.tensor([[5, 9, 17, 33, 2, 250, 71, 8]])
Job = Callable[..., ExportJob]


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(IDS).logits
    return found


def write(job: Job, model: Path, target: Path, kind: str, **flags: Any) -> str:
    target.mkdir()
    return write_gguf(
        job(model, to_gguf=kind, gguf_output_dir=str(target / "x"), **flags), model, target
    )


# What transformers' reader doesn't take from the file has to be its default.
READABLE: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 128},
    "mistral": {},
    "gemma2": {"query_pre_attn_scalar": 256},
    "gemma3_text": {"query_pre_attn_scalar": 256, "layer_types": ["sliding_attention"] * 2},
    "phi3": {},
}


@pytest.mark.parametrize("architecture", READABLE)
def test_reloaded_float32_answers_the_same(job: Job, tmp_path: Path, architecture: str) -> None:
    model = tiny_model(
        tmp_path / f"tiny-{architecture}",
        architecture,
        initializer_range=0.2,
        **READABLE[architecture],
    )
    file = write(job, model, tmp_path / "out", "f32")
    expected = logits(transformers.AutoModelForCausalLM.from_pretrained(model))
    found = logits(
        transformers.AutoModelForCausalLM.from_pretrained(
            tmp_path / "out", gguf_file=file, dtype=torch.float32
        )
    )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_the_tokenizer_comes_along(job: Job, base: Path, tmp_path: Path) -> None:
    file = write(job, base, tmp_path / "out", "f16")
    ours = transformers.AutoTokenizer.from_pretrained(base)
    (tmp_path / "alone").mkdir()
    (tmp_path / "out" / file).rename(tmp_path / "alone" / file)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "alone", gguf_file=file)
    for text in ("The capital of France", "hello\n\n  world 123", "你好<|im_end|>"):
        assert theirs(text)["input_ids"] == ours(text)["input_ids"]
    assert theirs.chat_template == ours.chat_template
    reader = GGUFReader(tmp_path / "alone" / file)
    values = {name: field.contents() for name, field in reader.fields.items()}
    assert values["tokenizer.ggml.eos_token_id"] == ours.eos_token_id
    assert values["tokenizer.ggml.pre"] == "gpt-2"
    assert values["general.architecture"] == "llama"
    assert values["tokenizer.ggml.token_type"][ours.eos_token_id] == 3


@pytest.mark.parametrize(
    ("kind", "worst"), [("f16", 1e-3), ("bf16", 5e-3), ("q8_0", 0.01), ("q4_0", 0.15)]
)
def test_weights_are_as_near_as_their_type_allows(
    job: Job, base: Path, tmp_path: Path, kind: str, worst: float
) -> None:
    plain = {
        name: tensor.float().numpy()
        for name, tensor in transformers.AutoModelForCausalLM.from_pretrained(base)
        .state_dict()
        .items()
    }
    file = write(job, base, tmp_path / "out", kind)
    stored = {
        tensor.name: dequantize(tensor.data, tensor.tensor_type)
        for tensor in GGUFReader(tmp_path / "out" / file).tensors
    }
    down, norm = plain["model.layers.1.mlp.down_proj.weight"], plain["model.norm.weight"]
    error = np.linalg.norm(stored["blk.1.ffn_down.weight"] - down) / np.linalg.norm(down)
    assert 0 < error < worst
    assert np.array_equal(stored["output_norm.weight"], norm)
    assert len(stored) == len(plain)


def test_queries_are_stored_by_pairs() -> None:
    config = {"num_attention_heads": 2, "num_key_value_heads": 1}
    weight = np.arange(8.0)[:, None]
    stored = lay_out(FAMILIES["llama"], "blk.0.attn_q.weight", weight, config)
    assert stored[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    norm = lay_out(FAMILIES["gemma2"], "blk.0.attn_norm.weight", np.zeros(2), config)
    assert norm.tolist() == [1, 1]


def test_llama_3_divides_low_frequencies() -> None:
    rope = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    values = {"num_attention_heads": 4, "hidden_size": 512, "rope_parameters": rope}
    factors = rotation_factors(values)
    config = transformers.LlamaConfig(**values, max_position_embeddings=131072)
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    inverse, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = 500000.0 ** -(np.arange(0, 128, 2) / 128)
    assert factors is not None
    np.testing.assert_allclose(plain / factors, inverse.numpy(), rtol=1e-5)
    assert rotation_factors({**values, "rope_parameters": {"rope_type": "default"}}) is None


def test_sentencepiece_tokenizers_get_scores(tmp_path: Path) -> None:
    content = {
        "model": {
            "type": "BPE",
            "byte_fallback": True,
            "vocab": {"<unk>": 0, "<s>": 1, "<0x0A>": 2, "▁": 3, "a": 4, "b": 5, "▁a": 6, "▁ab": 7},
            "merges": [["▁", "a"], ["▁a", "b"]],
        },
        "added_tokens": [
            {"id": 0, "content": "<unk>", "special": True},
            {"id": 1, "content": "<s>", "special": True},
        ],
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    found = read_vocabulary(tmp_path, 9)
    assert found.model == "llama" and found.split == "default" and found.merges == ()
    assert found.kinds == (2, 3, 6, 1, 1, 1, 1, 1, 5)
    assert found.scores[6] == 0 and found.scores[7] == -1 and found.scores[4] < -1
    assert found.tokens[8] == "[PAD8]"


def test_ways_to_split_text_are_told_apart(tmp_path: Path) -> None:
    level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    digits = {"type": "Digits", "individual_digits": True}

    def name(*steps: dict[str, Any]) -> str:
        return split_name(
            {"pre_tokenizer": {"type": "Sequence", "pretokenizers": list(steps)}}, tmp_path
        )

    assert name(level) == "gpt-2"
    assert name(digits, level) == "smollm"
    expression = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    split = {"type": "Split", "pattern": {"Regex": expression}}
    assert name(split, {**level, "use_regex": False}) == "llama-bpe"
    with pytest.raises(ModelError, match="would be read as other tokens; give --llama_cpp_dir"):
        name({"type": "Whitespace"}, level)


def test_what_has_no_writer_is_refused(job: Job, base: Path, tmp_path: Path) -> None:
    glm = tiny_model(tmp_path / "glm", "glm4")
    with pytest.raises(
        ModelError, match=r"ft writes llama.*not models of type glm4; give --llama_cpp_dir"
    ):
        write(job, glm, tmp_path / "a", "f16")
    with pytest.raises(UsageError, match=r"has no convert_hf_to_gguf\.py"):
        write(job, base, tmp_path / "b", "f16", llama_cpp_dir=str(tmp_path))
    script = tmp_path / "convert_hf_to_gguf.py"
    script.write_text("import sys; sys.exit('no such model')")
    with pytest.raises(ModelError, match="the converter failed:\nno such model"):
        write(job, base, tmp_path / "c", "f16", llama_cpp_dir=str(tmp_path))
    script.write_text("import sys; open(sys.argv[3], 'w').write(sys.argv[5])")
    file = write(job, base, tmp_path / "d", "q8_0", llama_cpp_dir=str(tmp_path))
    assert (tmp_path / "d" / file).read_text() == "q8_0"
    assert family_of({"model_type": "llama", "attention_bias": True}) is None
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    config = json.loads((base / "config.json").read_text()) | {"rope_parameters": rope}

    class Nothing:
        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *values: None

    with pytest.raises(ModelError, match="stretched by dynamic"):
        describe(Nothing(), FAMILIES["llama"], config, 384)


def test_an_adapter_alone_adds_what_merging_adds(
    job: Job, base: Path, adapter: Path, tmp_path: Path
) -> None:
    flags = {"to_gguf": "f32", "gguf_adapter": True, "gguf_output_dir": str(tmp_path / "x")}
    asked = job(base, adapter, **flags)
    assert not asked.plan.merges
    (tmp_path / "adapter").mkdir()
    (tmp_path / "merged").mkdir()
    facts = write_adapter(asked, tmp_path / "adapter")
    merged = merge_checkpoint(adapter, tmp_path / "whole", report=lambda text: None).path
    write_gguf(job(base, to_gguf="f32", gguf_output_dir=str(tmp_path / "y")), base, tmp_path)
    write_gguf(
        job(merged, to_gguf="f32", gguf_output_dir=str(tmp_path / "z")), merged, tmp_path / "merged"
    )

    def tensors(file: Path) -> dict[str, Any]:
        return {
            item.name: dequantize(item.data, item.tensor_type) for item in GGUFReader(file).tensors
        }

    reader = GGUFReader(tmp_path / "adapter" / facts["file"])
    values = {name: field.contents() for name, field in reader.fields.items()}
    assert (values["general.type"], values["adapter.type"]) == ("adapter", "lora")
    parts = tensors(tmp_path / "adapter" / facts["file"])
    plain, whole = (
        tensors(tmp_path / "model-f32.gguf"),
        tensors(tmp_path / "merged" / "model-f32.gguf"),
    )
    for name in ("blk.0.attn_q.weight", "blk.1.attn_k.weight", "blk.1.ffn_down.weight"):
        a, b = parts[f"{name}.lora_a"], parts[f"{name}.lora_b"]
        scale = values["adapter.lora.alpha"] / a.shape[0]
        np.testing.assert_allclose(plain[name] + scale * b @ a, whole[name], atol=1e-5)
        assert np.abs(whole[name] - plain[name]).max() > 0.01


def test_adapters_that_arent_plain_are_refused(job: Job, base: Path, tmp_path: Path) -> None:
    lora, odd = TUNERS.get("lora"), tmp_path / "checkpoint-5"
    odd.mkdir()
    model = load_model(base, dtype=torch.float32, for_training=True)
    lora.save(lora.apply(model, LoraSettings(target_modules=("q_proj",), use_dora=True)), odd)
    flags = {"to_gguf": "f16", "gguf_adapter": True, "gguf_output_dir": str(tmp_path / "x")}
    with pytest.raises(
        ModelError, match="place for plain LoRA only, and this adapter has use_dora"
    ):
        write_adapter(job(base, odd, **flags), tmp_path)
