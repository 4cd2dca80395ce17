"""Rows for training language models: read, check, encode, pack and look at them.

Importing this package imports neither torch nor numpy, pyarrow or datasets; they are loaded when a
function needs them.
"""

from ft_data.arguments import DataArguments, EncodingArguments, MixArguments
from ft_data.conversion import BadRowError, Conversations
from ft_data.dataset_info import register_dataset_info
from ft_data.encoded_arrays import StoredSamples
from ft_data.encoding import EncodedRows, encode
from ft_data.formats import Detection
from ft_data.given import load_given
from ft_data.identity import Identity
from ft_data.lazy_rows import LazyRows
from ft_data.load import Rows, TrainVal, load, load_split
from ft_data.packing import batch_by_tokens, efficiency, pack
from ft_data.preview import Preview, preview_row, to_html, to_terminal
from ft_data.recognition import detect
from ft_data.registry import DATASETS, DatasetInfo, register_dataset
from ft_data.report import LoadReport, RowFault, SourceReport
from ft_data.row_stream import RowStream, StreamedRow, stream
from ft_data.select import sample, shuffle, split
from ft_data.sources import Source, format_source, parse_source, parse_sources

__all__ = [
    "DATASETS",
    "BadRowError",
    "Conversations",
    "DataArguments",
    "DatasetInfo",
    "Detection",
    "EncodedRows",
    "EncodingArguments",
    "Identity",
    "LazyRows",
    "LoadReport",
    "MixArguments",
    "Preview",
    "RowFault",
    "RowStream",
    "Rows",
    "Source",
    "SourceReport",
    "StoredSamples",
    "StreamedRow",
    "TrainVal",
    "batch_by_tokens",
    "detect",
    "efficiency",
    "encode",
    "format_source",
    "load",
    "load_given",
    "load_split",
    "pack",
    "parse_source",
    "parse_sources",
    "preview_row",
    "register_dataset",
    "register_dataset_info",
    "sample",
    "shuffle",
    "split",
    "stream",
    "to_html",
    "to_terminal",
]
