"""What answers: ft's own engine, and infer over a dataset or with a person.

Nothing heavy is imported until one of the names that need it is used.
"""

from typing import TYPE_CHECKING

from ft_core.lazy import lazy_names

if TYPE_CHECKING:
    from ft_serve.arguments import CheckpointArguments, InferArguments
    from ft_serve.engines.choices import choices
    from ft_serve.engines.pt import PtEngine
    from ft_serve.infer.dataset import InferReport, answer_dataset
    from ft_serve.infer.interactive import Chat

__all__ = [
    "Chat",
    "CheckpointArguments",
    "InferArguments",
    "InferReport",
    "PtEngine",
    "answer_dataset",
    "choices",
]

_HOMES = {
    "Chat": "infer.interactive",
    "CheckpointArguments": "arguments",
    "InferArguments": "arguments",
    "InferReport": "infer.dataset",
    "PtEngine": "engines.pt",
    "answer_dataset": "infer.dataset",
    "choices": "engines.choices",
}

__getattr__ = lazy_names(__name__, _HOMES)
