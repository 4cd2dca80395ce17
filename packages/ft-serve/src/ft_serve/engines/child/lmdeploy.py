"""LMDeploy's server: the words that start it."""

from __future__ import annotations

from pathlib import Path

from ft_core.errors import UsageError
from ft_serve.arguments import LmdeployArguments
from ft_serve.engines.child.process import Launch
from ft_serve.engines.child.vllm import Model

DTYPES = ("float16", "bfloat16")


def lmdeploy_launch(
    python: str, model: Model, arguments: LmdeployArguments, *, key: str, log: Path
) -> Launch:
    """Return how LMDeploy is started.

    Args:
        python: interpreter of an environment with LMDeploy.
        model: what it serves, without adapters.
        arguments: how.
        key: what requests must bring.
        log: file for its output.

    Raises:
        UsageError: LMDeploy doesn't compute in this dtype.
    """
    words = lmdeploy_words(model, arguments)
    return Launch(
        name="LMDeploy",
        command=lambda port: [
            *(python, "-m", "lmdeploy", "serve", "api_server", *words),
            *("--server-port", str(port), "--api-keys", key),
        ],
        log=log,
        environment={"HF_HUB_OFFLINE": "1"},
    )


def lmdeploy_words(model: Model, arguments: LmdeployArguments) -> list[str]:
    """Return the words after ``api_server``, without port and key.

    Raises:
        UsageError: LMDeploy doesn't compute in this dtype.
    """
    if model.dtype not in DTYPES:
        raise UsageError(
            f"--infer_backend lmdeploy computes in bf16 or fp16, not {model.dtype}; give --dtype bf16"
        )
    return [
        *(str(model.directory), "--model-name", model.name, "--server-name", "127.0.0.1"),
        *("--dtype", model.dtype, "--tp", str(arguments.tp)),
        *("--cache-max-entry-count", str(arguments.cache_max_entry_count)),
        *("--quant-policy", str(arguments.quant_policy)),
        *("--vision-max-batch-size", str(arguments.vision_batch_size)),
        *("--logprobs-mode", "raw_logprobs", "--allow-origins", "http://127.0.0.1"),
        *(["--trust-remote-code"] if model.trust_remote_code else []),
    ]
