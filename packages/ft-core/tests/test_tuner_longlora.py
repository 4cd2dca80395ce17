"""Attention by shifted groups against a mask written out by hand, and joined documents."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from ft_core.errors import UsageError
from ft_core.models.loading import load_model
from ft_core.sequences import Layout, layout_for
from ft_core.testing import tiny_model
from ft_core.tuners import TUNERS, LongLoraSettings
from ft_core.tuners.longlora.attention import group_starts, shifted_attention

LENGTHS = (9, 16, 5)


def visible(lengths: tuple[int, ...], share: float, *, shifted: bool) -> torch.Tensor:
    """The paper's rule, token by token: predecessors of one's own group, in one's own document."""
    owner: list[tuple[int, int]] = []
    for document, length in enumerate(lengths):
        group = -(-int(length * share * 1000) // 1000)  # rounded up
        for place in range(length):
            number = place // group if not shifted else (place + group - group // 2) // group
            owner.append((document, number))
    return torch.tensor(
        [
            [mine == theirs and j <= i for j, theirs in enumerate(owner)]
            for i, mine in enumerate(owner)
        ]
    )


@pytest.mark.parametrize("key_heads", [1, 2, 4])
def test_it_is_softmax_over_the_papers_groups(key_heads: int, tmp_path: Path) -> None:
    model = model_of(tmp_path, "llama")
    TUNERS.get("longlora").apply(model, LongLoraSettings(rank=2))
    layer = next(m for n, m in model.named_modules() if n.endswith("layers.0.self_attn"))
    layer.train()
    torch.manual_seed(1)
    query = torch.randn(1, 4, sum(LENGTHS), 8)
    key, value = torch.randn(2, 1, key_heads, sum(LENGTHS), 8)
    starts = torch.tensor([[0, 9, 25], [0, 0, 0]], dtype=torch.int32)[None, None]
    found, _ = shifted_attention(layer, query, key, value, starts)
    for head in range(4):
        mask = visible(LENGTHS, 0.25, shifted=head >= 2)
        other = head * key_heads // 4
        scores = query[0, head] @ key[0, other].T / 8**0.5
        expected = scores.masked_fill(~mask, -torch.inf).softmax(-1) @ value[0, other]
        torch.testing.assert_close(found[0, :, head], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("length", [1, 2, 3, 7, 16, 33])
@pytest.mark.parametrize("shifted", [False, True])
def test_groups_cover_a_document_once(length: int, shifted: bool) -> None:
    starts = group_starts(10, 10 + length, None, shifted=shifted)
    assert starts[0] == 10 and starts == sorted(set(starts)) and starts[-1] < 10 + length
    longest = -(-length // 4)
    sizes = [b - a for a, b in zip(starts, [*starts[1:], 10 + length], strict=True)]
    assert max(sizes) <= longest


def model_of(directory: Path, architecture: str) -> PreTrainedModel:
    return load_model(tiny_model(directory, architecture), dtype=torch.float32, for_training=True)


def scores(model: PreTrainedModel, ids: torch.Tensor, **inputs: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=ids, use_cache=False, **inputs).logits


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "mixtral"])
def test_joined_documents_train_as_if_apart(architecture: str, tmp_path: Path) -> None:
    model = model_of(tmp_path, architecture)
    model = TUNERS.get("longlora").apply(model, LongLoraSettings(rank=2, dropout=0.0))
    assert layout_for(model) is not Layout.PADDED
    model.train()
    documents = [torch.randint(5, 300, (1, length)) for length in LENGTHS]
    apart = torch.cat([scores(model, ids) for ids in documents], dim=1)
    positions = torch.cat([torch.arange(length) for length in LENGTHS])[None]
    joined = scores(model, torch.cat(documents, dim=1), position_ids=positions)
    torch.testing.assert_close(joined, apart, rtol=0, atol=1e-5)
    padded = torch.zeros(len(LENGTHS), max(LENGTHS), dtype=torch.long)
    mask = torch.zeros_like(padded)
    for row, ids in enumerate(documents):
        padded[row, : ids.shape[1]], mask[row, : ids.shape[1]] = ids[0], 1
    whole = scores(model, padded[1:2], attention_mask=mask[1:2])
    torch.testing.assert_close(whole, apart[:, 9:25], rtol=0, atol=1e-5)


def test_groups_of_a_given_length_leave_short_documents_whole(tmp_path: Path) -> None:
    assert group_starts(0, 20, 8, shifted=False) == [0, 8, 16]
    assert group_starts(0, 20, 8, shifted=True) == [0, 4, 12]
    model = model_of(tmp_path / "base", "llama")
    ids = torch.randint(5, 300, (1, 24))
    before = scores(model, ids)
    tuner, settings = TUNERS.get("longlora"), LongLoraSettings(dropout=0.0, context_length=400)
    model = tuner.apply(model, settings).train()
    torch.testing.assert_close(scores(model, ids), before, rtol=0, atol=1e-6)
    tuner.save(model, tmp_path)
    again = tuner.load(
        load_model(tmp_path / "base", dtype=torch.float32, for_training=True),
        tmp_path,
        trainable=True,
    )
    assert (
        again.config._attn_implementation == model.config._attn_implementation == "ft_shifted_100"
    )
    model.config.save_pretrained(tmp_path)
    assert "shifted" not in (tmp_path / "config.json").read_text()


def test_it_answers_with_full_attention(tmp_path: Path) -> None:
    model = model_of(tmp_path, "llama")
    ids = torch.randint(5, 300, (2, 24))
    model.eval()
    before = scores(model, ids)
    model = TUNERS.get("longlora").apply(model, LongLoraSettings(rank=2))
    model.eval()
    assert torch.equal(scores(model, ids), before)
    model.train()
    assert (scores(model, ids) - before).abs().max() > 1e-3
    # What a token sees lies before it.
    changed = ids.clone()
    changed[:, 20:] = 7
    model.eval()
    for mode in (True, False):
        model.train(mode)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.eval()
        first, second = scores(model, ids), scores(model, changed)
        torch.testing.assert_close(first[:, :20], second[:, :20], rtol=0, atol=1e-6)
    generated = model.eval().generate(ids[:1], max_new_tokens=3, do_sample=False)
    assert generated.shape == (1, 27)


def test_other_attention_is_refused(tmp_path: Path) -> None:
    model = load_model(tiny_model(tmp_path), dtype=torch.float32, attention="eager")
    with pytest.raises(UsageError, match=r"longlora attends by torch's SDPA.*eager"):
        TUNERS.get("longlora").apply(model, LongLoraSettings())
