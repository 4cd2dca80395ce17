"""What a method is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ft_quant.methods import QuantMethod

if TYPE_CHECKING:
    from ft_quant.export_arguments import QuantizeArguments


@dataclass(frozen=True, slots=True)
class QuantizeRequest:
    """A model to quantize.

    Attributes:
        source: directory of the whole model.
        target: an existing empty directory.
        method: who does it.
        bits: of a weight.
        settings: the flags.
        calibration: token ids of texts of equal length, for methods that look at them.
        trust_remote_code: run Python code from the source if the model needs it.
    """

    source: Path
    target: Path
    method: QuantMethod
    bits: int
    settings: QuantizeArguments
    calibration: Sequence[Sequence[int]] = ()
    trust_remote_code: bool = False
