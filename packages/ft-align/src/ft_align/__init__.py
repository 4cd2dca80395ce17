"""Preference alignment: losses as pure functions of log-probabilities, and recipes for the common trainer.

Importing this package is cheap; torch is imported when a loss or a recipe is first touched.
"""

from typing import TYPE_CHECKING

from ft_core.lazy import lazy_names

if TYPE_CHECKING:
    from ft_align.losses import (
        CPO_LOSS_TYPES,
        DPO_LOSS_TYPES,
        KTO_LOSS_TYPES,
        LabelledLoss,
        PreferenceLoss,
        cpo_loss,
        dpo_loss,
        kto_loss,
        orpo_loss,
        reward_loss,
        simpo_loss,
    )

_HOMES = {
    "CPO_LOSS_TYPES": "losses",
    "DPO_LOSS_TYPES": "losses",
    "KTO_LOSS_TYPES": "losses",
    "LabelledLoss": "losses",
    "PreferenceLoss": "losses",
    "cpo_loss": "losses",
    "dpo_loss": "losses",
    "kto_loss": "losses",
    "orpo_loss": "losses",
    "reward_loss": "losses",
    "simpo_loss": "losses",
}

__all__ = [
    "CPO_LOSS_TYPES",
    "DPO_LOSS_TYPES",
    "KTO_LOSS_TYPES",
    "LabelledLoss",
    "PreferenceLoss",
    "cpo_loss",
    "dpo_loss",
    "kto_loss",
    "orpo_loss",
    "reward_loss",
    "simpo_loss",
]

__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
