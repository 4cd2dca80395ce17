"""One trainer for every recipe: ``train`` runs it, ``derive`` settles its values from the flags.

Nothing heavy is imported until one of the names that need it is used.
"""

from typing import TYPE_CHECKING

from ft_core.lazy import lazy_names

if TYPE_CHECKING:
    from ft_train.arguments import RunArguments, TrainingArguments
    from ft_train.data import TrainData
    from ft_train.machine import limit_gpu_memory
    from ft_train.plan import TrainingPlan, accumulation_steps, derive, weights_dtype
    from ft_train.recipes import PtRecipe, SftRecipe
    from ft_train.resume import find_checkpoint
    from ft_train.run_options import Extras
    from ft_train.training import TrainResult, train
    from ft_train.tuner_arguments import TunerArguments

__all__ = [
    "Extras",
    "PtRecipe",
    "RunArguments",
    "SftRecipe",
    "TrainData",
    "TrainResult",
    "TrainingArguments",
    "TrainingPlan",
    "TunerArguments",
    "accumulation_steps",
    "derive",
    "find_checkpoint",
    "limit_gpu_memory",
    "train",
    "weights_dtype",
]

_HOMES = {
    "Extras": "run_options",
    "PtRecipe": "recipes",
    "RunArguments": "arguments",
    "SftRecipe": "recipes",
    "TrainData": "data",
    "TrainResult": "training",
    "TrainingArguments": "arguments",
    "TrainingPlan": "plan",
    "TunerArguments": "tuner_arguments",
    "derive": "plan",
    "find_checkpoint": "resume",
    "limit_gpu_memory": "machine",
    "accumulation_steps": "plan",
    "train": "training",
    "weights_dtype": "plan",
}

__getattr__ = lazy_names(__name__, _HOMES)
