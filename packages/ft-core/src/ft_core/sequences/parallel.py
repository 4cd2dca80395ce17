"""One sequence on several ranks: each holds a slice of every layer, and attention sees all of it.

Before attention, an all-to-all exchange trades the slices of all heads for all tokens of a share of the
heads; after it, another one trades them back (DeepSpeed-Ulysses, Jacobs et al. 2023,
https://arxiv.org/abs/2309.14509). Everything else in a decoder works on single tokens. Documents that are
joined in one row stay apart: attention runs over whole documents, wherever their tokens lie.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.nn.functional import pad as pad_tensor
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface

from ft_core.errors import ModelError, UsageError
from ft_core.sequences.attention import joined_attention, joined_mask
from ft_core.sequences.isolation import Layout, language_model, layout_for, tiny_copy

if TYPE_CHECKING:
    from ft_core.recipe import Batch

NAME = "ft_split"
"""The implementation's name in ``config._attn_implementation``."""

_LENGTHS = (5, 9, 4)
_WINDOW = 3
_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class SequenceGroup:
    """The ranks that hold one sequence together.

    Attributes:
        process_group: those ranks, in the order of their slices.
        rank: which slice this process holds.
        size: how many slices there are.
    """

    process_group: dist.ProcessGroup
    rank: int
    size: int


