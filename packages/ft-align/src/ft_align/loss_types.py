"""The losses by name and method, known without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from ft_core.errors import UsageError, suggest

Method = Literal["dpo", "orpo", "simpo", "kto", "cpo", "rm", "grpo", "rloo", "gkd"]
"""The preference methods, as ``--rlhf_type`` takes them."""

LOSS_TYPES: Mapping[Method, tuple[str, ...]] = {
    "dpo": (
        "sigmoid",
        "hinge",
        "ipo",
        "robust",
        "bco_pair",
        "sppo_hard",
        "nca_pair",
        "exo_pair",
        "aot",
        "aot_unpaired",
        "apo_zero",
        "apo_down",
        "discopop",
        "sigmoid_norm",
    ),
    "orpo": ("orpo",),
    "simpo": ("simpo",),
    "kto": ("kto", "bco", "apo_zero_unpaired"),
    "cpo": ("sigmoid", "hinge", "ipo", "simpo"),
    "rm": ("bradley_terry",),
    "grpo": ("dapo", "grpo", "dr_grpo", "bnpo"),
    "rloo": ("rloo",),
    "gkd": ("jsd",),
}
"""The losses of each method; the first is its own, used where none is given."""

SMOOTHED: Mapping[Method, frozenset[str]] = {
    "dpo": frozenset({"sigmoid", "robust", "exo_pair", "aot", "aot_unpaired"}),
    "cpo": frozenset({"sigmoid", "simpo"}),
    "simpo": frozenset({"simpo"}),
}
"""The losses that ``label_smoothing`` means something to."""

BATCH_DEPENDENT = frozenset({"aot", "aot_unpaired"})
"""The losses that sort the answers of a micro-batch, and so depend on how a batch is cut into them."""


REFERENCE_FREE: frozenset[Method] = frozenset({"orpo", "simpo", "cpo", "rm"})
"""The methods that compare with nothing but the other answer."""

ONLINE: frozenset[Method] = frozenset({"grpo", "rloo", "gkd"})
"""The methods that learn from answers the model makes while it is trained."""

OWN_BETA: Mapping[Method, float] = {"simpo": 2.0, "grpo": 0.0, "rloo": 0.05, "gkd": 0.5}
"""``beta`` of the methods that don't take 0.1; those of the online ones are TRL's."""


def check_loss_type(method: Method, loss_type: str) -> None:
    """Refuse a loss that is not one of a method.

    Raises:
        UsageError: names the losses that fit.
    """
    names = LOSS_TYPES[method]
    if loss_type in names:
        return
    others = [name for name, types in LOSS_TYPES.items() if loss_type in types]
    elsewhere = f" (it is one of {', '.join(others)})" if others else ""
    raise UsageError(
        f"--loss_type {loss_type} is no loss of {method}{elsewhere}; use {' or '.join(_grouped(names))}, "
        f"or leave it out.{suggest(loss_type, names)}"
    )


def check_beta(beta: float) -> None:
    """Refuse a coefficient that turns the loss off or around.

    Raises:
        UsageError: it is not above 0.
    """
    if not beta > 0:
        raise UsageError(f"--beta {beta}: it scales the reward; give a number above 0")


def check_smoothing(method: Method, loss_type: str, label_smoothing: float) -> None:
    """Refuse label smoothing that is no share of wrong labels, or that the loss has no use for.

    Raises:
        UsageError: names the losses that it fits.
    """
    if not 0 <= label_smoothing < 0.5:
        raise UsageError(
            f"--label_smoothing {label_smoothing}: it is the share of wrong preferences; "
            "give a number from 0 to below 0.5"
        )
    smoothed = SMOOTHED.get(method, frozenset())
    if label_smoothing and loss_type not in smoothed:
        fit = f" or use --loss_type {', '.join(sorted(smoothed))}" if len(smoothed) > 1 else ""
        raise UsageError(
            f"--label_smoothing {label_smoothing} has no meaning for the loss {loss_type} of {method}; "
            f"leave it at 0{fit}"
        )


def check_weights(desirable_weight: float, undesirable_weight: float) -> None:
    """Refuse weights with which nothing, or the opposite, would be learned.

    Raises:
        UsageError: names the flag.
    """
    for name, value in (
        ("desirable_weight", desirable_weight),
        ("undesirable_weight", undesirable_weight),
    ):
        if not value >= 0:
            raise UsageError(f"--{name} {value}: it weighs a loss; give a number of at least 0")
    if desirable_weight == undesirable_weight == 0:
        raise UsageError(
            "--desirable_weight 0 and --undesirable_weight 0 leave nothing to learn; raise one of them"
        )


def _grouped(names: tuple[str, ...]) -> list[str]:
    return [", ".join(names[:-1]), names[-1]] if len(names) > 1 else list(names)
