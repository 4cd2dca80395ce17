"""Rows that are read, mixed, shuffled, encoded and packed on the way, from any position, in any number of shards."""

from ft_data.streaming.mixing import MixedRow, MixedRows, RowSource
from ft_data.streaming.stream import EncodedStream

__all__ = ["EncodedStream", "MixedRow", "MixedRows", "RowSource"]