def sequence_group(size: int) -> SequenceGroup:
    """Make groups of ``size`` neighbouring ranks, and return the one this process is in.

    Every process must call it, since all take part in making all groups.

    Raises:
        UsageError: the processes can't be divided into groups of that size.
    """
    world, rank = dist.get_world_size(), dist.get_rank()
    if world % size:
        raise UsageError(
            f"--sequence_parallel_size {size} doesn't divide the {world} processes; set NPROC_PER_NODE to a multiple"
        )
    groups = [dist.new_group(list(range(start, start + size))) for start in range(0, world, size)]
    return SequenceGroup(groups[rank // size], rank % size, size)


def check_heads(model: torch.nn.Module, size: int) -> None:
    """Refuse a model whose attention heads can't be divided over ``size`` ranks.

    Raises:
        UsageError: says how many heads it has, and which sizes would do.
    """
    config = language_model(model).config.get_text_config()
    heads = int(config.num_attention_heads)
    shared = int(getattr(config, "num_key_value_heads", None) or heads)
    if heads % size or (shared % size and size % shared):
        fit = [
            n
            for n in range(2, heads + 1)
            if heads % n == 0 and (shared % n == 0 or n % shared == 0)
        ]
        raise UsageError(
            f"--sequence_parallel_size {size}: {type(language_model(model)).__name__} has {heads} heads and {shared} "
            f"of keys, which {size} ranks can't share; {_one_of(fit)}"
        )


def enable_split_attention(model: PreTrainedModel, group: SequenceGroup) -> str:
    """Let a model attend over slices of a sequence that ``split`` made.

    Rows that are not split give the same results as before.

    Returns:
        The implementation the model used before; pass it to ``model.set_attn_implementation`` to go back.

    Raises:
        UsageError: its heads can't be divided.
        ModelError: it looks at other tokens by other means than attention, so slices would differ.
    """
    check_heads(model, group.size)
    if not _works_on_slices(model, group):
        raise ModelError(
            f"--sequence_parallel_size {group.size}: {type(model).__name__} can't work on slices of a sequence: joined "
            "documents or slices see other tokens than they should; leave it out"
        )
    before = str(model.config._attn_implementation)
    _switch(model, group)
    return before


def split(batch: Batch, group: SequenceGroup) -> Batch:
    """Return this rank's slice of a joined batch.

    The row is filled up with a document of its own, which nothing is learned from, to a multiple of the
    ranks. A target goes to the rank that holds the token before it.

    Args:
        batch: as ``ft_core.sequences.join`` makes it, the same on all ranks of the group.
        group: the ranks.

    Returns:
        The same keys, with T / size tokens and this rank's share of the targets, and ``attention``: what
        the model's attention must be told.
    """
    ids, positions = batch["input_ids"], batch["position_ids"]
    length = ids.shape[1]
    missing = -length % group.size
    starts: torch.Tensor = batch["cu_seqlens"][:-1]
    if missing:
        ids = pad_tensor(ids, (0, missing))
        filler = torch.arange(missing, device=positions.device)[None]
        positions = torch.cat([positions, filler], dim=1)
        starts = torch.cat([starts, starts.new_tensor([length])])
    share = ids.shape[1] // group.size
    first = group.rank * share
    targets = batch["targets"]
    mine = (targets >= first) & (targets < first + share)
    return {
        **batch,
        "input_ids": ids[:, first : first + share],
        "position_ids": positions[:, first : first + share],
        "targets": targets[mine] - first,
        "labels": batch["labels"][mine],
        "weights": batch["weights"][mine],
        "documents": batch["documents"][mine],
        "attention": {"document_starts": starts},
    }


class _Exchange(torch.autograd.Function):
    """Exchange equal pieces along the first dimension between all ranks of a group."""

    @staticmethod
    def forward(ctx: Any, pieces: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
        ctx.group = group
        received = torch.empty_like(pieces)
        dist.all_to_all_single(received, pieces, group=group)
        return received

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        back = gradients[0].contiguous()
        received = torch.empty_like(back)
        dist.all_to_all_single(received, back, group=ctx.group)
        return received, None


def _exchange(pieces: torch.Tensor, group: SequenceGroup) -> torch.Tensor:
    received: torch.Tensor = _Exchange.apply(  # type: ignore[no-untyped-call]
        pieces.contiguous(), group.process_group
    )
    return received


def heads_to_tokens(states: torch.Tensor, group: SequenceGroup) -> torch.Tensor:
    """Trade [1, H, T / S, D], all heads of a slice, for [1, H / S, T, D], all tokens of a share of the heads."""
    _, heads, tokens, size = states.shape
    pieces = _exchange(states[0].reshape(group.size, heads // group.size, tokens, size), group)
    return pieces.transpose(0, 1).reshape(1, heads // group.size, group.size * tokens, size)


def tokens_to_heads(states: torch.Tensor, group: SequenceGroup) -> torch.Tensor:
    """Trade [1, T, H / S, D], all tokens of a share of the heads, for [1, T / S, H, D]."""
    _, tokens, heads, size = states.shape
    share = tokens // group.size
    pieces = _exchange(states[0].reshape(group.size, share, heads, size), group)
    return pieces.transpose(0, 1).reshape(1, share, group.size * heads, size)


def _switch(model: PreTrainedModel, group: SequenceGroup) -> None:
    """Register attention over this group's slices, and let the model use it."""

    def attend(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        document_starts: torch.Tensor | None = None,
        **options: Any,
    ) -> tuple[torch.Tensor, None]:
        if document_starts is None:
            return joined_attention(module, query, key, value, attention_mask, **options)
        if key.shape[1] % group.size:
            times = group.size // key.shape[1]
            key, value = (item.repeat_interleave(times, dim=1) for item in (key, value))
        query, key, value = (heads_to_tokens(item, group) for item in (query, key, value))
        window = options.get("sliding_window") or 0
        described = torch.stack([document_starts, torch.full_like(document_starts, window)]).to(
            torch.int32
        )
        output, _ = joined_attention(module, query, key, value, described[None, None], **options)
        return tokens_to_heads(output, group), None

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, joined_mask)
    model.set_attn_implementation(NAME)


def _works_on_slices(model: PreTrainedModel, group: SequenceGroup) -> bool:
    """Whether a tiny copy of the model gives the same logits on slices as on the whole; all ranks agree."""
    if layout_for(model) is not Layout.JOINED:
        return False
    inner = language_model(model)
    config = copy.deepcopy(inner.config)
    if getattr(config.get_text_config(), "sliding_window", None):
        config.get_text_config().sliding_window = _WINDOW
    tiny = tiny_copy(type(inner), config, "sdpa", groups=group.size)
    if tiny is None:
        return False
    device = _device(group)
    tiny.to(device)
    generator = torch.Generator().manual_seed(0)
    ids = torch.cat([torch.randint(3, 60, (1, n), generator=generator) for n in _LENGTHS], dim=1)
    positions = torch.cat([torch.arange(n)[None] for n in _LENGTHS], dim=1)
    starts = torch.tensor([0, *_LENGTHS]).cumsum(0)
    named = {"input_ids": ids, "position_ids": positions, "cu_seqlens": starts}
    for name in ("targets", "labels", "weights", "documents"):
        named[name] = torch.zeros(0, dtype=torch.long)
    batch = {name: item.to(device) for name, item in named.items()}
    with torch.no_grad():
        tiny.set_attn_implementation("sdpa")
        whole = tiny(
            input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False
        ).logits
        slice_ = split(batch, group)
        _switch(tiny, group)
        try:
            own = tiny(
                input_ids=slice_["input_ids"],
                position_ids=slice_["position_ids"],
                use_cache=False,
                **slice_["attention"],
            ).logits
        except TypeError:  # its forward takes no further arguments to hand to attention
            return False
    share = own.shape[1]
    expected = pad_tensor(whole, (0, 0, 0, share * group.size - whole.shape[1]))
    first = group.rank * share
    inside = min(share, max(0, ids.shape[1] - first))
    difference = (own[:, :inside] - expected[:, first : first + inside]).abs().amax(dim=(0, 2))
    wrong = (difference > _TOLERANCE * whole.abs().max()).any().float()
    dist.all_reduce(wrong, group=group.process_group)
    return not wrong.item()


def _device(group: SequenceGroup) -> torch.device:
    """Return where tensors must lie for this group to exchange them."""
    if "nccl" in str(dist.get_backend(group.process_group)):
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def _one_of(sizes: list[int]) -> str:
    return f"these can: {', '.join(map(str, sizes))}" if sizes else "no number of ranks can"
