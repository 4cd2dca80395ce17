"""Direct preference optimisation and the losses that share its inputs.

All of them look at the log-ratio ``log pi(y|x) - log pi_ref(y|x)`` of the chosen and the rejected
answer: how much more likely training has made each one.
"""

from __future__ import annotations

import torch

from ft_align.loss_types import LOSS_TYPES, check_beta, check_loss_type, check_smoothing
from ft_align.losses.dpo_variants import VARIANTS, LogRatios
from ft_align.losses.preference import PreferenceLoss, check_shapes
from ft_core.errors import UsageError

DPO_LOSS_TYPES: tuple[str, ...] = LOSS_TYPES["dpo"]
"""The values of ``loss_type`` that ``dpo_loss`` takes."""

AVERAGED = frozenset({"ipo", "sigmoid_norm"})
"""The losses that compare averages per token."""


def dpo_loss(
    policy_chosen: torch.Tensor,
    policy_rejected: torch.Tensor,
    reference_chosen: torch.Tensor,
    reference_rejected: torch.Tensor,
    *,
    beta: float = 0.1,
    loss_type: str = "sigmoid",
    label_smoothing: float = 0.0,
    chosen_tokens: torch.Tensor | None = None,
    rejected_tokens: torch.Tensor | None = None,
) -> PreferenceLoss:
    """Compute a loss of the DPO family for a batch of preference pairs.

    The four log-probabilities have shape (B,): sums over the tokens of an answer, in nats. Give them in
    float32 or wider; in bf16 a sum of a few hundred tokens is only known to about one nat.

    Args:
        policy_chosen: log-probability of the chosen answer under the model that is trained.
        policy_rejected: the same of the rejected answer.
        reference_chosen: log-probability of the chosen answer under the frozen reference.
        reference_rejected: the same of the rejected answer.
        beta: how strongly the model is kept near the reference; ``ipo`` calls it tau.
        loss_type: one of ``DPO_LOSS_TYPES``, whose papers ``dpo_variants`` names. ``aot`` and
            ``aot_unpaired`` sort the batch they are given, so they depend on how it is cut.
        label_smoothing: probability in [0, 0.5) that a preference is the wrong way round; for
            ``sigmoid``, ``robust``, ``exo_pair``, ``aot`` and ``aot_unpaired``.
        chosen_tokens: number of tokens of each chosen answer, shape (B,). With it and
            ``rejected_tokens`` the ``ipo`` loss compares averages per token, which keeps its scale the
            same for answers of any length; without them it compares sums, as the paper writes it.
            ``sigmoid_norm`` always compares averages, so it needs them.
        rejected_tokens: number of tokens of each rejected answer, shape (B,).

    Returns:
        The loss of each pair, and the rewards ``beta * (policy - reference)`` of both answers.

    Raises:
        UsageError: ``loss_type`` is unknown, a setting is out of its range or has no meaning for this
            loss, or the shapes differ.
    """
    check_loss_type("dpo", loss_type)
    check_beta(beta)
    check_smoothing("dpo", loss_type, label_smoothing)
    _check_counts(loss_type, chosen_tokens, rejected_tokens)
    check_shapes(
        {
            "policy_chosen": policy_chosen,
            "policy_rejected": policy_rejected,
            "reference_chosen": reference_chosen,
            "reference_rejected": reference_rejected,
            "chosen_tokens": chosen_tokens,
            "rejected_tokens": rejected_tokens,
        }
    )
    ratios = LogRatios(
        chosen=policy_chosen - reference_chosen,
        rejected=policy_rejected - reference_rejected,
        policy=policy_chosen - policy_rejected,
        reference=reference_chosen - reference_rejected,
        chosen_tokens=chosen_tokens,
        rejected_tokens=rejected_tokens,
        beta=beta,
        label_smoothing=label_smoothing,
    )
    return PreferenceLoss(
        losses=VARIANTS[loss_type](ratios),
        chosen_rewards=beta * ratios.chosen.detach(),
        rejected_rewards=beta * ratios.rejected.detach(),
    )


def _check_counts(
    loss_type: str, chosen_tokens: torch.Tensor | None, rejected_tokens: torch.Tensor | None
) -> None:
    if (chosen_tokens is None) != (rejected_tokens is None):
        raise UsageError("chosen_tokens and rejected_tokens belong together; give both or neither")
    if chosen_tokens is not None and loss_type not in AVERAGED:
        raise UsageError(
            f"loss_type {loss_type} compares whole answers and has no use for chosen_tokens and "
            f"rejected_tokens; leave them out or use loss_type {', '.join(sorted(AVERAGED))}"
        )
    if chosen_tokens is None and loss_type == "sigmoid_norm":
        raise UsageError(
            "loss_type sigmoid_norm compares averages per token; give chosen_tokens and rejected_tokens"
        )
