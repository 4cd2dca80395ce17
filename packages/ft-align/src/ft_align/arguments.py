"""Flags of alignment: which method learns from preferences or labels, and what it compares with."""

from __future__ import annotations

from collections.abc import Set
from typing import ClassVar

from ft_align.loss_types import (
    BATCH_DEPENDENT,
    LOSS_TYPES,
    ONLINE,
    OWN_BETA,
    REFERENCE_FREE,
    Method,
    check_beta,
    check_loss_type,
    check_smoothing,
    check_weights,
)
from ft_core.command.group import ArgumentGroup, flag
from ft_core.errors import UsageError

MARGINS = frozenset({("simpo", "simpo"), ("cpo", "simpo")})
"""Methods with the losses that aim at ``simpo_gamma``."""


class AlignArguments(ArgumentGroup):
    """How a model learns from preferences or labelled answers."""

    title: ClassVar[str] = "alignment"

    rlhf_type: Method = "dpo"
    """Method. dpo, orpo, simpo and cpo learn from pairs of a chosen and a rejected answer, kto from labelled answers; rm makes a reward model of pairs, which gives scores and no text; grpo and rloo learn from rewards of answers that the model makes to prompts, gkd from a teacher model."""

    ref_model_type: str | None = None
    """Registered model that dpo and kto compare with; none compares with the model as it is before training."""

    ref_model_id_or_path: str | None = None
    """Hub id or directory of that model."""

    precompute_ref_logps: bool = False
    """Compute what is compared with once, before training, and keep it for later runs on the same rows."""

    max_prompt_length: int = flag(1024, ge=-1)
    """Longest prompt in tokens; of longer ones the end is kept, and the special tokens at the head. -1 sets no limit."""

    beta: float | None = None
    """How strongly the model is kept near what it is compared with, or the scale of rewards; none takes 2.0 for simpo, 0 for grpo, 0.05 for rloo, 0.5 for gkd and 0.1 elsewhere. gkd: from 0 (the teacher's divergence from the model) to 1 (the reverse)."""

    label_smoothing: float = 0.0
    """Share of preferences taken to be the wrong way round, from 0 to below 0.5."""

    loss_type: str = "sigmoid"
    """Loss of the method. dpo: sigmoid, hinge, ipo, robust, bco_pair, sppo_hard, nca_pair, exo_pair, aot, aot_unpaired, apo_zero, apo_down, discopop, sigmoid_norm; cpo: sigmoid, hinge, ipo, simpo; kto: kto, bco, apo_zero_unpaired; grpo: dapo, grpo, dr_grpo, bnpo. Not given, it is the method's own."""

    sft_beta: float = flag(0.1, ge=0, lt=1)
    """dpo: share b of the likelihood of chosen answers, (1 - b) * loss + b * nll."""

    simpo_gamma: float = 1.0
    """simpo: margin of rewards that is aimed at; the paper recommends 0.5 to 1.5."""

    cpo_alpha: float = flag(1.0, ge=0)
    """cpo and simpo: weight of the likelihood of chosen answers."""

    desirable_weight: float = 1.0
    """kto: weight of desirable answers."""

    undesirable_weight: float = 1.0
    """kto: weight of undesirable answers; the paper recommends that one side weighs 1 to 4/3 of the other in all."""

    center_rewards_coefficient: float = flag(0.0, ge=0)
    """rm: weight of the squared sum of a pair's rewards, which keeps their mean near 0; 0.01 is usual."""

    def check(self, given: frozenset[str]) -> None:
        """Refuse losses of other methods and numbers out of range."""
        loss = self.loss(given)
        check_loss_type(self.rlhf_type, loss)
        if self.rlhf_type not in ONLINE or self.strength:
            check_beta(self.strength)
        if self.rlhf_type == "gkd" and self.strength > 1:
            raise UsageError(f"--beta {self.strength}: gkd takes a number from 0 to 1")
        check_smoothing(self.rlhf_type, loss, self.label_smoothing)
        if self.rlhf_type == "kto":
            check_weights(self.desirable_weight, self.undesirable_weight)
        if self.precompute_ref_logps and loss == "kto":
            raise UsageError(
                "--precompute_ref_logps true: the loss kto asks the reference about other answers in every step, so "
                "it can't be left out; leave the flag out, or use --loss_type bco or apo_zero_unpaired"
            )

    def loss(self, given: Set[str]) -> str:
        """Return the loss: the one a person set, or the method's own."""
        return self.loss_type if "loss_type" in given else LOSS_TYPES[self.rlhf_type][0]

    @property
    def strength(self) -> float:
        """``beta``, or the method's own value of it."""
        return OWN_BETA.get(self.rlhf_type, 0.1) if self.beta is None else self.beta

    @property
    def refers(self) -> bool:
        """Whether the method compares with a reference."""
        return self.rlhf_type not in REFERENCE_FREE | ONLINE

    @property
    def names_reference(self) -> bool:
        """Whether a model of its own is the reference."""
        return self.ref_model_type is not None or self.ref_model_id_or_path is not None

    def notes(self, given: Set[str]) -> list[str]:
        """Return a sentence for each flag that a person set and that does nothing, and what else to know."""
        method, loss = self.rlhf_type, self.loss(given)
        needs = {
            "acc_strategy": (False, "ft sft or ft pt"),
            "sft_beta": (method == "dpo", "--rlhf_type dpo"),
            "simpo_gamma": ((method, loss) in MARGINS, "the loss simpo"),
            "cpo_alpha": (method in ("cpo", "simpo"), "--rlhf_type cpo or simpo"),
            **dict.fromkeys(
                ("desirable_weight", "undesirable_weight"), (method == "kto", "--rlhf_type kto")
            ),
            **dict.fromkeys(
                ("ref_model_type", "ref_model_id_or_path", "precompute_ref_logps"),
                (self.refers, "a method that compares with a reference, --rlhf_type dpo or kto"),
            ),
            "beta": (method != "rm", "a method with a scale of rewards"),
            "center_rewards_coefficient": (method == "rm", "--rlhf_type rm"),
        }
        found = [
            f"--{name} has no effect without {words}"
            for name, (holds, words) in needs.items()
            if name in given and not holds
        ]
        if loss in BATCH_DEPENDENT:
            found.append(
                f"--loss_type {loss} sorts the answers of a forward pass, so it depends on --batch_size: "
                "with 1 there is nothing to sort"
            )
        return found
