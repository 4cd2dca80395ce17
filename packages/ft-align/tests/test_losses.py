"""ORPO, SimPO, CPO and KTO as pure functions: values by hand, gradients by differences, what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from ft_align import (
    CPO_LOSS_TYPES,
    KTO_LOSS_TYPES,
    cpo_loss,
    kto_loss,
    orpo_loss,
    simpo_loss,
)
from ft_align.loss_types import LOSS_TYPES
from ft_align.losses.dpo_variants import VARIANTS
from ft_core import UsageError

CHOSEN, REJECTED = (
    torch.tensor(values, dtype=torch.float64) for values in ([-0.5, -2.0], [-1.5, -0.25])
)
LABELS = torch.tensor([True, False, True, False])
POLICY, REFERENCE = (
    torch.tensor(values, dtype=torch.float64)
    for values in ([-10.0, -4.0, -7.0, -9.0], [-11.0, -5.0, -5.0, -7.5])
)


def logistic(margin: float) -> float:
    return math.log1p(math.exp(-margin))


def test_every_name_has_a_loss() -> None:
    assert tuple(VARIANTS) == LOSS_TYPES["dpo"]


def test_orpo_by_hand() -> None:
    def log_odds(logprob: float) -> float:
        return logprob - math.log(1 - math.exp(logprob))

    result = orpo_loss(CHOSEN, REJECTED, beta=0.4)
    for loss, chosen, rejected in zip(
        result.losses.tolist(), CHOSEN.tolist(), REJECTED.tolist(), strict=True
    ):
        assert loss == pytest.approx(0.4 * logistic(log_odds(chosen) - log_odds(rejected)))
    assert result.chosen_rewards.tolist() == pytest.approx([-0.2, -0.8])


def test_orpo_of_a_certain_answer_stays_finite() -> None:
    chosen = torch.tensor([0.0, -1e-9, -900.0], requires_grad=True)
    rejected = torch.tensor([-900.0, 0.0, -1.0], requires_grad=True)
    loss = orpo_loss(chosen, rejected).losses.sum()
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(loss)
    assert all(item.grad is not None and item.grad.isfinite().all() for item in (chosen, rejected))


def test_simpo_by_hand() -> None:
    result = simpo_loss(CHOSEN, REJECTED, beta=2.0, gamma=1.0)
    assert result.losses.tolist() == pytest.approx([logistic(2.0 - 1.0), logistic(-3.5 - 1.0)])
    assert result.rejected_rewards.tolist() == pytest.approx([-3.0, -0.5])
    smoothed = simpo_loss(CHOSEN, REJECTED, label_smoothing=0.25).losses[0].item()
    assert smoothed == pytest.approx(0.75 * logistic(1.0) + 0.25 * logistic(-1.0))


def test_cpo_by_hand() -> None:
    def values(**settings: Any) -> list[float]:
        return list(cpo_loss(CHOSEN, REJECTED, **settings).losses.tolist())

    assert values(beta=0.5) == pytest.approx([logistic(0.5), logistic(-0.875)])
    assert values(beta=0.5, loss_type="hinge") == pytest.approx([0.5, 1.875])
    assert values(beta=0.5, loss_type="ipo") == pytest.approx([0.0, 2.75**2])
    assert values(beta=2.0, loss_type="simpo", gamma=0.5) == pytest.approx(
        [logistic(1.5), logistic(-4.0)]
    )


def test_kto_by_hand() -> None:
    def sigmoid(value: float) -> float:
        return 1 / (1 + math.exp(-value))

    result = kto_loss(
        POLICY,
        REFERENCE,
        LABELS,
        anchor=0.75,
        beta=0.5,
        desirable_weight=1.5,
        undesirable_weight=0.5,
    )
    expected = [
        1.5 * (1 - sigmoid(0.5 * (1.0 - 0.75))),
        0.5 * (1 - sigmoid(0.5 * (0.75 - 1.0))),
        1.5 * (1 - sigmoid(0.5 * (-2.0 - 0.75))),
        0.5 * (1 - sigmoid(0.5 * (0.75 + 1.5))),
    ]
    assert result.losses.tolist() == pytest.approx(expected)
    assert result.rewards.tolist() == pytest.approx([0.5, 0.5, -1.0, -0.75])


def test_a_divergence_below_zero_is_an_error_of_its_estimate() -> None:
    below = kto_loss(POLICY, REFERENCE, LABELS, anchor=-3.0).losses
    assert below.tolist() == kto_loss(POLICY, REFERENCE, LABELS).losses.tolist()


def test_bco_by_hand() -> None:
    result = kto_loss(POLICY, REFERENCE, LABELS, anchor=-0.25, beta=0.5, loss_type="bco")
    expected = [logistic(0.75), logistic(-0.75), logistic(-0.75), logistic(0.5)]
    assert result.losses.tolist() == pytest.approx(expected)


def test_anchored_losses_of_single_answers_add_up_to_those_of_pairs() -> None:
    from ft_align import dpo_loss

    single = kto_loss(POLICY, REFERENCE, LABELS, beta=0.3, loss_type="apo_zero_unpaired").losses
    pairs = dpo_loss(
        POLICY[LABELS],
        POLICY[~LABELS],
        REFERENCE[LABELS],
        REFERENCE[~LABELS],
        beta=0.3,
        loss_type="apo_zero",
    ).losses
    assert (single[LABELS] + single[~LABELS]).tolist() == pytest.approx(pairs.tolist())


@pytest.mark.parametrize(
    "loss",
    [
        lambda a, b: orpo_loss(a, b, beta=0.7).losses,
        lambda a, b: simpo_loss(a, b, gamma=0.3, label_smoothing=0.1).losses,
        *(
            lambda a, b, name=name: cpo_loss(a, b, beta=0.7, loss_type=name).losses
            for name in CPO_LOSS_TYPES
        ),
        *(
            lambda a, b, name=name: (
                kto_loss(
                    a,
                    b,
                    torch.tensor([True, True, False, True, False]),
                    anchor=0.0 if name == "apo_zero_unpaired" else 0.2,
                    beta=0.7,
                    loss_type=name,
                    desirable_weight=1.3,
                ).losses
            )
            for name in KTO_LOSS_TYPES
        ),
    ],
)
def test_gradients_match_finite_differences(
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> None:
    generator = torch.Generator().manual_seed(3)
    given = [-torch.rand(5, generator=generator, dtype=torch.float64) - 0.1 for _ in range(2)]
    assert torch.autograd.gradcheck(loss, tuple(item.requires_grad_() for item in given))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: cpo_loss(CHOSEN, REJECTED, loss_type="robust"), "it is one of dpo"),
        (lambda: cpo_loss(CHOSEN, REJECTED, loss_type="hinge", label_smoothing=0.1), "no meaning"),
        (lambda: orpo_loss(CHOSEN, REJECTED, beta=0.0), "--beta 0.0"),
        (lambda: simpo_loss(CHOSEN, REJECTED[:1]), r"policy_rejected \[1\]"),
        (lambda: kto_loss(POLICY, REFERENCE, LABELS, desirable_weight=-1.0), "desirable_weight -1"),
        (
            lambda: kto_loss(
                POLICY, REFERENCE, LABELS, desirable_weight=0.0, undesirable_weight=0.0
            ),
            "nothing to learn",
        ),
        (
            lambda: kto_loss(POLICY, REFERENCE, LABELS, anchor=1.0, loss_type="apo_zero_unpaired"),
            "leave anchor out",
        ),
        (lambda: kto_loss(POLICY, REFERENCE, LABELS[:2]), r"desirable \[2\]"),
    ],
)
def test_refused_settings(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        call()
