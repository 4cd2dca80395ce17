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

    infer_backend: Literal["AUTO", "pt", "vllm", "lmdeploy", "remote"] = "AUTO"
    """Engine that answers: ft's own (pt), vLLM or LMDeploy as a process beside it, or a server somewhere (remote); AUTO takes vLLM where it is installed and fits."""

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


class EngineArguments(ArgumentGroup):
    """Where an engine that isn't ft's own is found."""

    title: ClassVar[str] = "engine"

    engine_python: str | None = None
    """Python of an environment of its own with vLLM or LMDeploy; none looks into this environment."""

    engine_url: str | None = None
    """Address of a server with OpenAI's completions that answers, like http://10.0.0.5:8000/v1; FT_ENGINE_KEY may hold its key."""

    engine_model: str | None = None
    """What that server calls the model; none takes the only one it has."""

    def check(self, given: frozenset[str]) -> None:
        """Refuse a process and a server at once, and what is no address."""
        if self.engine_url is None:
            if self.engine_model is not None:
                raise UsageError(
                    "--engine_model names a model of a server; give its --engine_url too"
                )
            return
        if self.engine_python is not None:
            raise UsageError(
                "--engine_url has a server running already, so --engine_python has nothing to start; "
                "leave one of them out"
            )
        if not self.engine_url.startswith(("http://", "https://")):
            raise UsageError(
                f"--engine_url {self.engine_url}: write an address like http://10.0.0.5:8000/v1"
            )


class VllmArguments(ArgumentGroup):
    """How vLLM runs."""

    title: ClassVar[str] = "vLLM"

    gpu_memory_utilization: float = flag(0.9, gt=0, le=1)
    """Share of a GPU's memory that vLLM takes."""

    tensor_parallel_size: int = flag(1, ge=1)
    """GPUs that each layer is divided over."""

    max_num_seqs: int = flag(256, ge=1)
    """Requests that generate at the same time."""

    max_model_len: int | None = flag(None, ge=1)
    """Tokens of prompt and answer together; none takes the model's own length."""

    disable_custom_all_reduce: bool = True
    """Let NCCL add up what several GPUs computed, not vLLM's own kernel."""

    enforce_eager: bool = False
    """Record no CUDA graphs: starts sooner and takes less memory, answers more slowly."""

    vllm_enable_lora: bool = False
    """Answer with adapters beside the model instead of with merged weights."""

    vllm_max_lora_rank: int = flag(16, ge=1)
    """Largest rank of the adapters; vLLM knows 1, 8, 16, 32, 64, 128, 256, 320 and 512, and the next one is taken."""


class LmdeployArguments(ArgumentGroup):
    """How LMDeploy runs."""

    title: ClassVar[str] = "LMDeploy"

    tp: int = flag(1, ge=1)
    """GPUs that each layer is divided over."""

    cache_max_entry_count: float = flag(0.8, gt=0, le=1)
    """Share of the free GPU memory that keys and values take."""

    quant_policy: Literal[0, 4, 8] = 0
    """Bits of keys and values; 0 leaves them as they are."""

    vision_batch_size: int = flag(1, ge=1)
    """Images that the vision part takes at a time."""


ENGINE_GROUPS = (EngineArguments, VllmArguments, LmdeployArguments)
"""For every command that starts an engine."""
