"""Argument groups that several packages share."""

from ft_core.arguments.generation import GenerationArguments
from ft_core.arguments.loading import LoadingArguments
from ft_core.arguments.loss import LossArguments
from ft_core.arguments.media import MediaArguments
from ft_core.arguments.model import ModelArguments, TemplateArguments, VocabularyArguments
from ft_core.arguments.quantized import QuantizationArguments

__all__ = [
    "GenerationArguments",
    "LoadingArguments",
    "LossArguments",
    "MediaArguments",
    "ModelArguments",
    "QuantizationArguments",
    "TemplateArguments",
    "VocabularyArguments",
]
