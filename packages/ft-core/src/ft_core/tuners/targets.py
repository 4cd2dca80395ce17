"""Settings that all tuners which adapt layers have in common: which layers, and what is trained whole."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSettings:
    """Which layers are adapted.

    Attributes:
        target_modules: names of modules, or ``DEFAULT``, ``ALL``, ``EMBEDDING``.
        target_regex: a regular expression over full module names; replaces ``target_modules``.
        default_targets: what ``DEFAULT`` means: the registered model's ``target_modules``.
        modules_to_save: names of modules that are trained whole, or ``EMBEDDING``, ``LN``.
        new_token_ids: tokens whose rows of the embedding and the head are trained.
    """

    target_modules: tuple[str, ...] = ("DEFAULT",)
    target_regex: str | None = None
    default_targets: tuple[str, ...] | str = ()
    modules_to_save: tuple[str, ...] = ()
    new_token_ids: tuple[int, ...] = ()
