"""Settings of training the weights themselves."""

from __future__ import annotations

from dataclasses import dataclass

from ft_core.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class FullSettings:
    """Which weights are trained: all, unless some are frozen.

    Attributes:
        freeze_parameters: share of the parameters that is frozen, counted from the bottom.
        additional_trainable_parameters: beginnings of names that are trained nevertheless.
        new_token_ids: tokens the model didn't have, whose rows of the embedding must be trained.

    Raises:
        UsageError: a value that can't work, with its flag.
    """

    freeze_parameters: float = 0.0
    additional_trainable_parameters: tuple[str, ...] = ()
    new_token_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.freeze_parameters <= 1:
            raise UsageError(
                f"--freeze_parameters {self.freeze_parameters}: is a share of the parameters, from 0 to 1"
            )
