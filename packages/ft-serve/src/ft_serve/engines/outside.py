"""Engines outside this process, from arguments to answering."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path

import httpx
import psutil

from ft_core.arguments import ModelArguments
from ft_core.command import Invocation
from ft_core.errors import ModelError, UsageError
from ft_core.hub.cache import cache_directory
from ft_core.prepare import Prepared, Say
from ft_serve.arguments import LOADED_ADAPTER, EngineArguments, LmdeployArguments, VllmArguments
from ft_serve.engines.backend import Backend, whole_directory
from ft_serve.engines.child.lmdeploy import lmdeploy_launch
from ft_serve.engines.child.process import ChildServer, Launch
from ft_serve.engines.child.vllm import Model, vllm_launch
from ft_serve.engines.remote.completions import OpenAi, Vllm
from ft_serve.engines.remote.dialect import Dialect
from ft_serve.engines.remote.engine import Elsewhere, RemoteEngine, read_served
from ft_serve.engines.remote.lmdeploy import LmDeploy
from ft_serve.engines.remote.media import VllmMedia

KEY = "FT_ENGINE_KEY"
"""Environment variable with the key of the server at ``engine_url``."""

CPU_CACHE = "VLLM_CPU_KVCACHE_SPACE"
MOST_CPU_CACHE = 4
"""GiB."""

TELL_WITHIN = 30.0
"""Seconds for a server that is ready to say what it offers."""


def start_child(
    invocation: Invocation,
    prepared: Prepared,
    backend: Backend,
    *,
    dtype: str,
    adapters: Mapping[str, str],
    say: Say,
) -> RemoteEngine:
    """Start vLLM or LMDeploy and wait until it answers.

    Args:
        invocation: has the engine's flags.
        prepared: the model.
        backend: which engine, and where it is installed.
        dtype: of the weights, as torch names it.
        adapters: name and checkpoint of further adapters.
        say: is told where the log is, and that starting takes a while.

    Raises:
        UsageError: the engine can't do what is asked.
        ModelError: it doesn't start; the message has the end of its log.
    """
    model = _model(invocation, prepared, dtype, adapters)
    key, log = secrets.token_urlsafe(24), _log_file(backend.name)
    launch = _launch(invocation, backend, model, key, log)
    say(f"           {launch.name} starts; its log is {log}")
    server = ChildServer(launch)
    try:
        server.wait_ready()
        served, _ = read_served(_models(server.url, launch.name, key), model.name)
    except BaseException:
        server.close()
        raise
    vllm = Vllm.beside_adapters() if model.adapters else Vllm()
    return RemoteEngine(
        server,
        vllm if backend.name == "vllm" else LmDeploy(),
        served,
        stop_token_ids=prepared.chosen.template.stop_token_ids,
        key=key,
        media=_media(prepared) if backend.name == "vllm" else None,
    )


def open_remote(invocation: Invocation, prepared: Prepared, *, say: Say) -> RemoteEngine:
    """Answer through the server at ``engine_url``.

    Args:
        invocation: has the address.
        prepared: the model that the server serves, for its tokenizer and chat format.
        say: is told what the server offers.

    Raises:
        UsageError: the server wants another key, or hasn't the model.
        ModelError: it isn't there, or speaks no OpenAI API.
    """
    engine = invocation.get(EngineArguments)
    url = (engine.engine_url or "").rstrip("/").removesuffix("/v1")
    key = os.environ.get(KEY)
    served, owner = read_served(_models(url, "the server", key), engine.engine_model)
    vllm = Vllm.beside_adapters() if served.adapters else Vllm()
    dialect: Dialect = vllm if owner == "vllm" else OpenAi()
    length = "of unknown length" if served.positions is None else f"of {served.positions:,} tokens"
    say(f"           {served.model} {length}, adapters: {', '.join(served.adapters) or 'none'}")
    return RemoteEngine(
        Elsewhere(url),
        dialect,
        served,
        stop_token_ids=prepared.chosen.template.stop_token_ids,
        key=key,
        media=_media(prepared) if owner == "vllm" else None,
    )


def _media(prepared: Prepared) -> VllmMedia | None:
    return None if prepared.media is None else VllmMedia(prepared.media)


def _model(
    invocation: Invocation, prepared: Prepared, dtype: str, adapters: Mapping[str, str]
) -> Model:
    checkpoint = prepared.checkpoint
    own = {} if checkpoint is None or checkpoint.whole else {LOADED_ADAPTER: checkpoint.path}
    return Model(
        whole_directory(prepared),
        prepared.name,
        dtype,
        {**own, **{name: Path(given).expanduser().resolve() for name, given in adapters.items()}},
        invocation.get(ModelArguments).seed,
        prepared.trust_remote_code,
        prepared.media is not None,
    )


def _launch(invocation: Invocation, backend: Backend, model: Model, key: str, log: Path) -> Launch:
    python = "" if backend.library is None else backend.library.python
    if backend.name == "lmdeploy":
        return lmdeploy_launch(python, model, invocation.get(LmdeployArguments), key=key, log=log)
    on_cpu = backend.library is not None and backend.library.for_cpu
    environment = {}
    if on_cpu and not invocation.given("gpu_memory_utilization"):
        environment = _cpu_cache()
    return vllm_launch(
        python, model, invocation.get(VllmArguments), key=key, log=log, environment=environment
    )


def _cpu_cache() -> dict[str, str]:
    """Bound what vLLM takes for keys and values on a CPU: its own default is nine tenths of all memory."""
    if CPU_CACHE in os.environ:
        return {}
    free = psutil.virtual_memory().available // 2**30
    return {CPU_CACHE: str(max(1, min(MOST_CPU_CACHE, free // 4)))}


def _models(url: str, name: str, key: str | None) -> Mapping[str, object]:
    """Ask a server what it offers."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    try:
        answer = httpx.get(f"{url}/v1/models", headers=headers, timeout=TELL_WITHIN)
        if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise UsageError(
                f"{name} at {url} wants a key: set {KEY} to the right one in the environment"
            )
        answer.raise_for_status()
        found: Mapping[str, object] = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        raise ModelError(
            f"{name} at {url} doesn't say which models it has ({type(error).__name__}: {error})"
        ) from error
    return found


def _log_file(name: str) -> Path:
    """Return a file in a folder of its own, which is the engine's working directory too."""
    moment = time.strftime("%Y%m%d-%H%M%S")
    return cache_directory() / "engines" / f"{name}-{moment}-{os.getpid()}" / "server.log"
