"""What quantized loading can do: methods, bits, devices and what can be trained on top.

Everything here is known without loading anything, so that what can't work is refused first.
"""

from __future__ import annotations

import importlib.util
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ft_core.errors import DependencyError, ModelError, UsageError

Method = Literal["bnb", "hqq", "eetq"]
ComputeDtype = Literal["AUTO", "fp16", "bf16", "fp32"]
StorageDtype = Literal["uint8", "fp16", "bf16", "fp32", "float16", "bfloat16", "float32"]


@dataclass(frozen=True, slots=True)
class MethodInfo:
    """What a quantization method can do.

    Attributes:
        bits: widths it stores weights in.
        devices: torch's device types it computes on.
        sft_types: what can be trained on top of its weights.
        package: distribution that does the work.
        module: its import name.
        install: the command that brings it.
    """

    bits: tuple[int, ...]
    devices: tuple[str, ...]
    sft_types: tuple[str, ...]
    package: str
    module: str
    install: str


_BESIDE = ("lora", "longlora", "adapter")
"""Tuners that leave the weights as they are, so that any quantization will do."""

METHODS: Mapping[Method, MethodInfo] = {
    "bnb": MethodInfo(
        (4, 8),
        ("cpu", "cuda", "xpu"),
        (*_BESIDE, "adalora", "ia3", "vera", "boft", "fourierft"),
        "bitsandbytes",
        "bitsandbytes",
        "pip install 'ft-core[bnb]'",
    ),
    "hqq": MethodInfo(
        (1, 2, 3, 4, 8),
        ("cpu", "cuda"),
        (*_BESIDE, "vera", "boft"),
        "hqq",
        "hqq",
        "pip install 'ft-core[hqq]'",
    ),
    "eetq": MethodInfo(
        (8,),
        ("cuda",),
        _BESIDE,
        "kernels, which fetches EETQ's",
        "kernels",
        "pip install kernels",
    ),
}
"""The methods that quantize a model while it is loaded."""


@dataclass(frozen=True, slots=True)
class StoredMethodInfo:
    """What a checkpoint that is stored quantized needs.

    Attributes:
        modules: import names that must be there.
        package: what they come with, for the person.
        install: the command that brings it.
        devices: torch's device types it runs on; empty means any.
        gpu_dtype: data type that its kernels on GPUs compute in, where they know only one.
        sft_types: what can be trained on top of its weights.
    """

    modules: tuple[str, ...]
    package: str
    install: str
    devices: tuple[str, ...] = ()
    gpu_dtype: Literal["bf16", "fp16"] | None = None
    sft_types: tuple[str, ...] = _BESIDE


STORED: Mapping[str, StoredMethodInfo] = {
    "gptq": StoredMethodInfo(
        ("gptqmodel", "optimum"),
        "GPTQModel and optimum",
        "pip install 'ft-quant[gptq]'",
        sft_types=(*_BESIDE, "adalora"),
    ),
    "awq": StoredMethodInfo(
        ("gptqmodel",), "GPTQModel", "pip install 'ft-quant[gptq]'", gpu_dtype="fp16"
    ),
    "bitsandbytes": StoredMethodInfo(
        ("bitsandbytes",),
        "bitsandbytes",
        "pip install 'ft-core[bnb]'",
        METHODS["bnb"].devices,
        sft_types=METHODS["bnb"].sft_types,
    ),
    "eetq": StoredMethodInfo(
        ("kernels",), "kernels", "pip install kernels", ("cuda",), gpu_dtype="fp16"
    ),
    "compressed-tensors": StoredMethodInfo(
        ("compressed_tensors",), "compressed-tensors", "pip install compressed-tensors"
    ),
    "quanto": StoredMethodInfo(("optimum",), "optimum-quanto", "pip install optimum-quanto"),
    "torchao": StoredMethodInfo(("torchao",), "torchao", "pip install torchao"),
    "auto-round": StoredMethodInfo(("auto_round",), "auto-round", "pip install auto-round"),
    "aqlm": StoredMethodInfo(("aqlm",), "aqlm", "pip install aqlm"),
    "vptq": StoredMethodInfo(("vptq",), "vptq", "pip install vptq", ("cuda",)),
}
"""Methods of checkpoints, by ``quant_method`` of their configuration; others are left to transformers."""


