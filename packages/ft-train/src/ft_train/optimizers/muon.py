"""Muon for the matrices of hidden layers, AdamW for everything else."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import AdamW, Muon, Optimizer
from transformers import PreTrainedModel

from ft_train.plan import TrainingPlan


class MuonWithAdamW(Optimizer):
    """Orthogonalized momentum for matrices (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon).

    Its steps are scaled to the size of AdamW's, so that one learning rate serves both (Liu et al. 2025,
    arXiv:2502.16982).

    Args:
        matrices: parameter groups of matrices [out, in].
        others: parameter groups of all else.
        learning_rate: of both.
        betas, epsilon: of AdamW.
    """

    def __init__(
        self,
        matrices: Iterable[dict[str, Any]],
        others: Iterable[dict[str, Any]],
        *,
        learning_rate: float,
        betas: tuple[float, float],
        epsilon: float,
    ) -> None:
        self._parts: list[Optimizer] = []
        if groups := [group for group in matrices if group["params"]]:
            self._parts.append(Muon(groups, lr=learning_rate, adjust_lr_fn="match_rms_adamw"))
        if groups := [group for group in others if group["params"]]:
            self._parts.append(AdamW(groups, lr=learning_rate, betas=betas, eps=epsilon))
        super().__init__([group for part in self._parts for group in part.param_groups], {})
        self._share()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step with both."""
        loss = None if closure is None else closure()
        for part in self._parts:
            part.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a checkpoint stopped."""
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        """Let both parts work on the groups and states that schedulers and checkpoints see."""
        start = 0
        for part in self._parts:
            end = start + len(part.param_groups)
            part.param_groups, part.state = self.param_groups[start:end], self.state
            start = end


def muon(model: PreTrainedModel, plan: TrainingPlan, decayed: frozenset[str]) -> MuonWithAdamW:
    """Return the optimizer of a model: embeddings and the head count among what AdamW trains."""
    outer = {
        id(parameter)
        for module in (model.get_input_embeddings(), model.get_output_embeddings())
        if module is not None
        for parameter in module.parameters()
    }
    groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            matrix = parameter.ndim == 2 and id(parameter) not in outer
            groups.setdefault((matrix, name in decayed), []).append(parameter)

    def chosen(matrix: bool) -> list[dict[str, Any]]:
        return [
            {"params": parameters, "weight_decay": plan.weight_decay if shrinks else 0.0}
            for (is_matrix, shrinks), parameters in groups.items()
            if is_matrix is matrix
        ]

    return MuonWithAdamW(
        chosen(True),
        chosen(False),
        learning_rate=plan.learning_rate,
        betas=(plan.adam_beta1, plan.adam_beta2),
        epsilon=plan.adam_epsilon,
    )
