"""Writing a model as one GGUF file, tensor by tensor."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ft_core.errors import DependencyError, ModelError, UsageError
from ft_quant.dtypes import read_config
from ft_quant.gguf.families import (
    Array,
    Family,
    check_family,
    describe,
    lay_out,
    rotation_factors,
)
from ft_quant.gguf.vocabulary import Vocabulary, read_vocabulary
from ft_quant.sidecars import write_around
from ft_quant.weights import Weights, open_weights

if TYPE_CHECKING:
    from ft_quant.export import ExportJob

_BLOCK = 32
"""Weights of a row that share a scale in q8_0 and q4_0."""

_FILE_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 7, "bf16": 32}
"""``general.file_type`` by the type of the weights."""


def write_gguf(job: ExportJob, source: Path, directory: Path) -> str:
    """Write a whole model as GGUF.

    Args:
        job: says the type of the weights, and brings tokenizer and chat format.
        source: directory of the whole model.
        directory: an existing directory that the file goes to.

    Returns:
        The file's name.

    Raises:
        ModelError: the architecture or the tokenizer has no writer here.
        DependencyError: gguf is not installed.
        UsageError: ``--llama_cpp_dir`` has no converter.
    """
    kind = str(job.convert.to_gguf)
    file = f"model-{kind}.gguf"
    write_around(job.prepared, directory, compat="v5", weights=False)
    if job.convert.llama_cpp_dir is not None:
        _convert_elsewhere(Path(job.convert.llama_cpp_dir), source, directory / file, kind)
        return file
    check_gguf_installed(kind)
    config = read_config(source)
    family = check_family(config)
    weights = open_weights(source)
    _write(job, family, config, weights, directory, file, kind)
    return file


def check_gguf_installed(kind: str) -> None:
    """Refuse to write GGUF without its library.

    Raises:
        DependencyError: it is missing.
    """
    if importlib.util.find_spec("gguf") is None:
        raise DependencyError(f"--to_gguf {kind}", "gguf", "pip install 'ft-quant[gguf]'")


def _write(
    job: ExportJob,
    family: Family,
    config: Mapping[str, Any],
    weights: Weights,
    directory: Path,
    file: str,
    kind: str,
) -> None:
    from gguf import GGUFWriter

    names = _gguf_names(family, config, weights)
    embedding = next(name for name, written in names.items() if written == "token_embd.weight")
    rows = int(weights.read(embedding).shape[0])
    writer = GGUFWriter(directory / file, family.architecture)
    writer.add_type("model")
    writer.add_name(job.prepared.name)
    writer.add_file_type(_FILE_TYPES[kind])
    writer.add_quantization_version(2)
    describe(writer, family, config, rows)
    _describe_tokenizer(writer, job, read_vocabulary(directory, rows), family)
    factors = rotation_factors(config)
    if factors is not None:
        writer.add_tensor_info("rope_freqs.weight", factors.shape, factors.dtype, factors.nbytes)
    for name, written in names.items():
        _announce(writer, written, weights.read(name), kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    if factors is not None:
        writer.write_tensor_data(factors)
    for name, written in names.items():
        values = weights.read(name).float().numpy()
        writer.write_tensor_data(_stored(lay_out(family, written, values, config), written, kind))
    writer.close()


def _gguf_names(family: Family, config: Mapping[str, Any], weights: Weights) -> dict[str, str]:
    """Return the name in GGUF of each tensor.

    Raises:
        ModelError: one has none.
    """
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    architecture = next(k for k, name in MODEL_ARCH_NAMES.items() if name == family.architecture)
    known = get_tensor_name_map(architecture, int(config["num_hidden_layers"]))
    tied = bool(config.get("tie_word_embeddings"))
    names: dict[str, str] = {}
    for name in weights.names:
        if name.endswith("rotary_emb.inv_freq") or (tied and name == "lm_head.weight"):
            continue
        written = known.get_name(name, try_suffixes=(".weight", ".bias"))
        if written is None:
            raise ModelError(
                f"--to_gguf: GGUF has no name for the tensor {name} of {weights.directory}"
            )
        names[name] = written
    return names


def _announce(writer: Any, name: str, tensor: torch.Tensor, kind: str) -> None:
    """Enter a tensor's shape and type, which come before all values."""
    from gguf import quant_shape_to_byte_shape

    chosen = _type_of(name, tuple(tensor.shape), kind)
    count = int(np.prod(quant_shape_to_byte_shape(tuple(tensor.shape), chosen)))
    writer.add_tensor_info(name, tuple(tensor.shape), np.dtype(np.float32), count, chosen)


