"""What quantizing a model on disk can do: methods, bits and what they need. Importing this is cheap."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ft_core.errors import UsageError

QuantMethod = Literal["awq", "gptq", "bnb", "rtn", "fp8"]


@dataclass(frozen=True, slots=True)
class MethodInfo:
    """What a method can do.

    Attributes:
        bits: widths it stores weights in.
        calibrated: whether it looks at what goes through the model.
        groups: whether weights share a scale in groups of a size that can be chosen.
        foreign: whether it runs in a process of its own, perhaps in another environment.
        modules: import names of what makes the result.
        loads: import names of what plain transformers needs to load it.
        package: what they come with, for the person.
        install: the command that brings it.
    """

    bits: tuple[int, ...]
    calibrated: bool
    groups: bool
    foreign: bool
    modules: tuple[str, ...]
    loads: tuple[str, ...]
    package: str
    install: str

    @property
    def bits_text(self) -> str:
        """The widths as a person reads them: ``2, 3, 4 or 8``."""
        *most, last = map(str, self.bits)
        return f"{', '.join(most)} or {last}" if most else last


METHODS: Mapping[QuantMethod, MethodInfo] = {
    "awq": MethodInfo(
        (4,),
        calibrated=True,
        groups=True,
        foreign=True,
        modules=("gptqmodel",),
        loads=("gptqmodel",),
        package="GPTQModel",
        install="pip install 'ft-quant[awq]'",
    ),
    "gptq": MethodInfo(
        (2, 3, 4, 8),
        calibrated=True,
        groups=True,
        foreign=True,
        modules=("gptqmodel",),
        loads=("gptqmodel", "optimum"),
        package="GPTQModel and optimum",
        install="pip install 'ft-quant[gptq]'",
    ),
    "bnb": MethodInfo(
        (4, 8),
        calibrated=False,
        groups=False,
        foreign=False,
        modules=("bitsandbytes",),
        loads=("bitsandbytes",),
        package="bitsandbytes",
        install="pip install 'ft-quant[bnb]'",
    ),
    "rtn": MethodInfo(
        (4, 8),
        calibrated=False,
        groups=True,
        foreign=False,
        modules=(),
        loads=("compressed_tensors",),
        package="compressed-tensors",
        install="pip install 'ft-quant[rtn]'",
    ),
    "fp8": MethodInfo(
        (8,),
        calibrated=False,
        groups=False,
        foreign=False,
        modules=(),
        loads=("compressed_tensors",),
        package="compressed-tensors",
        install="pip install 'ft-quant[rtn]'",
    ),
}
"""All methods by the name that ``--quant_method`` takes."""


def check_bits(method: QuantMethod, bits: int) -> None:
    """Refuse a width that a method doesn't have.

    Raises:
        UsageError: with the widths it has, and who has this one.
    """
    known = METHODS[method]
    if bits in known.bits:
        return
    others = [name for name, item in METHODS.items() if bits in item.bits]
    instead = f"; {', '.join(others)} can do {bits} bit" if others else ""
    raise UsageError(
        f"--quant_method {method} --quant_bits {bits}: {method} stores weights in {known.bits_text} bit{instead}"
    )
