"""VLLM's server: the words that start it, and which adapters it takes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ft_core.checkpoints import ADAPTER_CONFIG
from ft_core.errors import UsageError
from ft_serve.arguments import VllmArguments
from ft_serve.engines.child.process import Launch

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The largest ranks that vLLM can be started for."""

MODULE = "vllm.entrypoints.openai.api_server"
"""Started as a module: the ``vllm`` command asks for its version by a name that CPU builds lack."""

MOST_AT_ONCE = 8
"""Adapters in one batch; each takes room on the GPU."""


@dataclass(frozen=True, slots=True)
class Model:
    """What a server is to serve.

    Attributes:
        directory: of the whole model.
        name: what requests call it.
        dtype: as torch names it, such as ``float32``.
        adapters: name and checkpoint of each.
        seed: of sampling without a seed.
        trust_remote_code: whether code of the model's repository may run.
        sees: whether requests bring images, videos or audios.
    """

    directory: Path
    name: str
    dtype: str
    adapters: Mapping[str, Path]
    seed: int = 42
    trust_remote_code: bool = False
    sees: bool = False


def vllm_launch(
    python: str,
    model: Model,
    arguments: VllmArguments,
    *,
    key: str,
    log: Path,
    environment: Mapping[str, str] | None = None,
) -> Launch:
    """Return how vLLM is started.

    Args:
        python: interpreter of an environment with vLLM.
        model: what it serves.
        arguments: how.
        key: what requests must bring; handed over where no other user sees it.
        log: file for its output.
        environment: further variables for it.

    Raises:
        UsageError: vLLM can't take one of the adapters.
    """
    words = vllm_words(model, arguments)
    return Launch(
        name="vLLM",
        command=lambda port: [python, "-m", MODULE, *words, "--port", str(port)],
        log=log,
        environment={
            "VLLM_API_KEY": key,
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
            **(environment or {}),
        },
    )


def vllm_words(model: Model, arguments: VllmArguments) -> list[str]:
    """Return the words after the module's name, without the port.

    Raises:
        UsageError: vLLM can't take one of the adapters.
    """
    words = [
        *("--model", str(model.directory), "--served-model-name", model.name),
        *("--dtype", model.dtype, "--seed", str(model.seed), "--host", "127.0.0.1"),
        *("--gpu-memory-utilization", str(arguments.gpu_memory_utilization)),
        *("--tensor-parallel-size", str(arguments.tensor_parallel_size)),
        *("--max-num-seqs", str(arguments.max_num_seqs)),
        # Its own way is to let generation_config.json change what requests ask for.
        *("--generation-config", "vllm", "--max-logprobs", "100"),
    ]
    if arguments.max_model_len is not None:
        words += ["--max-model-len", str(arguments.max_model_len)]
    if arguments.disable_custom_all_reduce:
        words.append("--disable-custom-all-reduce")
    if arguments.enforce_eager:
        words.append("--enforce-eager")
    if model.sees:
        words.append("--enable-scale-out")  # the endpoint that takes token ids and media
    if model.trust_remote_code:
        words.append("--trust-remote-code")
    if model.adapters:
        words += _lora_words(model.adapters, arguments.vllm_max_lora_rank)
    return words


def _lora_words(adapters: Mapping[str, Path], wanted_rank: int) -> list[str]:
    rank = next((rank for rank in RANKS if rank >= wanted_rank), None)
    if rank is None:
        raise UsageError(f"--vllm_max_lora_rank {wanted_rank}: vLLM takes at most {RANKS[-1]}")
    for name, directory in adapters.items():
        if (obstacle := lora_obstacle(directory, rank)) is not None:
            raise UsageError(f"adapter {name} ({directory}) can't run in vLLM: {obstacle}")
    modules = [json.dumps({"name": name, "path": str(path)}) for name, path in adapters.items()]
    return [
        *("--enable-lora", "--max-lora-rank", str(rank)),
        *("--max-loras", str(min(len(adapters), MOST_AT_ONCE))),
        *("--max-cpu-loras", str(max(len(adapters), MOST_AT_ONCE))),
        *("--lora-modules", *modules),
    ]


def lora_obstacle(directory: Path, most_rank: int) -> str | None:
    """Say why vLLM can't take an adapter; ``None`` if nothing speaks against it."""
    file = directory / ADAPTER_CONFIG
    if not file.is_file():
        return f"it has no {ADAPTER_CONFIG} of peft; merge it (--merge_lora true)"
    config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    merge = "merge it (--merge_lora true), or answer with --infer_backend pt"
    if config.get("peft_type") != "LORA":
        return f"it is {config.get('peft_type')}, and vLLM knows LoRA alone; {merge}"
    rank = _largest_rank(config)
    if rank > most_rank:
        return f"its rank is {rank}; give --vllm_max_lora_rank {rank}"
    if config.get("use_dora"):
        return f"it is DoRA; {merge}"
    if config.get("bias", "none") != "none" or config.get("lora_bias"):
        return f"it changes biases; {merge}"
    if config.get("modules_to_save"):
        return f"it holds whole modules ({', '.join(config['modules_to_save'])}); {merge}"
    return None


def _largest_rank(config: Mapping[str, Any]) -> int:
    ranks: Sequence[int] = [int(config["r"]), *(config.get("rank_pattern") or {}).values()]
    return max(ranks)
