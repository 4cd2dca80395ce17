"""BOFT on peft: a checkpoint is a plain peft adapter."""

from __future__ import annotations

from peft import BOFTConfig
from transformers import PreTrainedModel

from ft_core.errors import UsageError
from ft_core.models.linear import matrix_shape
from ft_core.tuners.boft.settings import BoftSettings
from ft_core.tuners.peft_adapter import Aim, PeftTuner


def configure(model: PreTrainedModel, settings: BoftSettings, aim: Aim) -> BOFTConfig:
    """Return peft's configuration.

    Raises:
        UsageError: a layer's width can't be divided into such blocks.
    """
    size, number = settings.block_size, settings.block_num
    for name in aim.targets.modules:
        _, width = matrix_shape(model.get_submodule(name))
        if width % (size or number):
            flag = f"--boft_block_size {size}" if size else f"--boft_block_num {number}"
            raise UsageError(f"{flag}: must divide {width}, the width of {name}")
    return BOFTConfig(
        **aim.config(model),
        boft_block_size=size,
        boft_block_num=number,
        boft_dropout=settings.dropout,
    )


BOFT = PeftTuner("boft", configure)
