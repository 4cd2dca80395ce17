"""Recipes give the losses, gradients and rewards of TRL's trainers for the same models and tokens."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from ft_align.encoding import AnswerEncoder
from ft_align.recipes import Cpo, Dpo, LabelledRecipe, Orpo, PairRecipe
from ft_align.reference import Frozen
from ft_align.shared_prompts import enable_shared_prompts
from ft_core.recipe import LossOutput, Recipe, StepRecipe
from ft_core.samples import Sample, Tokens
from ft_core.testing import tiny_model

trl = pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")
transformers = pytest.importorskip("transformers")

ROWS = [
    {"prompt": "What is the capital of France?", "chosen": " Paris", "rejected": " I am a small model."},
    {"prompt": "Who are you?", "chosen": " I am a small model.", "rejected": " the sea"},
    {"prompt": "Write a short poem", "chosen": " The quick brown fox", "rejected": " 1, 2, 3, 4, 5"},
    {"prompt": "hello", "chosen": " hello world", "rejected": " def add(a, b)"},
]  # fmt: skip

LABELLED = [
    {"prompt": row["prompt"], "completion": row["chosen" if good else "rejected"], "label": good}
    for row, good in zip(ROWS, (True, False, True, False), strict=True)
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Any]:
    """A policy and a reference with other weights, and their tokenizer."""
    path: Path = tiny_model(tmp_path_factory.mktemp("policy"), seed=1)
    other: Path = tiny_model(tmp_path_factory.mktemp("reference"), seed=2)
    load = transformers.AutoModelForCausalLM.from_pretrained
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    return load(path), load(other), tokenizer


def settings(output: Path) -> dict[str, Any]:
    return {
        "output_dir": str(output),
        "per_device_train_batch_size": len(ROWS),
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "dataloader_pin_memory": False,
    }


@contextmanager
def experimental() -> Iterator[None]:
    """TRL warns that these trainers may change; what they compute today is what counts here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def only_batch(trainer: Any) -> dict[str, Any]:
    trainer.model.train()
    return dict(next(iter(trainer.get_train_dataloader())))


