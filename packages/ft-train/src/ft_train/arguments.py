"""Flags of training: how the trained part is optimized, and what a run writes."""

from __future__ import annotations

from importlib.util import find_spec
from typing import ClassVar, Literal

from ft_core.command.group import ArgumentGroup, flag
from ft_core.errors import DependencyError, UsageError, suggest

Strategy = Literal["steps", "epoch", "no"]

Optimizer = Literal[
    "adamw_torch",
    "adamw_torch_fused",
    "adafactor",
    "sgd",
    "adagrad",
    "rmsprop",
    "muon",
    "adamw_8bit",
    "adamw_bnb_8bit",
    "paged_adamw_8bit",
    "paged_adamw_32bit",
    "lion_8bit",
    "lion_32bit",
    "paged_lion_8bit",
    "paged_lion_32bit",
    "ademamix",
    "ademamix_8bit",
    "rmsprop_bnb_8bit",
]

TRACKERS = {
    "tensorboard": "tensorboard",
    "clearml": "clearml",
    "comet_ml": "comet_ml",
    "dvclive": "dvclive",
    "mlflow": "mlflow",
    "neptune": "neptune",
    "swanlab": "swanlab",
    "trackio": "trackio",
    "wandb": "wandb",
}
"""Trackers that ``report_to`` takes, and the module each needs."""


class TrainingArguments(ArgumentGroup):
    """How the trained part is optimized."""

    title: ClassVar[str] = "optimization"

    batch_size: int = flag(1, ge=1, aliases=("per_device_train_batch_size",))
    """Rows of one forward pass on each device."""

    eval_batch_size: int | None = flag(None, ge=1, aliases=("per_device_eval_batch_size",))
    """Rows of one forward pass in evaluation; none takes batch_size."""

    gradient_accumulation_steps: int | None = flag(None, ge=1, aliases=("acc_steps",))
    """Forward passes of one optimizer step; none makes a step about 16 rows over all devices."""

    join_micro_batches: bool = True
    """Compute several micro-batches of a step at once where memory suffices; only speed and rounding change."""

    num_train_epochs: float = flag(1, gt=0)
    """How often every row is trained on."""

    max_steps: int = flag(-1, ge=-1)
    """Optimizer steps of the run; it replaces num_train_epochs. -1 leaves it to the epochs."""

    optim: Optimizer = "adamw_torch"
    """Optimizer. adamw_torch takes torch's fused kernel where there is one; those with bits in their name need bitsandbytes."""

    adam_beta1: float = flag(0.9, ge=0, lt=1)
    """Decay of Adam's running mean of gradients."""

    adam_beta2: float = flag(0.95, ge=0, lt=1)
    """Decay of Adam's running mean of squared gradients."""

    adam_epsilon: float = flag(1e-8, gt=0)
    """What keeps Adam from dividing by zero."""

    learning_rate: float | None = flag(None, ge=0)
    """Highest learning rate; none takes 1e-4 for adapters and 1e-5 for all weights."""

    weight_decay: float = flag(0.01, ge=0)
    """Share by which weights shrink each step, times the learning rate; biases and norms are left alone."""

    max_grad_norm: float = flag(1, ge=0)
    """Gradients longer than this are scaled down to it; 0 leaves them."""

    lr_scheduler_type: Literal[
        "cosine",
        "linear",
        "constant",
        "constant_with_warmup",
        "cosine_with_restarts",
        "polynomial",
        "inverse_sqrt",
    ] = flag("cosine", aliases=("lr_scheduler",))
    """Course of the learning rate after the warm-up."""

    warmup_ratio: float = flag(0.05, ge=0, lt=1)
    """Share of the steps in which the learning rate rises to its highest value."""

    warmup_steps: int = flag(0, ge=0)
    """Steps of that rise; above 0 it replaces warmup_ratio."""

    gradient_checkpointing: bool = True
    """Compute activations again in the backward pass: less memory, more time. Not given, it is used where the memory estimate needs it."""

    dataloader_num_workers: int | None = flag(None, ge=0)
    """Processes that prepare batches; none takes 1, and 0 on Windows. 0 prepares them in the training process."""

    auto_find_batch_size: bool = False
    """When memory runs out, start again with fewer rows in a forward pass and as many in a step."""

    full_determinism: bool = False
    """Compute with deterministic algorithms only, so that a run gives the same weights again; slower on GPUs."""

    gpu_memory_fraction: float | None = flag(None, gt=0, le=1)
    """Share of the GPU's memory that the run may take; for trying out tight memory."""

    use_liger_kernel: bool = False
    """Replace layers by the faster ones of liger-kernel; needs a GPU."""

    def check(self, given: frozenset[str]) -> None:
        """Refuse a run of no steps, and what needs a package that is not there."""
        if self.max_steps == 0:
            raise UsageError(
                "--max_steps 0 trains nothing; give a number of steps, or -1 for whole epochs"
            )
        if needs_bitsandbytes(self.optim) and find_spec("bitsandbytes") is None:
            raise DependencyError(
                f"--optim {self.optim}", "bitsandbytes", "pip install 'ft-train[bnb]'"
            )
        if self.use_liger_kernel and find_spec("liger_kernel") is None:
            raise DependencyError(
                "--use_liger_kernel true", "liger-kernel", "pip install 'ft-train[liger]'"
            )


