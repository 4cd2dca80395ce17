"""AdaLoRA while it is trained: ranks are shared out after each step, and matrices are kept orthogonal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import AdaLoraModel, PeftModel
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ft_core.errors import ModelError

RANKS_FILE = "adalora_state.pt"
_SCORES = ("ipt", "exp_avg_ipt", "exp_avg_unc")
"""What peft's allocator remembers of each matrix: importance, and the running means of it and its uncertainty."""


class ShareRanks(TrainerCallback):  # type: ignore[misc]
    """Tells AdaLoRA of each step, so that it takes ranks where they matter least.

    It needs the gradients, so it works between the optimizer's step and their end.
    """

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: torch.nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Set the number of steps, and forget what an earlier attempt found, unless that is gone on with."""
        tuner = adalora_model(model)
        tuner.rankallocator.set_total_step(state.max_steps)
        if state.global_step == 0:
            tuner.rankallocator.reset_ipt()

    def on_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: torch.nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Share out ranks; steps are counted from 1, so that the last one ends with the wanted number."""
        tuner, step = adalora_model(model), state.global_step + 1
        config = tuner.peft_config[tuner.trainable_adapter_name]
        tuner.update_and_allocate(step)
        decided = step > config.tinit and step % config.deltaT == 0
        if step < config.total_step - config.tfinal and not decided:
            # Ranks that were taken are trained again until the next decision: all are part of the adapter.
            config.rank_pattern = None


class KeepRanks:
    """Keeps AdaLoRA's matrices with all their ranks, and how much each has mattered so far.

    The adapter's own files hold only the ranks that count at that moment; those that were taken away may come back.
    """

    def save(self, model: torch.nn.Module, directory: Path) -> None:
        """Write them into a checkpoint."""
        tuner = adalora_model(model)
        matrices = {name: parameter.detach().cpu() for name, parameter in _matrices(tuner).items()}
        scores = {
            name: {key: value.cpu() for key, value in getattr(tuner.rankallocator, name).items()}
            for name in _SCORES
        }
        pattern = tuner.peft_config[tuner.trainable_adapter_name].rank_pattern
        torch.save(
            {"matrices": matrices, "scores": scores, "pattern": pattern}, directory / RANKS_FILE
        )

    def load(self, model: torch.nn.Module, directory: Path) -> None:
        """Put them back before the optimizer is made.

        Raises:
            ModelError: the checkpoint lacks them.
        """
        file = directory / RANKS_FILE
        if not file.is_file():
            raise ModelError(
                f"{directory} can't be resumed: it lacks {RANKS_FILE}; use --resume_only_model true to start a new run "
                "with its weights"
            )
        state = torch.load(file, map_location="cpu", weights_only=True)
        tuner = adalora_model(model)
        for name, parameter in _matrices(tuner).items():
            parameter.data = state["matrices"][name].to(parameter.device)
        device = next(tuner.parameters()).device
        for name in _SCORES:
            values = {key: value.to(device) for key, value in state["scores"][name].items()}
            setattr(tuner.rankallocator, name, values)
        tuner.peft_config[tuner.trainable_adapter_name].rank_pattern = state["pattern"]


def _matrices(tuner: AdaLoraModel) -> dict[str, torch.nn.Parameter]:
    name = tuner.trainable_adapter_name
    return {
        full: parameter
        for full, parameter in tuner.named_parameters()
        if f".{name}" in full and (".lora_" in full or ".ranknum." in full)
    }


def adalora_model(model: torch.nn.Module | None) -> AdaLoraModel:
    """Return the part of peft that shares out ranks.

    Raises:
        ModelError: the model has no adapter of AdaLoRA.
    """
    for module in () if model is None else model.modules():
        if isinstance(module, PeftModel) and isinstance(module.base_model, AdaLoraModel):
            return module.base_model
    raise ModelError("this model has no adapter of AdaLoRA")


def orthogonality(model: torch.nn.Module) -> torch.Tensor:
    """Return the penalty of AdaLoRA's matrices for not being orthogonal, times its weight.

    It is the mean of ‖AAᵀ − I‖ and ‖BᵀB − I‖ (Frobenius) over all matrices, a scalar.
    """
    tuner = adalora_model(model)
    name = tuner.trainable_adapter_name
    distances = []
    for full, matrix in tuner.named_parameters():
        if f"lora_A.{name}" in full:
            product = matrix @ matrix.T
        elif f"lora_B.{name}" in full:
            product = matrix.T @ matrix
        else:
            continue
        identity = torch.eye(len(product), device=product.device, dtype=product.dtype)
        distances.append(torch.linalg.matrix_norm(product - identity))
    weight: float = tuner.peft_config[name].orth_reg_weight
    return torch.stack(distances).mean() * weight
