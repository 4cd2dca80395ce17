"""Who makes adapters and in which layout they are saved (``--tuner_backend``)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from transformers import PreTrainedModel

from ft_core.tuner import Tuner
from ft_core.tuners import TUNERS
from ft_core.tuners.older_layout import from_peft

Backend = Literal["peft", "swift", "unsloth"]


def tuner_for(sft_type: str, backend: Backend = "peft") -> Tuner:
    """Return the tuner of a run.

    Args:
        sft_type: its name.
        backend: with ``swift`` it saves in the layout of the older toolkit.
    """
    tuner = TUNERS.get(sft_type)
    return OlderLayout(sft_type, tuner) if backend == "swift" else tuner


@dataclass(slots=True)
class OlderLayout:
    """A tuner whose checkpoints have the layout of the older toolkit: the adapter in ``default/``.

    Attributes:
        name: that of the tuner.
        tuner: does everything else.
    """

    name: str
    tuner: Tuner

    def apply(self, model: PreTrainedModel, settings: Any) -> PreTrainedModel:
        """Return the model with its trainable part attached."""
        return self.tuner.apply(model, settings)

    def save(
        self, model: PreTrainedModel, directory: Path, *, safe_serialization: bool = True
    ) -> None:
        """Write the adapter in the older layout."""
        self.tuner.save(model, directory, safe_serialization=safe_serialization)
        from_peft(directory, kind=self.name.upper(), safe_serialization=safe_serialization)

    def load(
        self, model: PreTrainedModel, directory: Path, *, trainable: bool = False
    ) -> PreTrainedModel:
        """Attach what ``save`` wrote; peft's own layout is read too."""
        return self.tuner.load(model, directory, trainable=trainable)

    def merge(self, model: PreTrainedModel) -> PreTrainedModel:
        """Return a plain model with the adapter folded into its weights."""
        return self.tuner.merge(model)
