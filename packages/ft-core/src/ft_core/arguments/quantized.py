"""Quantizing a model while it is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

from ft_core.command.group import ArgumentGroup, flag
from ft_core.errors import UsageError
from ft_core.models.quantization import METHODS, Method, Quantization, check_bits, method_for

_LAYER_KEYS = {"nbits": int, "group_size": int, "axis": int, "view_as_float": bool}


class Bnb4bitArguments(ArgumentGroup):
    """How bitsandbytes stores weights of 4 bit: while a model is loaded, and in one that is exported."""

    title: ClassVar[str] = "weights of 4 bit"

    bnb_4bit_comp_dtype: Literal["AUTO", "fp16", "bf16", "fp32"] = flag(
        "AUTO", aliases=("bnb_4bit_compute_dtype",)
    )
    """Data type that 4-bit weights of bnb are multiplied in; AUTO takes that of the model."""

    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4"
    """Values that a 4-bit weight of bnb can have."""

    bnb_4bit_use_double_quant: bool = True
    """Quantize the scales of 4-bit weights of bnb too."""

    bnb_4bit_quant_storage: Literal["uint8", "float16", "bfloat16", "float32"] | None = None
    """Data type that packed 4-bit weights of bnb are stored as, which sharded training needs to be dtype; none is uint8."""


class QuantizationArguments(Bnb4bitArguments):
    """Weights in few bits, to save memory; adapters can be trained on top of them (QLoRA)."""

    title: ClassVar[str] = "quantized loading"

    quant_method: Literal["bnb", "hqq", "eetq"] | None = None
    """Who quantizes: bnb (4, 8 bit), hqq (1, 2, 3, 4, 8) or eetq (8, GPUs only); none takes bnb for 4 and 8 bit, else hqq."""

    quantization_bit: Literal[0, 1, 2, 3, 4, 8] = flag(0, aliases=("quantization_type",))
    """Bits of a weight; 0 doesn't quantize."""

    hqq_axis: Literal[0, 1] = 0
    """Axis along which hqq groups weights."""

    hqq_dynamic_config_path: str | None = None
    """Settings of hqq for kinds of layers: JSON or a JSON file like {"self_attn.q_proj": {"nbits": 4, "group_size": 64}}; the others take quantization_bit."""

    def check(self, given: frozenset[str]) -> None:
        """Refuse methods, bits and settings that don't go together."""
        method, bits = self.quant_method, self.quantization_bit
        if method == "eetq" and bits == 0 and "quantization_bit" in given:
            raise UsageError(
                "--quant_method eetq --quantization_bit 0: give 8 bit, or --quant_method none to load the model "
                "as it is"
            )
        if method in ("bnb", "hqq") and bits == 0 and "quantization_bit" not in given:
            dynamic = method == "hqq" and self.hqq_dynamic_config_path is not None
            if not dynamic:
                known = ", ".join(map(str, METHODS[method].bits))
                raise UsageError(f"--quant_method {method} needs --quantization_bit: {known}")
        if bits:
            check_bits(method or method_for(bits), bits)
        if self.hqq_dynamic_config_path is not None and self._method() != "hqq":
            raise UsageError(
                "--hqq_dynamic_config_path is a setting of hqq; add --quant_method hqq, or leave it out"
            )
        self.wanted()

    def wanted(self) -> Quantization | None:
        """Return how the model is quantized; ``None`` where it isn't.

        Raises:
            UsageError: the settings of layers can't be read.
        """
        method = self._method()
        layers = {} if method != "hqq" else self._layers()
        bits = 8 if method == "eetq" else self.quantization_bit
        if method is None or not (bits or layers):
            return None
        return Quantization(
            method=method,
            bits=bits,
            compute_dtype=self.bnb_4bit_comp_dtype,
            quant_type=self.bnb_4bit_quant_type,
            double_quant=self.bnb_4bit_use_double_quant,
            storage=self.bnb_4bit_quant_storage,
            axis=self.hqq_axis,
            layers=layers,
        )

    def _method(self) -> Method | None:
        if self.quant_method is not None:
            return self.quant_method
        return method_for(self.quantization_bit) if self.quantization_bit else None

    def _layers(self) -> dict[str, dict[str, Any] | None]:
        given = self.hqq_dynamic_config_path
        if given is None:
            return {}
        content = read_json_object(given, "--hqq_dynamic_config_path")
        if not content:
            raise UsageError(
                f"--hqq_dynamic_config_path {given}: names no layer; give something like "
                '{"self_attn.q_proj": {"nbits": 4}}'
            )
        return {name: self._layer(name, settings) for name, settings in content.items()}

    def _layer(self, name: str, settings: Any) -> dict[str, Any] | None:
        """Check the settings of one kind of layer and complete them."""
        where = f"--hqq_dynamic_config_path: layer {name!r}"
        if settings is None:
            return None
        if not isinstance(settings, dict):
            raise UsageError(
                f'{where}: needs an object like {{"nbits": 4}}, or null to leave it as it is'
            )
        for key, value in settings.items():
            if key in ("quant_zero", "quant_scale", "offload_meta") and not value:
                continue
            kind = _LAYER_KEYS.get(key)
            if kind is None:
                raise UsageError(
                    f"{where}: {key!r} is no setting of today's hqq; use {', '.join(_LAYER_KEYS)}"
                )
            whole = key == "group_size" and value is None
            if not whole and (not isinstance(value, kind) or (kind is int and value is True)):
                raise UsageError(f"{where}: {key} must be a {kind.__name__}, not {value!r}")
        complete = {"group_size": 64, "axis": self.hqq_axis, **settings}
        for key in ("quant_zero", "quant_scale", "offload_meta"):
            complete.pop(key, None)
        if complete.get("nbits") not in METHODS["hqq"].bits:
            known = ", ".join(map(str, METHODS["hqq"].bits))
            raise UsageError(f"{where}: nbits must be one of {known}")
        if complete["axis"] not in (0, 1):
            raise UsageError(f"{where}: axis must be 0 or 1")
        size = complete["group_size"]
        if size is not None and (size < 8 or size % 8):
            raise UsageError(f"{where}: group_size must be a multiple of 8, or null for whole rows")
        return complete


def read_json_object(given: str, flag: str) -> dict[str, Any]:
    """Read a JSON object that a flag gives as text or as the path of a file.

    Raises:
        UsageError: naming the flag, and the file where it is one.
    """
    text = given
    if not given.lstrip().startswith("{"):
        file = Path(given).expanduser()
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise UsageError(
                f"{flag} {given}: can't be read: {reason}; give a JSON file, or JSON itself"
            ) from error
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(
            f"{flag} {given}: invalid JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        ) from error
    if not isinstance(content, dict):
        raise UsageError(f"{flag} {given}: must be a JSON object")
    return cast(dict[str, Any], content)