@dataclass(frozen=True, slots=True)
class Quantization:
    """How a model is quantized while it is loaded.

    Attributes:
        method: who does it.
        bits: width of a weight; with ``layers`` 0 leaves the other layers as they are.
        compute_dtype: in which 4-bit weights of bnb are multiplied; ``AUTO`` is that of the model.
        quant_type: values that a 4-bit weight of bnb can have: ``nf4`` (Dettmers et al. 2023,
            https://arxiv.org/abs/2305.14314) or ``fp4``.
        double_quant: quantize bnb's scales too.
        storage: data type that bnb's packed weights pretend to be; ``None`` is uint8.
        axis: along which hqq groups weights.
        layers: hqq's own settings of layers by their tag (``self_attn.q_proj``); ``None`` as value
            leaves a layer as it is.
    """

    method: Method
    bits: int
    compute_dtype: ComputeDtype = "AUTO"
    quant_type: Literal["nf4", "fp4"] = "nf4"
    double_quant: bool = True
    storage: str | None = None
    axis: Literal[0, 1] = 0
    layers: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict)

    @property
    def gpu_dtype(self) -> Literal["bf16", "fp16"] | None:
        """The data type that the kernels on GPUs compute in, where they know only one."""
        return "fp16" if self.method == "eetq" else None

    def __str__(self) -> str:
        """As a run prints it: ``bnb 4 bit, nf4, scales quantized too``."""
        if self.method == "bnb":
            if self.bits == 8:
                return "bnb 8 bit, multiplied in fp16 by bitsandbytes"
            return f"bnb 4 bit, {self.quant_type}" + (
                ", scales quantized too" if self.double_quant else ""
            )
        if self.layers:
            rest = f"{self.bits} bit" if self.bits else "not quantized"
            return f"hqq, {len(self.layers)} kinds of layers as configured, the others {rest}"
        return f"{self.method} {self.bits} bit"


@dataclass(frozen=True, slots=True)
class StoredQuantization:
    """The quantization that a model's files have already.

    Attributes:
        method: ``quant_method`` of the configuration.
        bits: width of a weight; ``None`` where the configuration doesn't say.
    """

    method: str
    bits: int | None

    @property
    def gpu_dtype(self) -> Literal["bf16", "fp16"] | None:
        """The data type that the kernels on GPUs compute in, where they know only one."""
        return STORED[self.method].gpu_dtype if self.method in STORED else None

    def __str__(self) -> str:
        """As a run prints it: ``gptq 4 bit, as the files are``."""
        return f"{self.method}{f' {self.bits} bit' if self.bits else ''}, as the files are"


def method_for(bits: int) -> Method:
    """Return the method that ``quantization_bit`` means when none is named."""
    return "bnb" if bits in METHODS["bnb"].bits else "hqq"


def check_bits(method: Method, bits: int) -> None:
    """Refuse a width the method doesn't know.

    Raises:
        UsageError: naming those it knows.
    """
    known = METHODS[method].bits
    if bits not in known:
        others = [name for name, info in METHODS.items() if bits in info.bits]
        hint = f"; {' and '.join(others)} can" if others else ""
        raise UsageError(
            f"--quantization_bit {bits}: {method} can't store {bits} bits, only {_words(known)}{hint}"
        )


def settle_quantization(
    wanted: Quantization | None,
    directory: Path,
    device: str,
    *,
    sft_type: str | None = None,
    divided: bool = False,
) -> tuple[Quantization | None, StoredQuantization | None]:
    """Settle how a model's weights are quantized, and refuse what can't work before loading.

    Args:
        wanted: as asked for; ``None`` takes the files as they are.
        directory: the model.
        device: torch's name of where it goes.
        sft_type: what is trained; ``None`` where nothing is.
        divided: whether the model is spread over several devices.

    Returns:
        How the weights are quantized while they are loaded, and how they are stored; one is ``None``.

    Raises:
        UsageError: the method doesn't run on the device, or its weights can't be trained that way.
        DependencyError: a package is not installed.
        ModelError: the files are quantized in a way that can't be used here.
    """
    stored = read_stored(directory)
    if stored is not None:
        if wanted is not None:
            raise UsageError(
                f"--quantization_bit and --quant_method quantize plain weights, and those of this model are quantized "
                f"already ({stored}); leave them out"
            )
        _check_stored(stored, device, sft_type)
    elif wanted is not None:
        _check_wanted(wanted, device, sft_type, divided=divided)
    return wanted, stored