def _type_of(name: str, shape: tuple[int, ...], kind: str) -> Any:
    """Return the type a tensor is stored in: norms and biases stay whole, as llama.cpp needs them."""
    from gguf import GGMLQuantizationType as Type

    if len(shape) < 2 or kind == "f32":
        return Type.F32
    if kind in ("q8_0", "q4_0") and shape[-1] % _BLOCK:
        return Type.F16
    if kind == "q4_0" and name in ("token_embd.weight", "output.weight"):
        return Type.Q8_0
    return {"f16": Type.F16, "bf16": Type.BF16, "q8_0": Type.Q8_0, "q4_0": Type.Q4_0}[kind]


def _stored(values: Array, name: str, kind: str) -> Array:
    """Return a tensor's bytes."""
    from gguf import quants

    whole = np.ascontiguousarray(values, dtype=np.float32)
    return np.asarray(quants.quantize(whole, _type_of(name, whole.shape, kind)))


def _describe_tokenizer(
    writer: Any, job: ExportJob, vocabulary: Vocabulary, family: Family
) -> None:
    tokenizer, template = job.prepared.tokenizer, job.prepared.chosen.template
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.split)
    writer.add_token_list(list(vocabulary.tokens))
    writer.add_token_types(list(vocabulary.kinds))
    if vocabulary.scores:
        writer.add_token_scores(list(vocabulary.scores))
    if vocabulary.merges:
        writer.add_token_merges(list(vocabulary.merges))
    ends = list(_ends(job))
    if ends:
        writer.add_eos_token_id(ends[0])
    if tokenizer.bos_token_id is not None:
        writer.add_bos_token_id(tokenizer.bos_token_id)
    if tokenizer.pad_token_id is not None:
        writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_add_bos_token(bool(tokenizer.adds_bos))
    if family.architecture.startswith("gemma") or vocabulary.model == "gpt2":
        writer.add_add_space_prefix(False)
    if (jinja := template.to_jinja()).strip():
        writer.add_chat_template(jinja)


def _ends(job: ExportJob) -> Iterator[int]:
    """Give the tokens that end an answer, those of the chat format first."""
    tokenizer, template = job.prepared.tokenizer, job.prepared.chosen.template
    own = set(tokenizer.eos_token_ids)
    yield from sorted(template.stop_token_ids - own)
    yield from sorted(own)


def _convert_elsewhere(checkout: Path, source: Path, file: Path, kind: str) -> None:
    """Let llama.cpp's converter write the file."""
    script = checkout.expanduser() / "convert_hf_to_gguf.py"
    if not script.is_file():
        raise UsageError(
            f"--llama_cpp_dir {checkout}: has no convert_hf_to_gguf.py; give a checkout of llama.cpp"
        )
    if kind == "q4_0":
        raise UsageError(
            "--to_gguf q4_0 with --llama_cpp_dir: its converter writes f32, f16, bf16 and q8_0; convert to one of them "
            "and use llama-quantize"
        )
    command = [sys.executable, str(script), str(source), "--outfile", str(file), "--outtype", kind]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not file.is_file():
        raise ModelError(
            f"--llama_cpp_dir {checkout}: the converter failed:\n{done.stderr.strip()[-2000:]}"
        )
