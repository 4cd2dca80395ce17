"""Fetching models and data sets: from directories, Hugging Face, ModelScope, or installed packages; and pushing."""

from ft_core.hub.cache import cache_directory
from ft_core.hub.datasets import fetch_dataset, fetch_dataset_files
from ft_core.hub.fetch import fetch
from ft_core.hub.snapshots import Snapshot
from ft_core.hub.upload import Destination, open_destination, push

__all__ = [
    "Destination",
    "Snapshot",
    "cache_directory",
    "fetch",
    "fetch_dataset",
    "fetch_dataset_files",
    "open_destination",
    "push",
]
