"""Keys and values of several requests in one buffer that rows join and leave without copying the others.

All rows end at the same column; a shorter row begins further right. A decode step writes one column
in place. The distance of two columns is the distance of the two tokens in their row, so a sliding
window means the same in columns as in positions.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from transformers import DynamicCache, PretrainedConfig, PreTrainedModel
from transformers.cache_utils import (
    CacheLayerMixin,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    get_layer_types_and_kwargs,
)

BATCHED_LAYER_TYPES = frozenset({"full_attention", "sliding_attention"})
POSITION_DEPENDENT_ROPE = frozenset({"dynamic", "longrope"})
SPARE_COLUMNS = 128


class ColumnLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer's keys and values, shape (row capacity, heads, column capacity, head size).

    Writing doesn't move the end: ``ColumnCache.advance`` does once the whole forward pass is through,
    so a pass that fails half way leaves the cache as it was.
    """

    def __init__(self, cache: ColumnCache, sliding_window: int | None) -> None:
        super().__init__()
        self.cache = cache
        self.window = sliding_window
        self.is_sliding = sliding_window is not None

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate buffers like these states (rows, heads, columns, head size) for the cache's capacity."""
        size = (self.cache.row_capacity, self.cache.column_capacity)
        self.keys = _buffer(key_states, size)
        self.values = _buffer(value_states, size)
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new columns behind the end and return all columns that attention may see."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        rows, end = self.cache.rows, self.cache.end
        new_end = end + key_states.shape[-2]
        first = self.cache.base + self._hidden_columns()
        self.keys[:rows, :, end:new_end] = key_states
        self.values[:rows, :, end:new_end] = value_states
        return self.keys[:rows, :, first:new_end], self.values[:rows, :, first:new_end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how many columns ``update`` will give, and how many before them it leaves out."""
        hidden = self._hidden_columns()
        return self.get_seq_length() - hidden + query_length, hidden

    def get_seq_length(self) -> int:
        """Return the number of filled columns."""
        return self.cache.columns

    def get_max_length(self) -> int:
        """Return -1: the buffer grows."""
        return -1

    def _hidden_columns(self) -> int:
        if self.window is None:
            return 0
        return max(0, self.cache.columns - (self.window - 1))


class ColumnCache(DynamicCache):  # type: ignore[misc]
    """The keys and values of a batch.

    Attributes:
        rows: rows in use; they are the first ones of the buffers.
        starts: for each row the column of its first token.
        base: the first column that any row uses.
        end: the column behind the last filled one.

    Outside a row's own columns the buffers hold zeros, so nothing of an earlier tenant, say a NaN, can
    reach attention through a masked column.
    """

    def __init__(self, config: PretrainedConfig, *, rows: int = 0, columns: int = 0) -> None:
        super().__init__(config=config)
        self.layers = [ColumnLayer(self, window) for window in _windows(config)]
        self.rows = 0
        self.starts: list[int] = []
        self.base = 0
        self.end = 0
        self.row_capacity = rows
        self.column_capacity = columns

    @property
    def columns(self) -> int:
        """Filled columns."""
        return self.end - self.base

    def open(self, lengths: list[int]) -> None:
        """Start empty rows for sequences of these lengths, aligned at their ends."""
        width = max(lengths)
        self.rows = len(lengths)
        self.starts = [width - length for length in lengths]
        self.base = self.end = 0
        self.row_capacity, self.column_capacity = self.rows, width

    def fill(self, row: int, layers: Sequence[tuple[torch.Tensor, torch.Tensor]], end: int) -> None:
        """Write what is known of a row, shape (heads, columns, head size) a layer, up to column ``end``."""
        begin = self.starts[row]
        for layer, (keys, values) in zip(self.layers, layers, strict=True):
            if not layer.is_initialized:
                layer.lazy_initialization(keys[None], values[None])
            layer.keys[row, :, begin:end] = keys[:, : end - begin]
            layer.values[row, :, begin:end] = values[:, : end - begin]

    def copy_row(self, row: int) -> tuple[tuple[torch.Tensor, torch.Tensor], ...]:
        """Return a row's keys and values, shape (heads, columns, head size), of each layer."""
        used = slice(self.starts[row], self.end)
        return tuple(
            (layer.keys[row, :, used].clone(), layer.values[row, :, used].clone())
            for layer in self.layers
        )

    def reserve(self, columns: int) -> None:
        """Make room for this many columns behind the end."""
        if self.end + columns > self.column_capacity:
            spare = max(SPARE_COLUMNS, self.columns // 2)
            self._move(self.row_capacity, self.columns + columns + spare, self.columns)

    def advance(self, columns: int) -> None:
        """Count the columns that a forward pass has written."""
        self.end += columns

    def admit(self, source: ColumnCache, row: int) -> None:
        """Copy a row of another cache behind the last row."""
        length = source.end - source.starts[row]
        self._make_room(length)
        begin = self.end - length
        for layer, other in zip(self.layers, source.layers, strict=True):
            if not layer.is_initialized:
                layer.lazy_initialization(other.keys, other.values)
            taken = slice(source.starts[row], source.end)
            layer.keys[self.rows, :, begin : self.end] = other.keys[row, :, taken]
            layer.values[self.rows, :, begin : self.end] = other.values[row, :, taken]
        self.rows += 1
        self.starts.append(begin)
        self.base = min(self.starts)

    def remove(self, row: int) -> None:
        """Drop a row; the last row takes its place."""
        last = self.rows - 1
        used = slice(self.base, self.end)
        for layer in self.layers:
            for buffer in (layer.keys, layer.values):
                if row != last:
                    buffer[row, :, used] = buffer[last, :, used]
                buffer[last, :, used] = 0
        self.starts[row] = self.starts[last]
        self.starts.pop()
        self.rows = last
        self.base = min(self.starts) if self.starts else self.end

    def _make_room(self, length: int) -> None:
        rows = self.row_capacity
        if self.rows == rows:
            rows = max(1, 2 * rows)
        if not self.rows:
            self.base = self.end = 0
        if rows != self.row_capacity or self.end < length:
            width = max(self.columns, length)
            capacity = max(self.column_capacity, width + SPARE_COLUMNS)
            self._move(rows, capacity, width)

    def _move(self, rows: int, columns: int, end: int) -> None:
        """Put the filled columns into buffers of this capacity so that they end at column ``end``."""
        begin = end - self.columns
        for layer in self.layers:
            if layer.is_initialized:
                for name in ("keys", "values"):
                    old = getattr(layer, name)
                    new = _buffer(old, (rows, columns))
                    new[: self.rows, :, begin:end] = old[: self.rows, :, self.base : self.end]
                    setattr(layer, name, new)
        shift = begin - self.base
        self.starts = [start + shift for start in self.starts]
        self.base, self.end = begin, end
        self.row_capacity, self.column_capacity = rows, columns


def can_batch(model: PreTrainedModel) -> bool:
    """Whether requests of this model can share a ``ColumnCache``.

    They can't where a layer keeps a state that is no list of keys and values (Mamba, convolutions,
    chunked attention), shares another layer's, where the rotation of positions depends on the longest
    row, or where the model takes no position ids.
    """
    config = model.config.get_text_config()
    if not {"position_ids", "past_key_values"} <= forward_parameters(model) or _adds_tokens(model):
        return False
    rope = getattr(config, "rope_parameters", None) or {}
    per_layer = [item for item in rope.values() if isinstance(item, dict)] or [rope]
    if any(item.get("rope_type") in POSITION_DEPENDENT_ROPE for item in per_layer):
        return False
    layers = DynamicCache(config=config).layers
    if len(layers) != config.num_hidden_layers:
        return False
    layer_types = get_layer_types_and_kwargs(config)[0]
    plain = all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)
    return plain and BATCHED_LAYER_TYPES.issuperset(layer_types)


def forward_parameters(model: PreTrainedModel) -> frozenset[str]:
    """Return the names of what the model's forward takes; of an adapted model, the base model's."""
    base: PreTrainedModel = model.get_base_model() if _is_adapted(model) else model
    return _forward_parameters(type(base).forward)


@lru_cache
def _forward_parameters(forward: Callable[..., object]) -> frozenset[str]:
    return frozenset(inspect.signature(forward).parameters)


def _is_adapted(model: PreTrainedModel) -> bool:
    # Asked by name, since importing peft takes long and is only needed where a model is peft's already.
    return type(model).__module__.partition(".")[0] == "peft"


def _adds_tokens(model: PreTrainedModel) -> bool:
    """Whether an adapter puts tokens of its own before the prompt."""
    return _is_adapted(model) and bool(model.active_peft_config.is_prompt_learning)


def _buffer(like: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    rows, columns = size
    return like.new_zeros((rows, like.shape[1], columns, like.shape[3]))


def _windows(config: PretrainedConfig) -> list[int | None]:
    """Return the sliding window of each layer that caches, if it has one.

    Releases of transformers before 5.18 describe all layers by one dictionary, later ones each by its own.
    """
    layer_types, settings = get_layer_types_and_kwargs(config)
    if not isinstance(settings, dict):
        return [setting.get("sliding_window") for setting in settings]
    window = settings.get("sliding_window")
    return [None if kind == "full_attention" else window for kind in layer_types]
