"""Adapters of the older layout as those of peft."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ft_core.checkpoints import ARGUMENTS_FILE, OLDER_FOLDER, write_sidecars
from ft_core.tuners.older_layout import to_peft

if TYPE_CHECKING:
    from ft_quant.export import ExportJob

_FOR_TRAINING = ("optimizer.pt", "scheduler.pt", "scaler.pt", "training_args.bin")


def write_peft(job: ExportJob, directory: Path) -> dict[str, Any]:
    """Write the adapter in peft's form, with what lies beside it but what only training needs.

    Returns:
        What was done, for the record.

    Raises:
        ModelError: the adapter holds what peft has no form for.
    """
    checkpoint = job.prepared.checkpoint
    assert checkpoint is not None
    to_peft(checkpoint.path, directory)
    for file in checkpoint.path.iterdir():
        training = file.name in _FOR_TRAINING or file.name.startswith("rng_state")
        if file.is_file() and not training and file.name not in ("README.md", ARGUMENTS_FILE):
            shutil.copyfile(file, directory / file.name)
    if checkpoint.arguments:
        arguments = {**checkpoint.arguments, "tuner_backend": "peft"}
        write_sidecars(directory, arguments=arguments)
    return {"from": f"{OLDER_FOLDER}/", "format": "peft"}
