"""Settings of FourierFT."""

from __future__ import annotations

from dataclasses import dataclass

from ft_core.errors import UsageError
from ft_core.tuners.targets import TargetSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class FourierFtSettings(TargetSettings):
    """Which frequencies are trained.

    Attributes:
        n_frequency: how many of a matrix's frequencies.
        scaling: factor of the change they make.
        seed: of the choice of frequencies.

    Raises:
        UsageError: a value that can't work, with its flag.
    """

    n_frequency: int = 2000
    scaling: float = 300.0
    seed: int = 777

    def __post_init__(self) -> None:
        if self.n_frequency < 1:
            raise UsageError(
                f"--fourier_n_frequency {self.n_frequency}: must be at least 1; 2000 is usual"
            )
