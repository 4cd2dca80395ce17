"""Which rows come together in a batch, and how rows are streamed."""

from __future__ import annotations

from typing import ClassVar

from ft_core.command.group import ArgumentGroup, flag
from ft_core.errors import UsageError


class BatchArguments(ArgumentGroup):
    """Which rows come together in a batch."""

    title: ClassVar[str] = "batches"

    packing_window: int | None = flag(None, ge=2)
    """Pack so many rows after each other by themselves; none packs all rows together, which fills packs best."""

    group_by_length: bool = False
    """Put rows of about the same length into the same step."""

    max_tokens_per_batch: int | None = flag(None, ge=2)
    """Fill a forward pass with rows of about the same length up to so many tokens, instead of batch_size rows."""

    test_oom_error: bool = False
    """Train on the longest rows first, to see early whether memory suffices."""

    log_source_loss: bool = False
    """Log the training loss of each data set besides that of all."""

    def check(self, given: frozenset[str]) -> None:
        """Refuse two orders at once."""
        chosen = [
            name
            for name, value in (
                ("group_by_length", self.group_by_length),
                ("test_oom_error", self.test_oom_error),
                ("max_tokens_per_batch", self.max_tokens_per_batch is not None),
            )
            if value
        ]
        if "group_by_length" in chosen and len(chosen) > 1:
            raise UsageError(
                f"--group_by_length and --{chosen[-1]} both decide which rows come together; drop one of them"
            )


class StreamArguments(ArgumentGroup):
    """Rows that are read while training."""

    title: ClassVar[str] = "streaming"

    streaming: bool = False
    """Read, encode and pack rows while training, for data that is too large for that before; needs max_steps."""

    shuffle_buffer_size: int = flag(1000, ge=1)
    """Rows that are shuffled and packed together when streaming; 1 keeps the order of the sources."""

    interleave_prob: list[float] = flag([], commas=True)
    """How often each data set is read when streaming, in proportion, in the order of dataset; empty reads all alike."""

    def check(self, given: frozenset[str]) -> None:
        """Refuse flags of streaming without it, and weights that nothing can be drawn with."""
        alone = {"shuffle_buffer_size", "interleave_prob"} & given
        if alone and not self.streaming:
            raise UsageError(
                f"--{min(alone)} is for rows that are streamed; add --streaming true, or leave it out"
            )
        if any(not 0 < weight < float("inf") for weight in self.interleave_prob):
            raise UsageError(
                f"--interleave_prob {self.interleave_prob}: give a number above 0 for each data set"
            )
