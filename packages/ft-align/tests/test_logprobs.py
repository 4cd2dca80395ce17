"""Log-probabilities of pairs: joined, with shared prompts and padded they equal separate forwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Mamba2Config, Mamba2ForCausalLM

from ft_align.logprobs import answer_logprobs, collate_answers
from ft_align.shared_prompts import enable_shared_prompts, share_prompts, shares_prompts
from ft_core.samples import Sample, Tokens
from ft_core.sequences import enable_joined_attention, layout_for
from ft_core.sequences.isolation import Layout
from ft_core.testing import tiny_model


def pair(
    prompt: int, chosen: int, rejected: int, seed: int, learned_prompt: bool = False
) -> Sample:
    generator = torch.Generator().manual_seed(seed)

    def ids(length: int) -> list[int]:
        return torch.randint(3, 384, (length,), generator=generator).tolist()

    head = ids(prompt)
    before = [1.0 if learned_prompt else 0.0] * prompt
    sequences = (
        Tokens([*head, *ids(chosen)], [*before, *([2.0] * chosen)]),
        Tokens([*head, *ids(rejected)], [*([0.0] * prompt), *([1.0] * rejected)]),
    )
    return Sample(sequences, values={"prompt": prompt, "weight": 1.0})


SAMPLES = [pair(7, 30, 4, 0), pair(1, 2, 9, 1), pair(25, 3, 3, 2)]


def load(directory: Path, architecture: str = "llama", **config: Any) -> Any:
    tiny_model(directory, architecture, **config)
    return AutoModelForCausalLM.from_pretrained(directory, attn_implementation="sdpa").eval()


def separately(model: Any, samples: list[Sample]) -> torch.Tensor:
    """Sums over answers from one forward each, with logits everywhere."""
    sums = []
    for sample in samples:
        for tokens in sample.sequences:
            ids = torch.tensor([tokens.input_ids])
            logprobs = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
            picked = logprobs.gather(-1, ids[0, 1:, None])[:, 0]
            sums.append(picked[int(sample.values["prompt"]) - 1 :].sum())
    return torch.stack(sums)


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    loss.backward()  # type: ignore[no-untyped-call]
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("way", ["joined", "shared"])
@pytest.mark.parametrize(
    ("architecture", "config"),
    [
        ("llama", {}),
        ("qwen3", {}),
        ("gemma2", {}),
        ("mistral", {"sliding_window": 6}),
        ("qwen3_moe", {}),
    ],
)
def test_pairs_equal_separate_forwards(
    tmp_path: Path, architecture: str, config: dict[str, Any], way: str
) -> None:
    model = load(tmp_path, architecture, **config)
    expected = separately(model, SAMPLES)
    signs = torch.tensor([1.0, -2.0, 0.5, 1.0, -1.0, 3.0])
    expected_gradients = gradients(model, (expected * signs).sum())
    if way == "shared":
        assert enable_shared_prompts(model) and shares_prompts(model)
    else:
        enable_joined_attention(model)
    found = answer_logprobs(model, collate_answers(SAMPLES))
    torch.testing.assert_close(found.sums, expected, rtol=1e-5, atol=1e-4)
    assert found.tokens.tolist() == [30, 4, 2, 9, 3, 3]
    found_gradients = gradients(model, (found.sums * signs).sum())
    assert found_gradients.keys() == expected_gradients.keys()
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(found_gradients[name], gradient, rtol=1e-3, atol=1e-3, msg=name)


def test_a_shared_prompt_is_computed_once(tmp_path: Path) -> None:
    batch = share_prompts(collate_answers(SAMPLES))
    assert batch["input_ids"].shape[1] == (7 + 30 + 4) + (1 + 2 + 9) + (25 + 3 + 3)
    assert batch["attention"]["branches"][:3] == ((0, 37, 0, 0), (37, 41, 0, 7), (41, 44, 41, 0))
    model = load(tmp_path)
    seen = []
    model.model.embed_tokens.register_forward_hook(lambda *args: seen.append(args[1][0].shape[1]))
    enable_shared_prompts(model)
    answer_logprobs(model, collate_answers(SAMPLES))
    assert seen == [84]


def test_a_model_with_shared_prompts_still_serves_other_rows(tmp_path: Path) -> None:
    model = load(tmp_path)
    expected = separately(model, SAMPLES)
    enable_shared_prompts(model)
    assert layout_for(model) is Layout.JOINED  # what trains it leaves it alone
    assert enable_joined_attention(model) == "ft_joined_prompts"
    torch.testing.assert_close(separately(model, SAMPLES), expected, rtol=1e-5, atol=1e-4)
    asked = model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=3, do_sample=False)
    assert asked.shape == (1, 6)


def test_models_that_mix_documents_are_padded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = Mamba2Config(
        vocab_size=384, hidden_size=32, num_heads=8, head_dim=8, n_groups=2, state_size=8,
        num_hidden_layers=2, chunk_size=8,
    )  # fmt: skip
    model = Mamba2ForCausalLM(config).eval()
    assert not enable_shared_prompts(model)
    found = answer_logprobs(model, collate_answers(SAMPLES)).sums
    torch.testing.assert_close(found, separately(model, SAMPLES), rtol=1e-4, atol=1e-3)


def test_eager_attention_keeps_its_prompts_apart(tmp_path: Path) -> None:
    tiny_model(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    assert not enable_shared_prompts(model)
    found = answer_logprobs(model, collate_answers(SAMPLES)).sums
    torch.testing.assert_close(found, separately(model, SAMPLES), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("shared", [False, True])
def test_a_learned_prompt_counts_in_the_likelihood_alone(tmp_path: Path, shared: bool) -> None:
    model = load(tmp_path)
    samples = [pair(7, 5, 4, 0, learned_prompt=True), SAMPLES[1]]
    expected = separately(model, samples)
    ids = torch.tensor([samples[0].sequences[0].input_ids])
    tokens = model(input_ids=ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
    weights = torch.tensor([1.0] * 6 + [2.0] * 5)
    if shared:
        enable_shared_prompts(model)
    found = answer_logprobs(model, collate_answers(samples))
    torch.testing.assert_close(found.sums, expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(found.nll[0], -(tokens * weights).sum(), rtol=1e-5, atol=1e-4)
    assert found.averages[0].item() == pytest.approx(expected[0].item() / 5, rel=1e-5)


def test_logits_in_chunks_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(tmp_path)
    whole = answer_logprobs(model, collate_answers(SAMPLES)).sums
    expected = gradients(model, whole.sum())
    monkeypatch.setattr("ft_core.sequences.logprobs.CPU_CHUNK_BYTES", 4 * 384 * 5)
    chunked = answer_logprobs(model, collate_answers(SAMPLES)).sums
    torch.testing.assert_close(chunked, whole, rtol=1e-6, atol=1e-5)
    for name, gradient in gradients(model, chunked.sum()).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-4)
