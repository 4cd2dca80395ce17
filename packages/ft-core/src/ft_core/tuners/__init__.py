"""Tuners: the ways to make a loaded model trainable. One folder each: its settings and its tuner.

Importing this package is cheap; a tuner's own module, which imports torch and peft, is loaded by
``TUNERS.get``.
"""

from ft_core.models.quantization import quiet_bitsandbytes
from ft_core.registry import Registry
from ft_core.tuner import ParameterCount, Tuner, count_parameters
from ft_core.tuners.adalora.settings import AdaLoraSettings
from ft_core.tuners.adapter.settings import AdapterSettings
from ft_core.tuners.boft.settings import BoftSettings
from ft_core.tuners.fourierft.settings import FourierFtSettings
from ft_core.tuners.full.settings import FullSettings
from ft_core.tuners.ia3.settings import Ia3Settings
from ft_core.tuners.llamapro.settings import LlamaProSettings
from ft_core.tuners.longlora.settings import LongLoraSettings
from ft_core.tuners.lora.settings import LoraSettings
from ft_core.tuners.vera.settings import VeraSettings

TUNERS: Registry[Tuner] = Registry("tuner", entry_point_group="ft.tuners")
"""All tuners by the name that ``--sft_type`` takes."""

TUNERS.register("lora", "ft_core.tuners.lora.tuner:LORA", lazy=True)
TUNERS.register("full", "ft_core.tuners.full.tuner:FULL", lazy=True)
TUNERS.register("longlora", "ft_core.tuners.longlora.tuner:LONGLORA", lazy=True)
TUNERS.register("adalora", "ft_core.tuners.adalora.tuner:ADALORA", lazy=True)
TUNERS.register("ia3", "ft_core.tuners.ia3.tuner:IA3", lazy=True)
TUNERS.register("llamapro", "ft_core.tuners.llamapro.tuner:LLAMAPRO", lazy=True)
TUNERS.register("adapter", "ft_core.tuners.adapter.tuner:ADAPTER", lazy=True)
TUNERS.register("vera", "ft_core.tuners.vera.tuner:VERA", lazy=True)
TUNERS.register("boft", "ft_core.tuners.boft.tuner:BOFT", lazy=True)
TUNERS.register("fourierft", "ft_core.tuners.fourierft.tuner:FOURIERFT", lazy=True)

quiet_bitsandbytes()  # peft imports it wherever it is installed

__all__ = [
    "TUNERS",
    "AdaLoraSettings",
    "AdapterSettings",
    "BoftSettings",
    "FourierFtSettings",
    "FullSettings",
    "Ia3Settings",
    "LlamaProSettings",
    "LongLoraSettings",
    "LoraSettings",
    "ParameterCount",
    "Tuner",
    "VeraSettings",
    "count_parameters",
]
