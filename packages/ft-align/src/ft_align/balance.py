"""How many answers are desirable and how many are not, and what that asks of their weights."""

from __future__ import annotations

from dataclasses import dataclass

from ft_core.errors import DataError

LEAST, MOST = 1.0, 4 / 3
"""What the paper recommends for desirable over undesirable, weights times numbers (arXiv:2402.01306, 4.2)."""


@dataclass(frozen=True, slots=True)
class Balance:
    """Numbers of labelled answers."""

    desirable: int
    undesirable: int

    def advice(self, desirable_weight: float, undesirable_weight: float) -> str | None:
        """Return which weights the paper recommends, unless these are such."""
        weighed = self.undesirable * undesirable_weight
        if not weighed or not desirable_weight:
            return None
        ratio = self.desirable * desirable_weight / weighed
        if LEAST <= round(ratio, 2) <= round(MOST, 2):
            return None
        lower, upper = (
            bound * self.undesirable * undesirable_weight / self.desirable
            for bound in (LEAST, MOST)
        )
        return (
            f"{self.desirable:,} answers are desirable and {self.undesirable:,} are not: by their weights one side "
            f"counts {ratio:.2f} times the other, and 1 to 4/3 is recommended; --desirable_weight {lower:.2f} to "
            f"{upper:.2f} gives that"
        )


def check_labels(counts: Balance) -> None:
    """Refuse rows whose labels are all the same.

    Raises:
        DataError: with the numbers, and the weights that suit rows of both kinds.
    """
    if counts.desirable and counts.undesirable:
        return
    kind = "desirable" if counts.desirable else "undesirable"
    raise DataError(
        f"all {counts.desirable + counts.undesirable:,} answers are {kind} (desirable {counts.desirable:,}, "
        f"undesirable {counts.undesirable:,}), so kto can't tell good from bad; add rows with the other label and "
        "choose --desirable_weight times their number 1 to 4/3 of --undesirable_weight times the other number, or "
        "use ft sft for desirable answers alone",
        field="label",
        rule="one_label",
    )
