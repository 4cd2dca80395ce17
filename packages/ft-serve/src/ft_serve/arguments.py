"""Flags of answering: which checkpoint, what is asked, and what is shown."""

from __future__ import annotations

from typing import ClassVar, Literal

from ft_core.command.group import ArgumentGroup, flag
from ft_core.errors import UsageError
from ft_core.tuner import SftType

LOADED_ADAPTER = "default-lora"
"""Name of the adapter that ckpt_dir holds."""


class CheckpointArguments(ArgumentGroup):
    """The checkpoint of an earlier run."""

    title: ClassVar[str] = "checkpoint"

    ckpt_dir: str | None = None
    """Checkpoint to use: an adapter or a whole model; without one the plain model answers."""

    load_args_from_ckpt_dir: bool = True
    """Take model, template, dtype and system from the sft_args.json of the checkpoint."""

    load_dataset_config: bool = False
    """Also take from it which rows it was trained and evaluated on."""

    sft_type: SftType = "lora"
    """How the checkpoint was trained. It is read off the checkpoint; a value that contradicts it is refused."""


class InferArguments(ArgumentGroup):
    """What is asked and what is shown."""

    title: ClassVar[str] = "infer"

    infer_backend: Literal["AUTO", "pt"] = "AUTO"
    """Engine that answers; AUTO takes ft's own on PyTorch."""

    eval_human: bool | None = None
    """Chat in the terminal instead of answering rows; none chats where no rows are given."""

    show_dataset_sample: int = flag(10, ge=-1)
    """Rows to answer, drawn by the seed; -1 answers all."""

    stream: bool = True
    """Show answers while they are generated; for rows only where verbose shows them."""

    lora_modules: list[str] = flag([])
    """Further adapters on the same weights, name=checkpoint each; that of ckpt_dir is called default-lora."""

    result_file: str | None = None
    """File for the answers to rows; answers it holds already are kept, not generated again. None makes a new one."""

    overwrite_generation_config: bool | None = None
    """Write the sampling used here, but no length, into the generation_config.json of the checkpoint; none does so with a ckpt_dir."""

    verbose: bool | None = None
    """Show each question, answer and label instead of progress; none shows them for fewer than 100 rows."""

    def adapters(self) -> dict[str, str]:
        """Return name and directory of each of ``lora_modules``.

        Raises:
            UsageError: one isn't written name=directory, or a name comes twice.
        """
        found: dict[str, str] = {}
        for item in self.lora_modules:
            name, _, directory = item.partition("=")
            if not name or not directory:
                raise UsageError(f"--lora_modules {item}: write name=checkpoint")
            if name in (*found, LOADED_ADAPTER):
                raise UsageError(f"--lora_modules {item}: the name {name} is taken")
            found[name] = directory
        return found

    def check(self, given: frozenset[str]) -> None:
        """Refuse a number of rows that answers nothing, and adapters without a name."""
        self.adapters()
        if self.show_dataset_sample == 0:
            raise UsageError(
                "--show_dataset_sample 0 answers nothing; give a number of rows, or -1 for all"
            )
