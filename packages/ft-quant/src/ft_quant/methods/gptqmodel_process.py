"""A script, not a module: quantizes a model with GPTQModel in a process of its own, and imports nothing of ft.

Usage: ``python gptqmodel_process.py REQUEST.json RESULT.json``. The request holds ``source`` and ``target``
(directories), ``method`` (``gptq`` or ``awq``), ``bits``, ``group_size``, ``batch_size``, ``device``
(``cpu``, ``auto`` or a device of torch), ``calibration`` (token ids of texts of equal length) and
``trust_remote_code``.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any


def main(request_file: str, result_file: str) -> None:
    """Quantize and save."""
    request = json.loads(Path(request_file).read_text(encoding="utf-8"))
    # GPTQModel asks for two workers on a CPU and gives itself one where there are few cores.
    workers = int(os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2"))
    # Each worker has threads of its own; more of them than cores wait for each other, dozens of times longer.
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    os.environ["OMP_NUM_THREADS"] = str(max(cores // workers, 1))
    # The search of AWQ makes tensors of hundreds of megabytes by the thousand: small pages cost a third of its time.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    import gptqmodel
    import torch
    from gptqmodel import BACKEND, GPTQModel, QuantizeConfig

    # It keeps the weights on the CPU and takes the layers to an accelerator by itself.
    placed = {} if request["device"] in ("cpu", "auto") else {"device": request["device"]}
    config = QuantizeConfig(bits=request["bits"], group_size=request["group_size"], **_how(request))
    model = GPTQModel.load(
        request["source"], config, trust_remote_code=request["trust_remote_code"], **placed
    )
    texts = [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in request["calibration"]]
    # Its default for AWQ is a kernel of CUDA.
    slow = request["method"] == "awq" and not torch.cuda.is_available()
    backend = {"backend": BACKEND.AWQ_TORCH} if slow else {}
    model.quantize(texts, batch_size=request["batch_size"], **backend)
    model.save(request["target"])
    for name in ("quant_log.csv",):
        Path(request["target"], name).unlink(missing_ok=True)
    result = {"made_by": f"gptqmodel {gptqmodel.__version__}"}
    Path(result_file).write_text(json.dumps(result), encoding="utf-8")


def _how(request: dict[str, Any]) -> dict[str, Any]:
    """Return what makes a configuration one of AWQ."""
    if request["method"] == "gptq":
        return {}
    from gptqmodel.quantization.config import FORMAT, METHOD

    return {"quant_method": METHOD.AWQ, "format": FORMAT.GEMM}


if __name__ == "__main__":
    main(*sys.argv[1:3])
