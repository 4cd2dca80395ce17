"""LISA: few layers at a time, drawn at random (Pan et al. 2024, https://arxiv.org/abs/2403.17919)."""

from __future__ import annotations

import random
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ft_core.errors import UsageError
from ft_core.models.groups import module_groups
from ft_core.sequences.isolation import language_model


class Lisa(TrainerCallback):  # type: ignore[misc]
    """Freezes all layers but some, and draws others every few steps.

    Embeddings, norms outside the layers and the head are always trained. What the optimizer remembers of a
    layer is dropped when it is frozen, which is what saves memory. The draw depends on seed and step alone, so
    that a resumed run goes on with the same layers.

    Args:
        layers: how many are trained at a time.
        interval: steps after which others are drawn.
        seed: of the draw.
    """

    def __init__(self, layers: int, interval: int, seed: int) -> None:
        self._count, self._interval, self._seed = layers, interval, seed
        self._layers: list[torch.nn.Module] = []
        self._drawn: tuple[int, ...] = ()

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: torch.nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Find the layers.

        Raises:
            UsageError: there are fewer than are to be trained, or several processes train.
        """
        assert model is not None
        if args.world_size > 1:
            raise UsageError(
                f"--lisa_activated_layers {self._count}: LISA trains in one process, and {args.world_size} train here, which "
                "would wait for the gradients of frozen layers; leave it out or use --use_galore true"
            )
        inner = language_model(model)
        self._layers = [inner.get_submodule(name) for name in module_groups(inner).layers]
        if self._count > len(self._layers):
            raise UsageError(
                f"--lisa_activated_layers {self._count}: the model has {len(self._layers)} layers; give at most so many"
            )
        self._drawn = ()

    def on_step_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        optimizer: Any = None,
        **kwargs: Any,
    ) -> None:
        """Draw layers when it is time."""
        drawn = self.drawn_at(state.global_step)
        if drawn == self._drawn:
            return
        self._drawn = drawn
        for index, layer in enumerate(self._layers):
            layer.requires_grad_(index in drawn)
            if index not in drawn:
                for parameter in layer.parameters():
                    parameter.grad = None
                    optimizer.state.pop(parameter, None)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave no layer frozen."""
        for layer in self._layers:
            layer.requires_grad_(True)

    def drawn_at(self, step: int) -> tuple[int, ...]:
        """Return the layers that are trained in a step, by number."""
        draw = random.Random(f"{self._seed} {step // self._interval}")
        return tuple(sorted(draw.sample(range(len(self._layers)), self._count)))
