"""Flags of methods that learn from answers the model makes while it is trained."""

from __future__ import annotations

import re
from typing import ClassVar

from ft_core.command.group import ArgumentGroup, flag
from ft_core.errors import UsageError

FORMAT = r"<think>(?P<think>.+?)</think>\s*<answer>(?P<answer>.+?)</answer>"
"""What the reward ``format`` expects of a whole answer."""


class OnlineArguments(ArgumentGroup):
    """How a model learns from its own answers: by rewards (grpo, rloo) or a teacher (gkd)."""

    title: ClassVar[str] = "online alignment"

    reward_funcs: list[str] = flag([])
    """grpo, rloo: what rewards answers; several add up. format (the answer matches --reward_format), exact (it is the row's answer), length (shorter is better), regex:PATTERN (it holds a match), file:PATH.py:FUNCTION, model:DIR (a reward model of --rlhf_type rm), judge:URL (an OpenAI-compatible server)."""

    reward_weights: list[float] = flag([])
    """Weight of each of them; none weighs each 1."""

    reward_format: str = FORMAT
    """Regular expression of a whole answer for format; exact compares its group named answer, where it matches."""

    judge_model: str | None = None
    """Model that the server of judge is asked for; none takes its first one."""

    num_generations: int = flag(8, ge=2)
    """Answers to each prompt, which are compared with one another."""

    max_completion_length: int = flag(256, ge=1)
    """Longest answer in tokens that the model makes in training."""

    teacher_model_type: str | None = None
    """gkd: registered model that teaches; it reads the same tokens."""

    teacher_model_id_or_path: str | None = None
    """Hub id or directory of that model."""

    lmbda: float = flag(0.5, ge=0, le=1)
    """gkd: share of steps in which the model's own answers are learned in place of those of the rows."""

    seq_kd: bool = False
    """gkd: learn the teacher's answers in place of those of the rows."""

    def check(self, given: frozenset[str]) -> None:
        """Refuse weights that don't belong to rewards, and expressions that can't be read."""
        if self.reward_weights and len(self.reward_weights) != len(self.reward_funcs):
            raise UsageError(
                f"--reward_weights has {len(self.reward_weights)} numbers and --reward_funcs {len(self.reward_funcs)} "
                "rewards; give one for each"
            )
        try:
            re.compile(self.reward_format)
        except re.error as error:
            raise UsageError(
                f"--reward_format {self.reward_format}: is no regular expression: {error}"
            ) from error
