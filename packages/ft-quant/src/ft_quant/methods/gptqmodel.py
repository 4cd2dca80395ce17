"""GPTQ and AWQ by GPTQModel, in a process of its own.

The methods are Frantar et al. 2022 (https://arxiv.org/abs/2210.17323) and Lin et al. 2023
(https://arxiv.org/abs/2306.00978). The package changes what it finds in its process, so none of ft's runs there; with
``--quant_python`` it may also live in an environment of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ft_core.models.memory import meta_model
from ft_quant.methods.layers import group_size, layers_of
from ft_quant.methods.request import QuantizeRequest
from ft_quant.proof.measure import run_script

_SCRIPT = Path(__file__).with_name("gptqmodel_process.py")


def quantize(request: QuantizeRequest) -> dict[str, Any]:
    """Quantize a model layer by layer, looking at what goes through it.

    Returns:
        What was done, for the record.

    Raises:
        ModelError: GPTQModel can't; the message carries its error.
        UsageError: the group size doesn't fit.
    """
    settings = request.settings
    model = meta_model(request.source, torch.float32, trust_remote_code=request.trust_remote_code)
    size = group_size(layers_of(model), settings.quant_group_size)
    asked = {
        "source": str(request.source),
        "target": str(request.target),
        "method": request.method,
        "bits": request.bits,
        "group_size": size,
        "batch_size": settings.quant_batch_size,
        "device": settings.quant_device_map,
        "calibration": [list(ids) for ids in request.calibration],
        "trust_remote_code": request.trust_remote_code,
    }
    made = run_script(
        _SCRIPT,
        asked,
        python=settings.quant_python,
        failed=f"--quant_method {request.method}: GPTQModel failed",
    )
    return {
        **made,
        "group_size": size,
        "format": request.method,
        "calibration": {"texts": len(request.calibration), "tokens": len(request.calibration[0])},
    }