def needs_bitsandbytes(optim: str) -> bool:
    """Whether an optimizer is one of bitsandbytes'."""
    return optim not in ("muon", "adafactor", "sgd", "adagrad", "rmsprop") and not optim.startswith(
        "adamw_torch"
    )


class RunArguments(ArgumentGroup):
    """Where a run writes, and how often it evaluates, saves and logs."""

    title: ClassVar[str] = "run"

    output_dir: str = "output"
    """Directory of all runs."""

    add_output_dir_suffix: bool = flag(True, aliases=("add_version",))
    """Give each run a directory of its own below output_dir: the model's name, a number and the time."""

    resume_from_checkpoint: str | None = None
    """Checkpoint to continue from, in its own run directory; latest takes the newest below output_dir."""

    resume_only_model: bool = False
    """Take only the weights of that checkpoint and start a new run with them."""

    evaluation_strategy: Strategy = flag("steps", aliases=("eval_strategy",))
    """Evaluate every eval_steps, after each epoch, or never. There is always an evaluation at the end unless never."""

    eval_steps: int = flag(50, ge=1)
    """Steps between evaluations."""

    save_strategy: Strategy = "steps"
    """Save every save_steps, after each epoch, or never. The last step is always saved unless never."""

    save_steps: int | None = flag(None, ge=1)
    """Steps between checkpoints; none takes eval_steps."""

    save_only_model: bool | None = flag(None, aliases=("only_save_model",))
    """Save weights without optimizer and random states, which resuming needs; none saves them with adapters only."""

    save_total_limit: int | None = flag(2, ge=-1)
    """How many checkpoints stay; 2 are the best and the last. -1 keeps all."""

    save_safetensors: bool = flag(True, aliases=("safe_serialization",))
    """Write weights as .safetensors; false writes .bin."""

    logging_steps: int = flag(5, ge=1)
    """Steps between two lines of the log."""

    logging_dir: str | None = None
    """Directory of TensorBoard's files; none takes runs/ in the run directory."""

    report_to: list[str] = flag(["tensorboard"], commas=True)
    """Trackers that get the log: tensorboard, wandb and others, all that are installed, or none."""

    disable_tqdm: bool = False
    """Write lines instead of a progress bar."""

    include_num_input_tokens_seen: bool = False
    """Log how many tokens the model has read since the beginning, over all devices."""

    def check(self, given: frozenset[str]) -> None:
        """Refuse flags that contradict each other and trackers that can't be used."""
        if self.save_total_limit == 0:
            raise UsageError(
                "--save_total_limit 0 keeps no checkpoint; give 1 or more, or -1 for all, or --save_strategy no"
            )
        if self.resume_only_model and self.resume_from_checkpoint is None:
            raise UsageError(
                "--resume_only_model true needs --resume_from_checkpoint with the checkpoint to take the weights of"
            )
        self.trackers()

    def trackers(self) -> tuple[str, ...]:
        """Return the trackers that ``report_to`` names.

        Raises:
            UsageError: one is unknown.
            DependencyError: one is not installed.
        """
        if self.report_to == ["none"] or not self.report_to:
            return ()
        if self.report_to == ["all"]:
            return tuple(name for name, module in TRACKERS.items() if find_spec(module))
        for name in self.report_to:
            if name not in TRACKERS:
                raise UsageError(
                    f"--report_to {name}: unknown tracker; use all, none or some of {', '.join(TRACKERS)}."
                    f"{suggest(name, TRACKERS)}"
                )
            if find_spec(TRACKERS[name]) is None:
                raise DependencyError(f"--report_to {name}", name, f"pip install {name}")
        return tuple(self.report_to)
