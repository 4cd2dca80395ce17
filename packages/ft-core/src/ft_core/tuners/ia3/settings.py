"""Settings of IA³."""

from __future__ import annotations

from dataclasses import dataclass

from ft_core.tuners.targets import TargetSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Ia3Settings(TargetSettings):
    """Which activations get factors.

    Attributes:
        feedforward_modules: names among the targets whose inputs get the factors instead of their outputs.
    """

    feedforward_modules: tuple[str, ...] = ()
