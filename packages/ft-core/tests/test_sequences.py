"""Joined rows against separate forwards: logits, loss and gradients."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoModelForCausalLM, Mamba2Config, Mamba2ForCausalLM

from ft_core.samples import Tokens
from ft_core.sequences import (
    Layout,
    enable_joined_attention,
    join,
    layout_for,
    pad,
    pick_logprobs,
    to_padded,
    token_logits,
    token_logprobs,
    trained_tokens,
)
from ft_core.sequences.causal import causal_attention
from ft_core.testing import ARCHITECTURES, tiny_model


def load(directory, architecture="llama", implementation="sdpa", **config):
    tiny_model(directory, architecture, **config)
    return AutoModelForCausalLM.from_pretrained(directory, attn_implementation=implementation)


def documents(*lengths, trained_from=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        Tokens(
            torch.randint(3, 384, (n,), generator=generator).tolist(),
            [0.0] * trained_from + [1.0 + i % 2 for i in range(n - trained_from)],
        )
        for n in lengths
    ]


def separate_loss(model, rows):
    """Weighted sum of losses, from full logits of one unpadded forward a document."""
    total = torch.zeros(())
    for row in rows:
        ids = torch.tensor([row.input_ids])
        logits = model(input_ids=ids).logits[0, :-1].float()
        losses = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")
        total = total + (losses * torch.tensor(row.loss_weights[1:])).sum()
    return total


def gradients(model):
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def test_join_says_what_to_predict_and_from_where():
    batch = join([Tokens([5, 6, 7], [1, 0, 2]), Tokens([8], [1]), Tokens([9, 10], [0, 0.5])])
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9, 10]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 0, 1]]
    assert batch["cu_seqlens"].tolist() == [0, 3, 4, 6]
    assert batch["targets"].tolist() == [1, 4]
    assert batch["labels"].tolist() == [7, 10]
    assert batch["weights"].tolist() == [2.0, 0.5]
    assert batch["documents"].tolist() == [0, 2]
    assert "attention_mask" not in batch
    assert trained_tokens([Tokens([5, 6, 7], [1, 0, 2])]) == 1


@pytest.mark.parametrize("rows", [[], [Tokens([], [])]])
def test_join_refuses_nothing(rows):
    with pytest.raises(ValueError, match="at least one"):
        join(rows)


def test_padded_rows_hold_the_same_documents():
    rows = [Tokens([5, 6, 7], [0, 1, 1]), Tokens([8, 9], [0, 3])]
    batch = pad(rows, pad_token_id=1)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 1]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["targets"].tolist() == [0, 1, 3]
    assert to_padded(batch) is batch


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
@pytest.mark.parametrize("implementation", ["joined", "sdpa", "eager"])
def test_joined_rows_equal_separate_forwards(tmp_path, architecture, implementation):
    model = load(tmp_path, architecture, "eager" if implementation == "eager" else "sdpa").eval()
    rows = documents(7, 40, 2, 21)
    expected = separate_loss(model, rows)
    expected.backward()
    expected_gradients = gradients(model)
    if implementation == "joined":
        assert enable_joined_attention(model) == "sdpa"
        assert layout_for(model) is Layout.JOINED
    batch = join(rows)
    loss = -(token_logprobs(model, batch) * batch["weights"]).sum()
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    found = gradients(model)
    assert found.keys() == expected_gradients.keys()
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
def test_padded_rows_equal_separate_forwards(tmp_path, architecture):
    model = load(tmp_path, architecture).eval()
    rows = documents(7, 40, 2, 21)
    batch = pad(rows)
    loss = -(token_logprobs(model, batch) * batch["weights"]).sum()
    torch.testing.assert_close(loss, separate_loss(model, rows), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("architecture", ["mistral", "gemma3_text"])
def test_a_window_shorter_than_the_documents_is_kept(tmp_path, architecture):
    model = load(tmp_path, architecture, sliding_window=6).eval()
    rows = documents(40, 5, 19)
    expected = separate_loss(model, rows)
    enable_joined_attention(model)
    batch = join(rows)
    loss = -(token_logprobs(model, batch) * batch["weights"]).sum()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)


def test_no_dense_mask_is_made_for_joined_rows(tmp_path, monkeypatch):
    model = load(tmp_path).eval()
    enable_joined_attention(model)
    layout_for(model)
    seen = []
    original = torch.nn.functional.scaled_dot_product_attention

    def spy(query, *args, **options):
        seen.append((query.shape[2], options["attn_mask"]))
        return original(query, *args, **options)

    monkeypatch.setattr("ft_core.sequences.attention.scaled_dot_product_attention", spy)
    token_logits(model, join(documents(7, 4)))
    assert seen == [(7, None), (4, None)] * 2


def test_a_change_in_one_document_leaves_the_others_alone(tmp_path):
    model = load(tmp_path).eval()
    enable_joined_attention(model)
    rows = documents(7, 12, 9)
    changed = [Tokens([3] * 7, rows[0].loss_weights), *rows[1:]]
    before, after = (token_logits(model, join(r)) for r in (rows, changed))
    first = rows[0].trained
    assert not torch.equal(before[:first], after[:first])
    torch.testing.assert_close(before[first:], after[first:], rtol=0, atol=0)


def test_generation_works_with_joined_attention(tmp_path):
    model = load(tmp_path).eval()
    prompt = torch.tensor([[5, 6, 7, 8], [1, 1, 9, 10]])
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
    options = {"attention_mask": mask, "max_new_tokens": 6, "do_sample": False}
    expected = model.generate(prompt, **options)
    model.set_attn_implementation(before := enable_joined_attention(model))
    enable_joined_attention(model)
    assert before == "sdpa"
    assert torch.equal(model.generate(prompt, **options), expected)


@pytest.mark.parametrize(
    ("length", "heads", "key_heads"), [(2, 4, 4), (64, 4, 1), (65, 4, 2), (130, 6, 3)]
)
def test_attention_has_the_gradients_of_torchs_own(length, heads, key_heads):
    torch.manual_seed(0)

    def made(count: int) -> torch.Tensor:
        return torch.randn(1, length, count, 8).transpose(1, 2).requires_grad_()

    inputs, slope = (
        (made(heads), made(key_heads), made(key_heads)),
        torch.randn(1, heads, length, 8),
    )
    expected = scaled_dot_product_attention(*inputs, is_causal=True, enable_gqa=True, scale=0.3)
    found = causal_attention(*inputs, 0.3)
    torch.testing.assert_close(found, expected)
    slopes = torch.autograd.grad(expected, inputs, slope)
    torch.testing.assert_close(
        torch.autograd.grad(found, inputs, slope), slopes, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma", "mistral", "mixtral"])
def test_long_documents_have_the_gradients_of_plain_rows(tmp_path, monkeypatch, architecture):
    used = []
    monkeypatch.setattr(
        "ft_core.sequences.attention.causal_attention",
        lambda *inputs: used.append(inputs[0].shape[2]) or causal_attention(*inputs),
    )
    directory = tiny_model(tmp_path, architecture)
    plain, joined = (AutoModelForCausalLM.from_pretrained(directory) for _ in range(2))
    enable_joined_attention(joined)
    rows = documents(250, 20, 230)
    losses = [
        -sum(token_logprobs(plain, join([row])).sum() for row in rows),
        -token_logprobs(joined, join(rows)).sum(),
    ]
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-4)
    windowed = architecture in ("mistral", "mixtral")  # their tiny ones see a few tokens back
    assert used.count(250) == used.count(230) and (windowed or used)
    for (name, expected), found in zip(plain.named_parameters(), joined.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-3, atol=1e-4, msg=name)


def test_logits_are_computed_only_where_there_is_loss(tmp_path):
    model = load(tmp_path).eval()
    shapes = []
    model.lm_head.register_forward_hook(lambda _, inputs, __: shapes.append(tuple(inputs[0].shape)))
    rows = documents(9, 11, trained_from=8)
    assert token_logits(model, join(rows)).shape == (4, 384)
    assert shapes == [(1, 4, 32)]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("chunk", [3 * 4 * 50, 1 << 22])
@pytest.mark.parametrize("head", ["plain", "capped", "bounded"])
def test_logprobs_and_gradients_are_those_of_a_log_softmax(monkeypatch, overwrite, chunk, head):
    monkeypatch.setattr("ft_core.sequences.logprobs.CPU_CHUNK_BYTES", chunk)
    hidden = torch.randn(10, 8, dtype=torch.float64, requires_grad=True)
    matrix = torch.randn(50, 8, dtype=torch.float64, requires_grad=True)
    labels, weights = torch.randint(50, (10,)), torch.rand(10)

    def logits() -> torch.Tensor:
        scores = torch.nn.functional.linear(hidden[None], matrix).squeeze(0)
        if head == "capped":  # as Gemma 2's
            return torch.tanh(scores / 3) * 3
        return torch.tanh(scores) if head == "bounded" else scores

    expected = logits().log_softmax(-1).gather(1, labels[:, None])[:, 0]
    slopes = torch.autograd.grad((expected * weights).sum(), (hidden, matrix))
    picked = pick_logprobs(logits(), labels, overwrite=overwrite)
    torch.testing.assert_close(picked, expected)
    found = torch.autograd.grad((picked * weights).sum(), (hidden, matrix))
    torch.testing.assert_close(found, slopes)


def test_overwritten_logits_have_no_second_gradient():
    logits = torch.randn(4, 9, requires_grad=True) * 2
    picked = pick_logprobs(logits, torch.tensor([1, 2, 3, 4]), overwrite=True).sum()
    picked.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="taken the place"):
        picked.backward()


def test_a_model_that_mixes_joined_rows_is_padded():
    torch.manual_seed(0)
    config = Mamba2Config(
        hidden_size=32,
        num_heads=4,
        head_dim=16,
        expand=2,
        n_groups=2,
        state_size=8,
        num_hidden_layers=2,
        vocab_size=384,
        chunk_size=16,
    )
    model = Mamba2ForCausalLM(config).eval()
    assert layout_for(model) is Layout.PADDED


def test_the_probe_leaves_the_random_state_alone(tmp_path):
    model = load(tmp_path, rms_norm_eps=1.7e-6)
    state = torch.random.get_rng_state()
    layout_for(model)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_row_of_several_documents_is_padded_for_a_leaking_model(tmp_path, monkeypatch):
    model = load(tmp_path).eval()
    monkeypatch.setattr("ft_core.sequences.logprobs.layout_for", lambda _: Layout.PADDED)
    shapes = []
    model.model.embed_tokens.register_forward_hook(
        lambda _, i, __: shapes.append(tuple(i[0].shape))
    )
    rows = documents(7, 12)
    batch = join(rows)
    loss = -(token_logprobs(model, batch) * batch["weights"]).sum()
    assert shapes == [(2, 12)]
    torch.testing.assert_close(loss, separate_loss(model, rows), rtol=1e-5, atol=1e-5)
