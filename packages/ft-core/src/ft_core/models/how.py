"""How a model's weights are loaded, once that is decided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ft_core.models.attention import AttentionChoice
    from ft_core.models.devices import Placement
    from ft_core.models.dtype import DtypeChoice
    from ft_core.models.quantization import Quantization, StoredQuantization
    from ft_core.models.rope import RopeScaling


@dataclass(frozen=True, slots=True)
class How:
    """How weights are loaded, each with its reason.

    Attributes:
        device: torch's name, such as ``cuda:0``; that of the inputs where the model is divided.
        dtype: data type of the weights.
        attention: attention implementation.
        quantization: how weights are quantized while they are loaded.
        stored: how the files are quantized already.
        placement: how the model is divided over devices.
        rope: how positions are stretched.
        scores: whether the model gives one score in place of next tokens.
    """

    device: str
    dtype: DtypeChoice
    attention: AttentionChoice
    quantization: Quantization | None = None
    stored: StoredQuantization | None = None
    placement: Placement | None = None
    rope: RopeScaling | None = None
    scores: bool = False

    def lines(self) -> list[str]:
        """Describe the choices, one a line."""
        weights = self.quantization or self.stored
        return [
            f"device     {self.device if self.placement is None else self.placement}",
            f"dtype      {self.dtype.name} ({self.dtype.reason})",
            f"attention  {self.attention.name} ({self.attention.reason})",
            *([] if weights is None else [f"weights    {weights}"]),
            *([] if self.rope is None else [f"positions  {self.rope}"]),
        ]

    @property
    def weight_bits(self) -> int | None:
        """Bits of a quantized weight; ``None`` where weights have ``dtype``."""
        weights = self.quantization or self.stored
        return None if weights is None else weights.bits or None
