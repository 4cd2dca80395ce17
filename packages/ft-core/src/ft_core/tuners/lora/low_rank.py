"""The update of a linear layer by two narrow matrices as one operation, in the shape that suits the device."""

from __future__ import annotations

from typing import Any

import torch


def low_rank_update(
    result: torch.Tensor,
    x: torch.Tensor,
    matrix_a: torch.Tensor,
    matrix_b: torch.Tensor,
    scale: float,
    keep: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return ``result + scale * (x * keep) A^T B^T`` (https://arxiv.org/abs/2106.09685), in place.

    Args:
        result: output of the layer [..., out]; nobody else may need it.
        x: its input [..., in].
        matrix_a: [r, in].
        matrix_b: [out, r].
        scale: of the update.
        keep: ones where values of ``x`` are kept and zeros elsewhere, as bytes [T, in].
    """
    update = _WideUpdate if x.device.type == "cpu" else _TallUpdate
    updated: torch.Tensor = update.apply(result, x, matrix_a, matrix_b, scale, keep)  # type: ignore[no-untyped-call]
    return updated


class _WideUpdate(torch.autograd.Function):
    """``low_rank_update`` by products of r rows, which are the fast ones on CPUs."""

    @staticmethod
    def forward(
        ctx: Any,
        result: torch.Tensor,
        x: torch.Tensor,
        matrix_a: torch.Tensor,
        matrix_b: torch.Tensor,
        scale: float,
        keep: torch.Tensor | None,
    ) -> torch.Tensor:
        dtype = _compute_dtype(matrix_a)
        flat = x.reshape(-1, x.shape[-1]).to(dtype)
        ctx.scale = scale
        dropped = flat if keep is None else flat * keep
        a, b = matrix_a.to(dtype), matrix_b.to(dtype)
        narrow = a @ dropped.T  # [r, T]
        ctx.save_for_backward(x, keep, matrix_a, matrix_b, narrow)
        ctx.dtype = dtype
        _add_product(result, narrow.T, b, scale)
        ctx.mark_dirty(result)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[Any, ...]:
        (gradient,) = gradients
        x, keep, matrix_a, matrix_b, narrow = ctx.saved_tensors
        wide = gradient.reshape(-1, gradient.shape[-1]).to(ctx.dtype)
        slope = (matrix_b.to(ctx.dtype).T @ wide.T).mul_(ctx.scale)  # [r, T]
        for_a = for_b = for_x = None
        if ctx.needs_input_grad[3]:
            for_b = (narrow @ wide).mul_(ctx.scale).T.to(matrix_b.dtype)
        if ctx.needs_input_grad[2]:
            flat = x.reshape(-1, x.shape[-1]).to(ctx.dtype)
            for_a = (slope @ (flat if keep is None else flat * keep)).to(matrix_a.dtype)
        if ctx.needs_input_grad[1]:
            back = slope.T @ matrix_a.to(ctx.dtype)
            for_x = (back if keep is None else back.mul_(keep)).to(x.dtype).view(x.shape)
        return gradient, for_x, for_a, for_b, None, None


class _TallUpdate(torch.autograd.Function):
    """``low_rank_update`` by products of r columns, which GPUs read in whole lines, in as few kernels as possible."""

    @staticmethod
    def forward(
        ctx: Any,
        result: torch.Tensor,
        x: torch.Tensor,
        matrix_a: torch.Tensor,
        matrix_b: torch.Tensor,
        scale: float,
        keep: torch.Tensor | None,
    ) -> torch.Tensor:
        dtype = _compute_dtype(matrix_a)
        ctx.scale, ctx.types = scale, (matrix_a.dtype, matrix_b.dtype)
        scaled_a, b = (matrix_a * scale).to(dtype), matrix_b.to(dtype)
        narrow = _kept(x.reshape(-1, x.shape[-1]).to(dtype), keep) @ scaled_a.T  # [T, r]
        ctx.save_for_backward(x, keep, scaled_a, b, narrow)
        _add_product(result, narrow, b)
        ctx.mark_dirty(result)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[Any, ...]:
        (gradient,) = gradients
        x, keep, scaled_a, b, narrow = ctx.saved_tensors
        wide = gradient.reshape(-1, gradient.shape[-1]).to(b.dtype)
        slope = wide @ b  # [T, r]
        for_a = for_b = for_x = None
        if ctx.needs_input_grad[3]:
            for_b = (wide.T @ narrow).to(ctx.types[1])
        if ctx.needs_input_grad[2]:
            flat = _kept(x.reshape(-1, x.shape[-1]).to(b.dtype), keep)
            for_a = (slope.T @ flat).to(ctx.types[0]).mul_(ctx.scale)
        if ctx.needs_input_grad[1]:
            for_x = _kept(slope @ scaled_a, keep).to(x.dtype).view(x.shape)
        return gradient, for_x, for_a, for_b, None, None


def _add_product(
    result: torch.Tensor, narrow: torch.Tensor, matrix_b: torch.Tensor, scale: float = 1.0
) -> None:
    """Add ``scale * narrow B^T`` to a layer's output [..., out] in place; ``narrow`` is [T, r], ``matrix_b`` [out, r]."""
    wide = result.view(-1, result.shape[-1])
    if wide.dtype == narrow.dtype:
        wide.addmm_(narrow, matrix_b.T, alpha=scale)
    else:
        wide.add_((narrow @ matrix_b.T).to(wide.dtype), alpha=scale)


def _kept(values: torch.Tensor, keep: torch.Tensor | None) -> torch.Tensor:
    """Return the values that are kept, and zeros, by one kernel whatever the type."""
    if keep is None:
        return values
    kept: torch.Tensor = torch.ops.aten.native_dropout_backward(values, keep.view(torch.bool), 1.0)
    return kept


def _compute_dtype(matrix: torch.Tensor) -> torch.dtype:
    """Return the type that autocast computes in here, else the adapter's own."""
    kind = matrix.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else matrix.dtype
