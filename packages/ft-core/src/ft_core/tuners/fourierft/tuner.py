"""FourierFT on peft: a checkpoint is a plain peft adapter."""

from __future__ import annotations

import math

from peft import FourierFTConfig
from transformers import PreTrainedModel

from ft_core.errors import UsageError
from ft_core.models.linear import matrix_shape
from ft_core.tuners.fourierft.settings import FourierFtSettings
from ft_core.tuners.peft_adapter import Aim, PeftTuner


def configure(model: PreTrainedModel, settings: FourierFtSettings, aim: Aim) -> FourierFTConfig:
    """Return peft's configuration; all frequencies begin with zero, so that the model's answers don't change.

    Random ones, as in the paper, are small beside weights of 4096 × 4096, but not beside small matrices.

    Raises:
        UsageError: a matrix has fewer frequencies than are to be trained.
    """
    for name in aim.targets.modules:
        size = math.prod(matrix_shape(model.get_submodule(name)))
        if settings.n_frequency > size:
            raise UsageError(
                f"--fourier_n_frequency {settings.n_frequency}: {name} has {size} values and as many frequencies; give "
                "fewer"
            )
    return FourierFTConfig(
        **aim.config(model),
        n_frequency=settings.n_frequency,
        scaling=settings.scaling,
        random_loc_seed=settings.seed,
        init_weights=True,
    )


FOURIERFT = PeftTuner("fourierft", configure)
