"""Serving SmolLM2-135M in float32 over HTTP: ft-serve beside vLLM, in turns, with the same clients and prompts.

Every server runs in a process of its own; for each number of clients they are measured one after another,
``--rounds`` times, in an order that turns round. The table shows the fastest round of each. "CPU ms a token" is the
processor time of the server's processes, which other load on the machine changes less than the clock.

    python benchmarks/serve.py --clients 1 8 32 --rounds 2 --vllm_python ~/vllm/bin/python

- ``ft``: ``ft-serve deploy`` on ft's own engine.
- ``vllm``: vLLM's own server, in the environment of ``--vllm_python``.
- ``front``: ``ft-serve deploy --infer_backend vllm``, that is our server before vLLM; with ``--front``.
- ``http``: our server before an engine that does nothing but give tokens: what HTTP itself costs a token.

Before that it says how long ``ft-serve deploy`` takes until it is ready, beside the time in which transformers loads
the same weights in a fresh process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from rich.console import Console
from rich.table import Table

from ft_core.hub import fetch
from ft_core.models.resolution import resolve_model
from ft_serve.bench.load import Round, Target, measure, random_prompts
from ft_serve.bench.report import summary

SERVERS = ("ft", "vllm", "front", "http")
MOCK_TOKENS = 256


@dataclass(slots=True)
class Running:
    """A server in a process.

    Attributes:
        name: of the variant.
        url: up to ``/v1``.
        process: of the server.
        ready: seconds until it answered.
    """

    name: str
    url: str
    process: subprocess.Popen[bytes]
    ready: float

    def family(self) -> list[psutil.Process]:
        """Return its processes."""
        own = psutil.Process(self.process.pid)
        return [own, *own.children(recursive=True)]

    def cpu(self) -> float:
        """Return the processor seconds of all of them so far."""
        return sum(sum(process.cpu_times()[:2]) for process in self.family())

    def memory(self) -> float:
        """Return their memory in MiB."""
        return sum(process.memory_info().rss for process in self.family()) / 2**20

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(60)


@dataclass(frozen=True, slots=True)
class Measured:
    """A round of one server."""

    round: Round
    cpu: float
    memory: float


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def command(name: str, model: str, port: int, arguments: argparse.Namespace) -> list[str]:
    """Return the words that start a server."""
    if name == "http":
        return [sys.executable, __file__, "--mock", str(port), "--model_dir", model]
    if name == "vllm":
        return [
            *(arguments.vllm_python, "-m", "vllm.entrypoints.openai.api_server"),
            *("--model", model, "--served-model-name", "model", "--dtype", arguments.dtype),
            *("--max-model-len", "2048", "--max-num-seqs", "64", "--enforce-eager"),
            *("--host", "127.0.0.1", "--port", str(port), "--no-enable-prefix-caching"),
        ]
    short = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}[arguments.dtype]
    words = [sys.executable, "-m", "ft_serve", "deploy", "--model_id_or_path", model]
    words += ["--port", str(port), "--verbose", "false", "--dtype", short, "--log_interval", "-1"]
    if arguments.template_type:
        words += ["--template_type", arguments.template_type]
    if name == "front":
        words += ["--infer_backend", "vllm", "--engine_python", arguments.vllm_python]
        return [*words, "--max_model_len", "2048", "--max_num_seqs", "64", "--enforce_eager"]
    return [*words, "--infer_backend", "pt"]


def start(name: str, model: str, arguments: argparse.Namespace) -> Running:
    """Start a server and wait until it answers."""
    port = free_port()
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(arguments.threads),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    began = time.perf_counter()
    file = f"{arguments.logs}/serve-{name}.log" if arguments.logs else os.devnull
    with Path(file).open("wb") as log:
        words = command(name, model, port, arguments)
        process = subprocess.Popen(words, stdout=log, stderr=log, env=environment)
    url = f"http://127.0.0.1:{port}"
    path = "/health" if name == "vllm" else "/health/ready"
    while True:
        if process.poll() is not None:
            raise SystemExit(f"{name} ended with {process.returncode}; --logs DIR shows why")
        try:
            if httpx.get(f"{url}{path}", timeout=2).status_code == 200:
                break
        except httpx.HTTPError:
            pass
        time.sleep(0.05)
    return Running(name, f"{url}/v1", process, time.perf_counter() - began)


def serve_mock(port: int, model: str) -> None:
    """Run our server before an engine that does nothing; it gives a token whenever the loop is free."""
    from ft_core.templates import TEMPLATES, FieldTemplate
    from ft_core.tokenizer import Tokenizer
    from ft_serve.openai.app import make_app
    from ft_serve.openai.front import Front
    from ft_serve.openai.limits import Limits
    from ft_serve.openai.served import Served
    from ft_serve.openai.server import Address, Server
    from ft_serve.testing import MockEngine

    template = FieldTemplate("chatml", TEMPLATES.get("chatml"), Tokenizer.from_directory(model))
    front = Front(Limits())
    address = Address(port=port)
    server = Server(make_app(front), front, address, address.listen(), print)
    served = Served(engine=MockEngine("x" * 100_000), template=template, name="mock")
    server.run(lambda: served, lambda _: None, log_interval=-1)


LOAD = """
import sys, time
began = time.perf_counter()
import torch
from transformers import AutoModelForCausalLM
AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=getattr(torch, sys.argv[2])).eval()
print(time.perf_counter() - began)
"""


def load_time(model: str, dtype: str) -> float:
    """Return how long a fresh process takes to import transformers and load the weights."""
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", LOAD, model, dtype], check=True, capture_output=True, text=True
    )
    return time.perf_counter() - began


def one(server: Running, prompts: Sequence[list[int]], clients: int, tokens: int) -> Measured:
    """Measure one round."""
    before = server.cpu()
    measured = asyncio.run(measure(Target(server.url), prompts, clients=clients, new_tokens=tokens))
    failed = [item.error for item in measured.seen if item.error]
    if failed:
        raise SystemExit(f"{server.name}: {len(failed)} requests failed: {failed[0]}")
    return Measured(measured, server.cpu() - before, server.memory())


def show(found: dict[tuple[str, int], list[Measured]]) -> None:
    """Print the fastest rounds, with speeds as multiples of vLLM's where it ran."""
    table = Table()
    for heading in (
        *("server", "clients", "tokens/s", "of vLLM's", "first token p50", "p99"),
        *("per token p50", "p99", "CPU ms a token", "peak MiB"),
    ):
        table.add_column(heading, justify="right")
    for (name, clients), rounds in found.items():
        best = max(rounds, key=lambda item: item.round.speed)
        figures = summary(best.round)
        peer = found.get(("vllm", clients))
        ratio = "-"
        if peer and name != "http":
            ratio = f"{best.round.speed / max(item.round.speed for item in peer):.2f}"
        table.add_row(
            *(name, str(clients), f"{best.round.speed:,.1f}", ratio),
            *(f"{figures[f'p{share}_ttft_ms']:,.0f} ms" for share in (50, 99)),
            *(f"{figures[f'p{share}_tpot_ms']:,.2f} ms" for share in (50, 99)),
            f"{1000 * min(i.cpu for i in rounds) / figures['total_output_tokens']:.2f}",
            f"{max(item.memory for item in rounds):,.0f}",
        )
    Console(width=140).print(table)


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model_type", default="smollm2-135m-instruct")
    parser.add_argument("--model_dir", help="directory of a model, instead of --model_type")
    parser.add_argument("--template_type", help="its chat format, where it isn't known")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--input_tokens", type=int, default=64)
    parser.add_argument("--output_tokens", type=int, default=64)
    parser.add_argument("--each", type=int, default=2, help="requests of each client in a round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--vllm_python", help="interpreter of an environment with vLLM")
    parser.add_argument("--front", action="store_true", help="also our server before vLLM")
    parser.add_argument("--servers", nargs="+", choices=SERVERS, help="these alone")
    parser.add_argument("--logs", help="directory for what the servers write")
    parser.add_argument("--json", type=Path, help="write all rounds here")
    parser.add_argument("--mock", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Start the servers, measure them in turns, print the table."""
    arguments = read_arguments()
    model = arguments.model_dir or str(fetch(resolve_model(arguments.model_type, None)))
    if arguments.mock:
        serve_mock(arguments.mock, model)
        return 0
    beside = ("vllm", "front") if arguments.front else ("vllm",)
    names = arguments.servers or ["ft", *(beside if arguments.vllm_python else ()), "http"]
    found: dict[tuple[str, int], list[Measured]] = {}
    with ExitStack() as stack:
        loads = load_time(model, arguments.dtype) if "ft" in names else 0.0
        servers = []
        for name in names:
            server = start(name, model, arguments)
            stack.callback(server.stop)
            servers.append(server)
            one(server, random_prompts(1, 8, seed=0), 1, 4)
        for server in servers:
            if server.name == "ft":
                times = f"{server.ready:.1f} s; transformers loads the weights in {loads:.1f} s"
                print(f"ft is ready after {times}")
        for number in range(arguments.rounds):
            for clients in arguments.clients:
                count = clients * arguments.each
                prompts = random_prompts(count, arguments.input_tokens, seed=number * 100 + clients)
                shift = number % len(servers)
                for server in servers[shift:] + servers[:shift]:
                    tokens = MOCK_TOKENS if server.name == "http" else arguments.output_tokens
                    measured = one(server, prompts, clients, tokens)
                    found.setdefault((server.name, clients), []).append(measured)
                    speed = f"{measured.round.speed:,.1f} tokens/s"
                    print(f"round {number + 1}, {clients} clients: {server.name} {speed}")
    show(dict(sorted(found.items(), key=lambda item: (item[0][1], names.index(item[0][0])))))
    if arguments.json:
        rows: list[dict[str, Any]] = [
            {"server": name, **summary(item.round), "cpu_s": item.cpu, "rss_mib": item.memory}
            for (name, _), rounds in found.items()
            for item in rounds
        ]
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