@pytest.fixture(scope="module")
def dpo(models: tuple[Any, Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    policy, reference, tokenizer = models
    return trl.DPOTrainer(
        model=copy.deepcopy(policy),
        ref_model=copy.deepcopy(reference),
        args=trl.DPOConfig(**settings(tmp_path_factory.mktemp("dpo"))),
        train_dataset=datasets.Dataset.from_list(ROWS),
        processing_class=tokenizer,
    )


@pytest.fixture(scope="module")
def orpo(models: tuple[Any, Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    with experimental():
        from trl.experimental.orpo import ORPOConfig, ORPOTrainer

        return ORPOTrainer(
            model=copy.deepcopy(models[0]),
            args=ORPOConfig(
                **settings(tmp_path_factory.mktemp("orpo")), remove_unused_columns=False
            ),
            train_dataset=datasets.Dataset.from_list(ROWS),
            processing_class=models[2],
        )


@pytest.fixture(scope="module")
def cpo(models: tuple[Any, Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    with experimental():
        from trl.experimental.cpo import CPOConfig, CPOTrainer

        return CPOTrainer(
            model=copy.deepcopy(models[0]),
            args=CPOConfig(**settings(tmp_path_factory.mktemp("cpo")), remove_unused_columns=False),
            train_dataset=datasets.Dataset.from_list(ROWS),
            processing_class=models[2],
        )


@pytest.fixture(scope="module")
def kto(models: tuple[Any, Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    policy, reference, tokenizer = models
    return trl.KTOTrainer(
        model=copy.deepcopy(policy),
        ref_model=copy.deepcopy(reference),
        args=trl.KTOConfig(
            **settings(tmp_path_factory.mktemp("kto")), train_sampling_strategy="sequential"
        ),
        train_dataset=datasets.Dataset.from_list(LABELLED),
        processing_class=tokenizer,
    )


def tokens_of(ids: torch.Tensor, answer: torch.Tensor, mask: torch.Tensor) -> tuple[Tokens, int]:
    """Return one row of TRL's batch without its padding, and the length of its prompt."""
    inside = mask.bool()
    learned = answer[inside].bool().tolist()
    return Tokens(ids[inside].tolist(), [float(item) for item in learned]), learned.index(True)


def pairs_of(
    chosen: Sequence[torch.Tensor], rejected: Sequence[torch.Tensor], *, whole: bool = False
) -> list[Sample]:
    """Return TRL's rows as pairs; ``whole`` has the prompts of chosen answers learned too."""
    samples = []
    for first, second in zip(zip(*chosen, strict=True), zip(*rejected, strict=True), strict=True):
        (good, prompt), (bad, other) = tokens_of(*first), tokens_of(*second)
        assert prompt == other and good.input_ids[:prompt] == bad.input_ids[:prompt]
        if whole:
            good = Tokens(good.input_ids, [1.0] * len(good))
        samples.append(
            Sample((good, bad), len(samples), {"prompt": float(prompt), "weight": 1.0, "cut": 0.0})
        )
    return samples


def stable_pairs(batch: dict[str, torch.Tensor]) -> list[Sample]:
    parts = [batch[name].chunk(2) for name in ("input_ids", "completion_mask", "attention_mask")]
    return pairs_of([part[0] for part in parts], [part[1] for part in parts])


def older_pairs(batch: dict[str, torch.Tensor], *, whole: bool = False) -> list[Sample]:
    def parts(kind: str) -> list[torch.Tensor]:
        return [
            batch[f"{kind}_input_ids"],
            batch[f"{kind}_labels"] != -100,
            batch[f"{kind}_attention_mask"],
        ]

    return pairs_of(parts("chosen"), parts("rejected"), whole=whole)


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def ours(
    recipe: Recipe, model: Any, samples: list[Sample], reference: Any = None
) -> tuple[float, dict[str, torch.Tensor], LossOutput]:
    """Return value and gradients of a step of one micro-batch, with prompts computed once."""
    model = copy.deepcopy(model)
    assert enable_shared_prompts(model)
    frozen = None if reference is None else Frozen(copy.deepcopy(reference))
    batch = recipe.collate(samples)
    if isinstance(recipe, StepRecipe):
        batch |= recipe.prepare(model, [samples], frozen)[0]
    output = recipe.loss(model, batch, frozen)
    totals = recipe.count(samples)
    parts = [term.total / totals[term.unit] for term in output.terms.values()]
    loss = torch.stack(parts).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item(), gradients(model), output


def compare(
    trainer: Any,
    theirs: Callable[[], torch.Tensor],
    recipe: Recipe,
    samples: list[Sample],
    models: tuple[Any, Any, Any],
) -> LossOutput:
    expected = theirs()
    expected.backward()  # type: ignore[no-untyped-call]
    expected_gradients = gradients(trainer.model)
    assert any(gradient.abs().max() > 1e-4 for gradient in expected_gradients.values())
    value, found, output = ours(recipe, models[0], samples, models[1])
    assert value == pytest.approx(expected.item(), abs=1e-5, rel=1e-5)
    assert found.keys() == expected_gradients.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected_gradients.values())
    for name, gradient in expected_gradients.items():
        # Rounding of sums in another order, which depends on the processor.
        close = {"atol": 3e-5 * max(largest, 1.0), "rtol": 1e-5}
        torch.testing.assert_close(found[name], gradient, **close)
    return output


def mean(output: LossOutput, name: str) -> float:
    total, count = output.metrics[name]
    return total / count


@pytest.mark.parametrize("beta", [0.1, 1.3])
@pytest.mark.parametrize(
    ("loss_type", "smoothing"),
    [
        *((name, 0.0) for name in ("sigmoid", "hinge", "ipo", "bco_pair", "sppo_hard")),
        *((name, 0.0) for name in ("nca_pair", "apo_zero", "apo_down", "discopop")),
        *((name, 0.0) for name in ("aot", "aot_unpaired", "sigmoid_norm", "robust")),
        *((name, 0.2) for name in ("robust", "exo_pair", "aot", "aot_unpaired")),
    ],
)
def test_dpo(
    dpo: Any, models: tuple[Any, Any, Any], loss_type: str, smoothing: float, beta: float
) -> None:
    dpo.loss_types, dpo.loss_weights = [loss_type], [1.0]
    dpo.beta, dpo.label_smoothing = beta, smoothing
    dpo._metrics["train"].clear()
    batch = only_batch(dpo)
    output = compare(
        dpo,
        lambda: dpo.compute_loss(dpo.model, dict(batch)),
        PairRecipe(objective=Dpo(beta, loss_type, smoothing)),
        stable_pairs(batch),
        models,
    )
    for name in ("chosen", "rejected", "margins", "accuracies"):
        (expected,) = dpo._metrics["train"][f"rewards/{name}"]
        assert mean(output, f"rewards/{name}") == pytest.approx(expected, abs=1e-5)


def test_dpo_with_a_share_of_likelihood(dpo: Any, models: tuple[Any, Any, Any]) -> None:
    dpo.loss_types, dpo.loss_weights = ["sigmoid", "sft"], [0.7, 0.3]
    dpo.beta, dpo.label_smoothing = 0.5, 0.0
    batch = only_batch(dpo)
    compare(
        dpo,
        lambda: dpo.compute_loss(dpo.model, dict(batch)),
        PairRecipe(objective=Dpo(0.5), share=0.7, likelihood=0.3),
        stable_pairs(batch),
        models,
    )


@pytest.mark.parametrize("beta", [0.1, 1.3])
def test_orpo(orpo: Any, models: tuple[Any, Any, Any], beta: float) -> None:
    orpo.beta = beta
    batch = only_batch(orpo)
    found: dict[str, float] = {}

    def theirs() -> torch.Tensor:
        loss, metrics = orpo.get_batch_loss_metrics(orpo.model, batch, train_eval="train")
        found.update(metrics)
        return loss

    # TRL has ORPO learn the prompt too, as --loss_scale all does here.
    samples = older_pairs(batch, whole=True)
    output = compare(
        orpo, theirs, PairRecipe(objective=Orpo(beta), likelihood=1.0), samples, models
    )
    for name in ("rewards/chosen", "rewards/margins", "nll_loss"):
        assert mean(output, name) == pytest.approx(found[name], abs=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize(
    ("loss_type", "smoothing"),
    [
        *((name, 0.0) for name in ("sigmoid", "hinge", "ipo", "simpo")),
        *((name, 0.2) for name in ("sigmoid", "simpo")),
    ],
)
def test_cpo_and_simpo(
    cpo: Any, models: tuple[Any, Any, Any], loss_type: str, smoothing: float, alpha: float
) -> None:
    cpo.loss_type, cpo.beta, cpo.label_smoothing = loss_type, 0.9, smoothing
    cpo.cpo_alpha, cpo.simpo_gamma = alpha, 0.7
    batch = only_batch(cpo)
    found: dict[str, float] = {}

    def theirs() -> torch.Tensor:
        loss, metrics = cpo.get_batch_loss_metrics(cpo.model, batch, train_eval="train")
        found.update(metrics)
        return loss

    recipe = PairRecipe(objective=Cpo(0.9, loss_type, smoothing, 0.7), likelihood=alpha)
    output = compare(cpo, theirs, recipe, older_pairs(batch), models)
    for name in ("rewards/chosen", "rewards/rejected", "logps/chosen" if loss_type in ("sigmoid", "hinge") else "rewards/margins"):  # fmt: skip
        assert mean(output, name) == pytest.approx(found[name], abs=1e-4)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.5, 0.5)])
@pytest.mark.parametrize("loss_type", ["kto", "apo_zero_unpaired"])
def test_kto(
    kto: Any, models: tuple[Any, Any, Any], loss_type: str, weights: tuple[float, float]
) -> None:
    kto.loss_type, kto.calculate_KL, kto.beta = loss_type, loss_type == "kto", 0.4
    kto.desirable_weight, kto.undesirable_weight = weights
    kto._metrics["train"].clear()
    batch = only_batch(kto)
    samples = []
    for row in range(len(LABELLED)):
        parts = (batch[n][row] for n in ("input_ids", "completion_mask", "attention_mask"))
        tokens, prompt = tokens_of(*parts)
        label = float(batch["label"][row])
        values = {"prompt": float(prompt), "weight": 1.0, "cut": 0.0, "label": label}
        samples.append(Sample((tokens,), row, values))
    recipe = LabelledRecipe(
        AnswerEncoder(),
        beta=0.4,
        loss_type=loss_type,
        desirable_weight=weights[0],
        undesirable_weight=weights[1],
    )
    output = compare(kto, lambda: kto.compute_loss(kto.model, dict(batch)), recipe, samples, models)
    assert (
        mean(output, "rewards/chosen")
        == pytest.approx(kto._metrics["train"]["rewards/chosen"][0], abs=1e-5)
        or "rewards/chosen" not in kto._metrics["train"]
    )
    if loss_type == "kto":
        (expected,) = kto._metrics["train"]["kl"]
        assert expected > 0.01  # or clamping would hide a difference
        assert mean(output, "kl") == pytest.approx(expected, abs=1e-4)
