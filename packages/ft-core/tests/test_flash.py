"""Documents of a joined row by one kernel on a GPU, against attention document by document."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from ft_core.samples import Tokens
from ft_core.sequences import enable_joined_attention, join
from ft_core.sequences.flash import attend_documents, can_attend_documents
from ft_core.sequences.logprobs import token_logprobs
from ft_core.testing import tiny_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

ENDS = (40, 41, 300, 417)


def tensors(dtype: torch.dtype) -> list[torch.Tensor]:
    """Return queries of 8 heads, keys and values of 2, head size 64."""
    torch.manual_seed(0)
    shapes = [(1, heads, ENDS[-1], 64) for heads in (8, 2, 2)]
    return [torch.randn(*shape, device="cuda", dtype=dtype, requires_grad=True) for shape in shapes]


def alone(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, window: int, scale: float | None
) -> torch.Tensor:
    """Attend to each document by itself, in float32, by a dense mask."""
    pieces, start = [], 0
    for end in ENDS:
        q, k, v = (t[:, :, start:end].float() for t in (query, key, value))
        place = torch.arange(end - start, device=q.device)
        sees = place[:, None] >= place[None]
        if window:
            sees &= place[:, None] - place[None] < window
        piece = torch.nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=sees, scale=scale, enable_gqa=True
        )
        pieces.append(piece.transpose(1, 2))
        start = end
    return torch.cat(pieces, dim=1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("window", [0, 1, 33])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_documents_attend_as_if_alone(dtype: torch.dtype, window: int, scale: float | None) -> None:
    given = tensors(dtype)
    assert can_attend_documents(given[0], given[2], 0.0)
    got = attend_documents(*given, ENDS, window, scale)
    wanted = alone(*given, window, scale)
    assert got.shape == wanted.shape
    assert torch.allclose(got.float(), wanted, atol=2e-2, rtol=2e-2)
    slope = torch.randn_like(wanted)
    for own, other in zip(
        torch.autograd.grad(got, given, slope.to(dtype)),
        torch.autograd.grad(wanted, given, slope),
        strict=True,
    ):
        assert torch.allclose(own.float(), other.float(), atol=6e-2, rtol=6e-2)


def test_what_it_does_not_serve() -> None:
    query = torch.randn(1, 2, 4, 64, device="cuda")
    assert not can_attend_documents(query, query, 0.0)
    assert not can_attend_documents(query.half(), query.half(), 0.1)
    assert not can_attend_documents(query.half(), query.half()[..., :32], 0.0)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        assert can_attend_documents(query, query, 0.0)


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma", "mistral"])
def test_a_joined_row_gives_the_log_probabilities_of_its_documents(
    kind: str, tmp_path: Path
) -> None:
    directory = tiny_model(tmp_path / kind, kind, initializer_range=0.3)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16).cuda().eval()
    documents = [
        Tokens([7 + place % 90 for place in range(length)], [0.0] + [1.0] * (length - 1))
        for length in (30, 12, 70)
    ]
    with torch.no_grad():
        alone = [token_logprobs(model, moved([document])) for document in documents]
        enable_joined_attention(model)
        joined = token_logprobs(model, moved(documents))
    assert torch.allclose(joined, torch.cat(alone), atol=0.1)


def moved(documents: list[Tokens]) -> dict[str, object]:
    """Return the batch of some documents on the GPU."""
    return {
        name: value.cuda() if isinstance(value, torch.Tensor) else value
        for name, value in join(documents).items()
    }
