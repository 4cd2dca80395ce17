"""The DPO family as pure functions: values by hand, gradients by differences, what is refused."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
import torch

from ft_align import DPO_LOSS_TYPES, dpo_loss
from ft_core import UsageError

GIVEN = tuple(
    torch.tensor(values, dtype=torch.float64)
    for values in ([-10.0, -4.0], [-12.0, -3.0], [-11.0, -5.0], [-11.5, -4.5])
)


def test_sigmoid_by_hand() -> None:
    result = dpo_loss(*GIVEN, beta=0.5)
    for loss, margin in zip(result.losses.tolist(), (0.5 * 1.5, 0.5 * -0.5), strict=True):
        assert loss == pytest.approx(math.log1p(math.exp(-margin)), abs=1e-12)
    assert result.chosen_rewards.tolist() == pytest.approx([0.5, 0.5])
    assert result.rejected_rewards.tolist() == pytest.approx([-0.25, 0.75])


def test_hinge_by_hand() -> None:
    assert dpo_loss(*GIVEN, beta=2.0, loss_type="hinge").losses.tolist() == pytest.approx(
        [0.0, 2.0]
    )


def test_ipo_by_hand_over_sums_and_over_averages() -> None:
    sums = dpo_loss(*GIVEN, beta=0.5, loss_type="ipo").losses
    assert sums.tolist() == pytest.approx([(1.5 - 1) ** 2, (-0.5 - 1) ** 2])
    averages = dpo_loss(
        *GIVEN,
        beta=0.5,
        loss_type="ipo",
        chosen_tokens=torch.tensor([2, 4]),
        rejected_tokens=torch.tensor([5, 1]),
    ).losses
    assert averages.tolist() == pytest.approx([(1 / 2 + 0.5 / 5 - 1) ** 2, (1 / 4 - 1.5 - 1) ** 2])


def test_equal_models_give_log_two_and_no_reward() -> None:
    same = torch.tensor([-3.0, -700.0])
    result = dpo_loss(same, same, same, same)
    assert result.losses.tolist() == pytest.approx([math.log(2)] * 2)
    assert result.chosen_rewards.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize(
    ("loss_type", "label_smoothing"), [*((name, 0.0) for name in DPO_LOSS_TYPES), ("sigmoid", 0.1)]
)
def test_extreme_margins_stay_finite(loss_type: str, label_smoothing: float, sign: float) -> None:
    far = torch.tensor([sign * 1e5], requires_grad=True)
    zero = torch.zeros(1)
    one = torch.ones(1) if loss_type in ("ipo", "sigmoid_norm") else None
    settings: dict[str, Any] = {"loss_type": loss_type, "label_smoothing": label_smoothing}
    loss = dpo_loss(
        far, zero, zero, zero, beta=1.0, chosen_tokens=one, rejected_tokens=one, **settings
    ).losses.sum()
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(loss) and far.grad is not None and torch.isfinite(far.grad).all()


def test_exo_takes_the_smoothing_its_paper_recommends_where_none_is_given() -> None:
    unsaid = dpo_loss(*GIVEN, loss_type="exo_pair").losses
    assert (
        unsaid.tolist()
        == dpo_loss(*GIVEN, loss_type="exo_pair", label_smoothing=1e-3).losses.tolist()
    )


def test_sorting_losses_compare_distributions_not_pairs() -> None:
    chosen, rejected = torch.tensor([1.0, 5.0]), torch.tensor([4.0, 2.0])
    zero = torch.zeros(2)
    unpaired = dpo_loss(chosen, rejected, zero, zero, beta=1.0, loss_type="aot_unpaired").losses
    expected = [math.log1p(math.exp(1.0)), math.log1p(math.exp(-1.0))]  # gaps 1 - 2 and 5 - 4
    assert unpaired.tolist() == pytest.approx(expected)
    paired = dpo_loss(chosen, rejected, zero, zero, beta=1.0, loss_type="aot").losses
    expected = [
        math.log1p(math.exp(3.0)),
        math.log1p(math.exp(-3.0)),
    ]  # gaps -3 and 3 against 0 and 0
    assert paired.tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("loss_type", "label_smoothing"),
    [
        *((name, 0.0) for name in DPO_LOSS_TYPES),
        *((name, 0.3) for name in ("sigmoid", "robust", "exo_pair", "aot", "aot_unpaired")),
    ],
)
def test_gradients_match_finite_differences(loss_type: str, label_smoothing: float) -> None:
    generator = torch.Generator().manual_seed(3)
    policy = [
        torch.randn(5, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2)
    ]
    reference = [torch.randn(5, generator=generator, dtype=torch.float64) for _ in range(2)]
    lengths = torch.tensor([3, 1, 2, 5, 4]) if loss_type in ("ipo", "sigmoid_norm") else None

    def losses(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
        return dpo_loss(
            chosen,
            rejected,
            *reference,
            beta=0.8,
            loss_type=loss_type,
            label_smoothing=label_smoothing,
            chosen_tokens=lengths,
            rejected_tokens=lengths,
        ).losses

    assert torch.autograd.gradcheck(losses, tuple(policy))


def test_rewards_carry_no_gradient() -> None:
    chosen = GIVEN[0].clone().requires_grad_()
    result = dpo_loss(chosen, *GIVEN[1:])
    assert result.losses.requires_grad
    assert not result.chosen_rewards.requires_grad and not result.rejected_rewards.requires_grad


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"loss_type": "sigmod"}, "Did you mean sigmoid"),
        ({"beta": 0.0}, "beta 0.0"),
        ({"beta": float("nan")}, "beta nan"),
        ({"label_smoothing": 0.5}, "label_smoothing 0.5"),
        ({"label_smoothing": -0.1}, "label_smoothing -0.1"),
        ({"label_smoothing": 0.1, "loss_type": "hinge"}, "no meaning for the loss hinge"),
        ({"loss_type": "simpo"}, "it is one of simpo, cpo"),
        ({"loss_type": "sigmoid_norm"}, "give chosen_tokens and rejected_tokens"),
        ({"chosen_tokens": torch.ones(2), "loss_type": "ipo"}, "give both or neither"),
        (
            {"chosen_tokens": torch.ones(2), "rejected_tokens": torch.ones(2)},
            "no use for chosen_tokens",
        ),
        (
            {
                "chosen_tokens": torch.ones(3),
                "rejected_tokens": torch.ones(3),
                "loss_type": "ipo",
            },
            r"chosen_tokens \[3\]",
        ),
    ],
)
def test_refused_settings(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        dpo_loss(*GIVEN, **settings)


def test_refused_shapes() -> None:
    with pytest.raises(UsageError, match=r"policy_chosen \[2\].*reference_rejected \[2, 1\]"):
        dpo_loss(*GIVEN[:3], GIVEN[3][:, None])


def test_import_is_light() -> None:
    code = "import sys, ft_align; assert 'torch' not in sys.modules; ft_align.dpo_loss"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_attribute() -> None:
    import ft_align

    assert "dpo_loss" in dir(ft_align)
    with pytest.raises(AttributeError, match="no attribute 'ppo_loss'"):
        _ = ft_align.ppo_loss
