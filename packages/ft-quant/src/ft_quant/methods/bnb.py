"""Weights quantized by bitsandbytes.

8 bit is Dettmers et al. 2022 (https://arxiv.org/abs/2208.07339), 4 bit Dettmers et al. 2023
(https://arxiv.org/abs/2305.14314).
"""

from __future__ import annotations

from typing import Any

from transformers.utils import logging as transformers_logging

from ft_core.models.loading import load_model
from ft_core.models.quantization import Quantization
from ft_core.models.quantized import keep_differentiable
from ft_quant.devices import device_of
from ft_quant.dtypes import stored_dtype
from ft_quant.methods.request import QuantizeRequest


def quantize(request: QuantizeRequest) -> dict[str, Any]:
    """Load a model with quantized weights and write them.

    Returns:
        What was done, for the record.

    Raises:
        ModelError: it can't be loaded.
        UsageError: the device doesn't exist.
    """
    settings = request.settings
    wanted = Quantization(
        "bnb",
        request.bits,
        compute_dtype=settings.bnb_4bit_comp_dtype,
        quant_type=settings.bnb_4bit_quant_type,
        double_quant=settings.bnb_4bit_use_double_quant,
        storage=settings.bnb_4bit_quant_storage,
    )
    model = load_model(
        request.source,
        dtype=stored_dtype(request.source),
        device=device_of(settings.quant_device_map, "--quant_device_map"),
        quantization=wanted,
        trust_remote_code=request.trust_remote_code,
    )
    keep_differentiable(model)  # else 4-bit weights may be written as they are packed for this CPU
    transformers_logging.disable_progress_bar()
    model.save_pretrained(request.target)
    return {"settings": str(wanted), "format": "bitsandbytes"}
