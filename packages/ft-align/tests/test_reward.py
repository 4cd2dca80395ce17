"""Reward models: TRL's losses and gradients, transformers' own scores, and no dependence on how a batch is cut."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from ft_align.losses import reward_loss
from ft_align.recipes import RewardRecipe
from ft_align.scores import document_scores
from ft_core.errors import ModelError, UsageError
from ft_core.examples import Example
from ft_core.models.loading import load_model
from ft_core.samples import Sample, Tokens
from ft_core.sequences import Layout, enable_joined_attention, join, layout_for
from ft_core.templates.template import Template
from ft_core.testing import tiny_model

PAD = 0
TEXTS = ([5, 9, 7, 8], [11, 4, 30, PAD, PAD], [12, PAD, 13, 14, 15, 16], [17], [PAD, PAD])


def load(directory: Path) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)  # of the head
        return load_model(directory, dtype=torch.float32, for_training=True, scores=True)


@pytest.fixture(scope="module")
def model(directory: Path) -> Any:
    return load(directory)


@pytest.fixture
def samples(pairs: list[Example], chatml: Template) -> list[Sample]:
    margins = (0.0, 0.5, -0.25, 2.0, 0.0)
    rows = [replace(row, margin=margin) for row, margin in zip(pairs, margins, strict=True)]
    return [item for item in RewardRecipe().encode(rows, chatml) if isinstance(item, Sample)]


def step(recipe: RewardRecipe, model: Any, cut: list[list[Sample]]) -> tuple[float, dict[str, Any]]:
    """Add up the normalised losses of a step's micro-batches, and return their gradients."""
    totals = recipe.count([sample for samples in cut for sample in samples])
    value = 0.0
    for samples in cut:
        term = recipe.loss(model, recipe.collate(samples), None).terms["loss"]
        loss = term.total / totals[term.unit]
        loss.backward()  # type: ignore[no-untyped-call]
        value += loss.item()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    return value, gradients


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma2", "mixtral"])
@pytest.mark.parametrize("filler", [PAD, None])
@pytest.mark.parametrize("padded", [False, True])
def test_scores_are_what_transformers_gives_each_text(
    architecture: str,
    filler: int | None,
    padded: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = load(tiny_model(tmp_path, architecture, pad_token_id=filler)).eval()
    joined = copy.deepcopy(plain)
    assert layout_for(plain) is not Layout.PADDED
    enable_joined_attention(joined)
    if padded:
        monkeypatch.setattr("ft_align.scores.layout_for", lambda _: Layout.PADDED)
    batch = join([Tokens(ids, [0.0] * len(ids)) for ids in TEXTS])
    with torch.no_grad():
        if padded and filler is None:
            with pytest.raises(ModelError, match="pad_token_id"):
                document_scores(joined, batch)
            return
        expected = torch.cat([plain(input_ids=torch.tensor([ids])).logits[0] for ids in TEXTS])
        torch.testing.assert_close(document_scores(joined, batch), expected, rtol=1e-4, atol=1e-5)


def test_how_a_batch_is_cut_changes_nothing(model: Any, samples: list[Sample]) -> None:
    recipe = RewardRecipe(center=0.1)
    samples[1] = replace(samples[1], values={**samples[1].values, "weight": 2.0})
    whole, gradients = step(recipe, model, [samples])
    for cut in ([[item] for item in samples], [samples[3:], samples[:3]]):
        value, other = step(recipe, model, cut)
        assert value == pytest.approx(whole, rel=1e-5)
        for name, gradient in gradients.items():
            torch.testing.assert_close(other[name], gradient, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("center", [None, 0.05])
def test_losses_and_gradients_are_those_of_trl(
    directory: Path, samples: list[Sample], tmp_path: Path, center: float | None
) -> None:
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    transformers = pytest.importorskip("transformers")
    rows = [
        {
            "chosen_ids": list(item.sequences[0].input_ids),
            "rejected_ids": list(item.sequences[1].input_ids),
            "margin": item.values["margin"],
        }
        for item in samples
    ]
    trainer = trl.RewardTrainer(
        model=load(directory),
        args=trl.RewardConfig(
            output_dir=str(tmp_path),
            per_device_train_batch_size=len(rows),
            center_rewards_coefficient=center,
            report_to="none",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            dataloader_pin_memory=False,
            disable_dropout=False,
        ),
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=transformers.AutoTokenizer.from_pretrained(directory),
    )
    theirs = trainer.model.train()
    loss = trainer.compute_loss(theirs, dict(next(iter(trainer.get_train_dataloader()))))
    loss.backward()
    value, gradients = step(RewardRecipe(center=center or 0.0), load(directory), [samples])
    assert value == pytest.approx(loss.item(), abs=1e-5)
    expected = dict(theirs.named_parameters())
    assert expected.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name].grad, rtol=1e-4, atol=1e-5, msg=name)


def test_gradients_agree_with_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = [
        torch.randn(4, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2)
    ]
    margins = torch.tensor([0.0, 1.0, -1.0, 0.3], dtype=torch.float64)

    def losses(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
        return reward_loss(chosen, rejected, margins=margins, center=0.2).losses

    assert torch.autograd.gradcheck(losses, inputs)
    with pytest.raises(UsageError, match="--center_rewards_coefficient -1"):
        reward_loss(*inputs, center=-1)


def test_a_saved_reward_model_is_not_taken_for_one_that_writes(model: Any, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    ids = torch.tensor([[5, 6, 7]])
    assert again.config.num_labels == 1
    torch.testing.assert_close(again(input_ids=ids).logits, model.eval()(input_ids=ids).logits)
    with pytest.raises(ModelError, match="is a reward model"):
        load_model(tmp_path, dtype=torch.float32)
    kept = load_model(tmp_path, dtype=torch.float32, scores=True)
    assert torch.equal(kept.score.weight, model.score.weight)
