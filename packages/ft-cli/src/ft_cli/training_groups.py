"""The flags of training commands: which argument groups they are made of."""

from __future__ import annotations

from ft_core.arguments import (
    GenerationArguments,
    LoadingArguments,
    LossArguments,
    MediaArguments,
    ModelArguments,
    QuantizationArguments,
    TemplateArguments,
    VocabularyArguments,
)
from ft_core.command.group import ArgumentGroup
from ft_data.arguments import DataArguments, EncodingArguments, MixArguments
from ft_data.batch_arguments import BatchArguments, StreamArguments
from ft_train.arguments import RunArguments, TrainingArguments
from ft_train.distributed_arguments import DistributedArguments
from ft_train.evaluation_arguments import EvaluationArguments
from ft_train.optimizer_arguments import OPTIMIZER_GROUPS
from ft_train.push_arguments import PushArguments
from ft_train.tuner_arguments import TUNER_GROUPS

GROUPS: tuple[type[ArgumentGroup], ...] = (
    ModelArguments,
    VocabularyArguments,
    QuantizationArguments,
    LoadingArguments,
    TemplateArguments,
    MediaArguments,
    DataArguments,
    MixArguments,
    EncodingArguments,
    BatchArguments,
    StreamArguments,
    LossArguments,
    *TUNER_GROUPS,
    TrainingArguments,
    *OPTIMIZER_GROUPS,
    DistributedArguments,
    RunArguments,
    PushArguments,
    EvaluationArguments,
    GenerationArguments,
)
"""In the order of ``--help``."""
