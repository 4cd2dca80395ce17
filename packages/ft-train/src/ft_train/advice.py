"""What to change when memory runs out: the flags that save most, by the estimate of the run."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from ft_core.errors import FtError
from ft_core.models.memory import MemoryEstimate
from ft_train.plan import TrainingPlan

_BEST = 3


@dataclass(frozen=True, slots=True)
class Saving:
    """A flag and the bytes it saves."""

    flag: str
    size: int

    def __str__(self) -> str:
        return f"{self.flag} (saves about {self.size / 2**30:.2f} GiB)"


def memory_savings(estimate: MemoryEstimate, plan: TrainingPlan, tuner: str) -> list[Saving]:
    """Return flags that lower the memory of a run, those that save most first.

    Args:
        estimate: of the run.
        plan: its values.
        tuner: name of its tuner.
    """
    batch = estimate.activations + estimate.logits
    found = [Saving("half the --max_length", batch // 2)]
    if (smaller := plan.with_fewer_rows()) is not None:
        share = 1 - smaller.batch_size / plan.batch_size
        flag = "join_micro_batches false" if plan.is_joined else f"batch_size {smaller.batch_size}"
        found.append(Saving(f"--{flag}", round(batch * share)))
    if not plan.gradient_checkpointing:
        saved = estimate.activations - estimate.recomputed
        found.append(Saving("--gradient_checkpointing true", saved))
    if tuner == "full":
        found.append(Saving("--sft_type lora", estimate.gradients + estimate.optimizer))
    elif plan.device == "cuda":
        found.append(Saving("--quantization_bit 4", round(estimate.weights * 0.7)))
    if plan.optim.startswith("adamw_torch"):
        there = find_spec("bitsandbytes") is not None
        flag = "--optim adamw_8bit" if there else "--optim adamw_8bit with bitsandbytes installed"
        found.append(Saving(flag, round(estimate.optimizer * 0.75)))
    return sorted((item for item in found if item.size > 0), key=lambda item: -item.size)


def out_of_memory(estimate: MemoryEstimate | None, plan: TrainingPlan, tuner: str) -> FtError:
    """Return the error of a run whose memory ran out."""
    where = "the GPU's memory" if plan.device == "cuda" else "memory"
    if estimate is None:
        return FtError(
            f"{where} ran out with batch_size {plan.batch_size}; try --gradient_checkpointing true, "
            "--batch_size 1 or a smaller --max_length"
        )
    best = memory_savings(estimate, plan, tuner)[:_BEST]
    return FtError(
        f"{where} ran out with batch_size {plan.batch_size}; the run needs about {estimate.total / 2**30:.2f} GiB. "
        f"These help most: {'; '.join(map(str, best))}"
    )
