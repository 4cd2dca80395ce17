"""IA³ on peft: a checkpoint is a plain peft adapter."""

from __future__ import annotations

from peft import IA3Config
from transformers import PreTrainedModel

from ft_core.errors import UsageError
from ft_core.tuners.ia3.settings import Ia3Settings
from ft_core.tuners.peft_adapter import Aim, PeftTuner


def configure(model: PreTrainedModel, settings: Ia3Settings, aim: Aim) -> IA3Config:
    """Return peft's configuration.

    Raises:
        UsageError: a feed-forward module that is not among the targets.
    """
    for name in settings.feedforward_modules:
        if not any(full == name or full.endswith(f".{name}") for full in aim.targets.modules):
            targets = ", ".join(
                dict.fromkeys(full.rpartition(".")[2] for full in aim.targets.modules)
            )
            raise UsageError(
                f"--ia3_feedforward_modules {name}: must be among the targets, which are {targets}; add it to "
                "--target_modules"
            )
    return IA3Config(**aim.config(model), feedforward_modules=list(settings.feedforward_modules))


IA3 = PeftTuner("ia3", configure)