def _check_wanted(
    wanted: Quantization, device: str, sft_type: str | None, *, divided: bool
) -> None:
    info = METHODS[wanted.method]
    kind = device.partition(":")[0]
    if kind not in info.devices:
        others = [name for name, other in METHODS.items() if kind in other.devices]
        raise UsageError(
            f"--quant_method {wanted.method} runs on {_words(info.devices)}, and this machine works on {kind}; "
            f"give --quant_method {' or '.join(others)}, or leave quantization out"
        )
    if divided and wanted.method != "bnb":
        raise UsageError(
            f"--quant_method {wanted.method} loads a model onto one device; leave --device_map_config_path and "
            "--device_max_memory out, or give --quant_method bnb"
        )
    if sft_type is not None and sft_type not in info.sft_types:
        raise UsageError(
            f"--sft_type {sft_type} can't train weights quantized by {wanted.method}; give --sft_type "
            f"{' or '.join(info.sft_types)}, or leave --quantization_bit and --quant_method out"
        )
    if wanted.method == "bnb" and wanted.compute_dtype == "fp16" and kind == "cpu":
        raise UsageError(
            "--bnb_4bit_comp_dtype fp16: CPUs don't compute in fp16; use bf16 or fp32, or leave AUTO"
        )
    if importlib.util.find_spec(info.module) is None:
        raise DependencyError(f"--quant_method {wanted.method}", info.package, info.install)


def read_stored(directory: Path) -> StoredQuantization | None:
    """Return the quantization of a model's files; ``None`` where they aren't quantized.

    Raises:
        ModelError: the configuration can't be read.
    """
    file = directory / "config.json"
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file}: can't be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{file}: holds no JSON object")
    text = content.get("text_config")
    found = content.get("quantization_config") or (
        text.get("quantization_config") if isinstance(text, dict) else None
    )
    if not isinstance(found, dict):
        return None
    return StoredQuantization(_stored_method(found), _stored_bits(found))


def quiet_bitsandbytes() -> None:
    """Keep bitsandbytes from advertising a package that nobody asked for.

    It prints that each time it is imported on a CPU with AVX512-BF16, and peft imports it whenever it
    is installed; the kernel it then lacks only saves time. The cast to fp16, which it reports at each
    multiplication of an 8-bit layer, is said once where the quantization is named.
    """
    for name, start in (
        ("bitsandbytes.backends.cpu.ops", "Failed to load CPU gemm_4bit_forward"),
        ("bitsandbytes.autograd._functions", "MatMul8bitLt: inputs will be cast"),
    ):
        logger, quiet = logging.getLogger(name), _Without(start)
        if quiet not in logger.filters:
            logger.addFilter(quiet)


@dataclass(frozen=True, slots=True)
class _Without:
    """A filter of log records that drops messages with a known beginning."""

    start: str

    def filter(self, record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith(self.start)


def _check_stored(stored: StoredQuantization, device: str, sft_type: str | None) -> None:
    if stored.method == "hqq":
        raise ModelError(
            "this model's files are quantized by hqq in the form of older transformers, which today's can't read; "
            "take the unquantized model and give --quant_method hqq --quantization_bit 4"
        )
    info = STORED.get(stored.method)
    allowed = _BESIDE if info is None else info.sft_types
    if sft_type is not None and sft_type not in allowed:
        raise UsageError(
            f"--sft_type {sft_type} can't train this model: its weights are stored quantized ({stored}); give "
            f"--sft_type {' or '.join(allowed)}, or the unquantized model"
        )
    if info is None:
        return
    kind = device.partition(":")[0]
    if info.devices and kind not in info.devices:
        raise ModelError(
            f"this model's files are quantized by {stored.method}, which runs on {_words(info.devices)} and not on "
            f"{kind}; take the unquantized model"
        )
    if any(importlib.util.find_spec(module) is None for module in info.modules):
        raise DependencyError(
            f"this model, whose files are quantized by {stored.method},", info.package, info.install
        )


def _stored_method(config: Mapping[str, Any]) -> str:
    method = config.get("quant_method")
    if method is None and (config.get("load_in_4bit") or config.get("load_in_8bit")):
        return "bitsandbytes"
    return str(method or "an unnamed method").lower()


def _stored_bits(config: Mapping[str, Any]) -> int | None:
    if config.get("load_in_4bit") or config.get("_load_in_4bit"):
        return 4
    if config.get("load_in_8bit") or config.get("_load_in_8bit"):
        return 8
    for name in ("bits", "w_bit", "nbits"):
        if isinstance(config.get(name), int):
            return int(config[name])
    return None


def _words(items: tuple[object, ...]) -> str:
    *most, last = [str(item) for item in items]
    return f"{', '.join(most)} and {last}" if most else last
