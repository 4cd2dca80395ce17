"""Answering with SmolLM2-135M in float32: ft's engine against transformers and vLLM, in turns, on the same prompts.

Each client sends one prompt of ``--prompt_tokens`` random tokens at the same moment and gets ``--new_tokens``
greedy tokens back. Every variant runs in a process of its own, one after another, ``--rounds`` times, so that
a busy minute hits all of them. The table shows the fastest round of each; "CPU s" is the processor time of that
round, which other load on the machine changes less than the clock; "same" is the share of tokens that equal those
of ``generate``, up to the first one of an answer that differs.

    python benchmarks/engine.py --clients 1 8 32 --rounds 2

- ``ft``: ``PtEngine`` with its defaults.
- ``generate``: transformers' ``generate`` with all prompts as one batch (static batching).
- ``continuous``: transformers' continuous batching.
- ``vllm``: vLLM in the environment of ``--vllm_python``, which needs nothing of ft.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from turns import run_in_process, turns

VARIANTS = ("ft", "generate", "continuous")


@dataclass(frozen=True, slots=True)
class Job:
    """What every variant does.

    Attributes:
        model: directory of the model.
        prompts: token ids, one list a client.
        clients: how many of the prompts are sent together, one measurement each.
        new_tokens: of each answer.
        threads: of torch.
        dtype: of the weights, as torch names it.
    """

    model: str
    prompts: list[list[int]]
    clients: list[int]
    new_tokens: int
    threads: int
    dtype: str


@dataclass(frozen=True, slots=True)
class Measured:
    """One measurement.

    Attributes:
        seconds: until the last answer was complete.
        cpu: processor seconds of the process meanwhile.
        first: seconds until the first token of each client.
        answers: the tokens of each client.
    """

    seconds: float
    cpu: float
    first: list[float]
    answers: list[list[int]]


Run = Callable[[list[list[int]]], Measured]


def main() -> int:
    """Run the variants in turns and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model_type", default="smollm2-135m-instruct")
    parser.add_argument("--model_dir", help="directory of a model, instead of --model_type")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--prompt_tokens", type=int, default=64)
    parser.add_argument("--new_tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--vllm_python", help="interpreter of an environment with vLLM")
    parser.add_argument("--json", type=Path, help="write all rounds here")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        run_worker(*arguments.worker)
        return 0
    variants = [*arguments.variants, *(["vllm"] if arguments.vllm_python else [])]
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in variants}
    with tempfile.TemporaryDirectory() as directory:
        job = prepare_job(arguments, Path(directory))
        file = Path(directory) / "job.json"
        file.write_text(json.dumps(asdict(job)))
        for number, variant in turns(variants, arguments.rounds):
            python = arguments.vllm_python if variant == "vllm" else sys.executable
            result = run_in_process(__file__, variant, file, python=python)
            rounds[variant].append(result)
            shown = ", ".join(
                f"{clients}: {speed(job, result, clients):.1f}" for clients in job.clients
            )
            print(f"round {number}: {variant}: tokens/s {shown}", file=sys.stderr)
    show(job, rounds)
    if arguments.json:
        arguments.json.write_text(json.dumps(rounds))
    return 0


def prepare_job(arguments: argparse.Namespace, directory: Path) -> Job:
    """Draw the prompts, and write the model where every variant can read it."""
    import torch

    from ft_core.arguments import ModelArguments, TemplateArguments
    from ft_core.models.loading import load_model
    from ft_core.prepare import prepare

    given = (
        {"model_id_or_path": arguments.model_dir}
        if arguments.model_dir
        else {"model_type": arguments.model_type}
    )
    prepared = prepare(ModelArguments(**given), TemplateArguments())
    target = directory / "model"
    load_model(prepared.directory, dtype=getattr(torch, arguments.dtype)).save_pretrained(target)
    prepared.tokenizer.save(target)
    source = random.Random(0)
    vocabulary = prepared.tokenizer.vocab_size
    prompts = [
        [source.randrange(100, vocabulary) for _ in range(arguments.prompt_tokens)]
        for _ in range(max(arguments.clients))
    ]
    return Job(
        str(target),
        prompts,
        sorted(arguments.clients),
        arguments.new_tokens,
        arguments.threads,
        arguments.dtype,
    )


def run_worker(variant: str, file: str, directory: str) -> None:
    """Measure one variant for each number of clients."""
    job = Job(**json.loads(Path(file).read_text()))
    run = {
        "ft": prepare_ft,
        "generate": prepare_generate,
        "continuous": prepare_continuous,
        "vllm": prepare_vllm,
    }[variant](job)
    run(job.prompts[:1])
    if on_gpu():  # the first pass of each shape loads its kernels
        for clients in job.clients:
            run(job.prompts[:clients])
    measured = {clients: asdict(run(job.prompts[:clients])) for clients in job.clients}
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    (Path(directory) / "result.json").write_text(
        json.dumps({"measured": measured, "memory": memory})
    )


def on_gpu() -> bool:
    """Return whether there is a GPU."""
    import torch

    return torch.cuda.is_available()


def load(job: Job) -> Any:
    """Load the model with torch, on a GPU where there is one."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(job.threads)
    device = "cuda" if on_gpu() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(
        job.model, dtype=getattr(torch, job.dtype), attn_implementation="sdpa"
    )
    return model.to(device).eval()


def prepare_ft(job: Job) -> Run:
    """Ft's engine; each client reads its own stream."""
    from ft_core.engine import GenerationRequest, Sampling
    from ft_core.tokenizer import Tokenizer
    from ft_serve import PtEngine

    engine = PtEngine(load(job), Tokenizer.from_directory(job.model), stop_token_ids=[])
    sampling = Sampling(max_new_tokens=job.new_tokens)

    async def client(prompt: list[int], start: float) -> tuple[float, list[int]]:
        first, answer = 0.0, []
        async for event in engine.generate(GenerationRequest(prompt, sampling)):
            first = first or time.perf_counter() - start
            answer += event.token_ids
        return first, answer

    async def all_clients(prompts: list[list[int]]) -> Measured:
        start, cpu = time.perf_counter(), time.process_time()
        results = await asyncio.gather(*(client(prompt, start) for prompt in prompts))
        seconds = time.perf_counter() - start
        cpu = time.process_time() - cpu
        return Measured(seconds, cpu, [first for first, _ in results], [a for _, a in results])

    return lambda prompts: asyncio.run(all_clients(prompts))


class FirstToken:
    """A streamer that notes when the first generated token came."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._calls = 0
        self.seconds = 0.0

    def put(self, tokens: object) -> None:
        """Take the prompt first, then each token."""
        self._calls += 1
        if self._calls == 2:
            self.seconds = time.perf_counter() - self._start

    def end(self) -> None:
        """Be told of the end."""


def prepare_generate(job: Job) -> Run:
    """Transformers' ``generate`` on all prompts, which have one length, at once."""
    import torch

    model = load(job)

    def run(prompts: list[list[int]]) -> Measured:
        ids = torch.tensor(prompts, device=model.device)
        streamer = FirstToken()
        start, cpu = time.perf_counter(), time.process_time()
        output = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            generation_config=greedy(job),
            streamer=streamer,
        )
        seconds = time.perf_counter() - start
        answers = output[:, ids.shape[1] :].tolist()
        cpu = time.process_time() - cpu
        return Measured(seconds, cpu, [streamer.seconds] * len(prompts), answers)

    return run


def prepare_continuous(job: Job) -> Run:
    """Transformers' continuous batching, with a cache that holds all clients."""
    from transformers import ContinuousBatchingConfig

    model = load(job)
    length = len(job.prompts[0]) + job.new_tokens
    blocks = (length // 32 + 2) * len(job.prompts)
    manager = model.init_continuous_batching(
        generation_config=greedy(job),
        continuous_batching_config=ContinuousBatchingConfig(
            page_size=32, num_blocks=blocks, max_batch_tokens=512, use_cuda_graph=False
        ),
    )
    manager.start()

    def run(prompts: list[list[int]]) -> Measured:
        first: dict[str, float] = {}
        answers: dict[str, list[int]] = {}
        start, cpu = time.perf_counter(), time.process_time()
        names = [f"{start}-{place}" for place in range(len(prompts))]
        for name, prompt in zip(names, prompts, strict=True):
            manager.add_request(
                prompt, request_id=name, max_new_tokens=job.new_tokens, streaming=True
            )
        while len(answers) < len(prompts):
            output = manager.get_result(timeout=600)
            if output is None:
                raise RuntimeError("continuous batching gave no answer")
            if output.generated_tokens:
                first.setdefault(output.request_id, time.perf_counter() - start)
            if output.is_finished():
                answers[output.request_id] = list(output.generated_tokens)
        seconds = time.perf_counter() - start
        cpu = time.process_time() - cpu
        shown = [answers[name] for name in names]
        return Measured(seconds, cpu, [first[name] for name in names], shown)

    return run


def prepare_vllm(job: Job) -> Run:
    """VLLM's engine without a server; its first tokens aren't timed."""
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB, or it takes a share of all memory
    from vllm import LLM, SamplingParams

    model = LLM(job.model, dtype=job.dtype, enforce_eager=True, max_model_len=2048)
    sampling = SamplingParams(temperature=0, max_tokens=job.new_tokens, ignore_eos=True)

    def run(prompts: list[list[int]]) -> Measured:
        inputs = [{"prompt_token_ids": prompt} for prompt in prompts]
        start, cpu = time.perf_counter(), time.process_time()
        outputs = model.generate(inputs, sampling, use_tqdm=False)
        seconds = time.perf_counter() - start
        cpu = time.process_time() - cpu
        return Measured(seconds, cpu, [], [list(item.outputs[0].token_ids) for item in outputs])

    return run


def greedy(job: Job) -> Any:
    """Return transformers' settings for answers of exactly ``job.new_tokens`` tokens."""
    from transformers import GenerationConfig

    return GenerationConfig(
        do_sample=False, max_new_tokens=job.new_tokens, eos_token_id=None, pad_token_id=0
    )


def speed(job: Job, result: dict[str, Any], clients: int) -> float:
    """Return generated tokens per second."""
    return clients * job.new_tokens / float(result["measured"][str(clients)]["seconds"])


def quantile(values: Sequence[float], share: float) -> float:
    """Return the nearest value at this share of the ordered ones."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def same_share(answers: list[list[int]], others: list[list[int]]) -> float:
    """Return the share of tokens before the first one of each answer that differs."""
    same = 0
    for one, other in zip(answers, others, strict=True):
        pairs = enumerate(zip(one, other, strict=True))
        same += next((place for place, (a, b) in pairs if a != b), len(one))
    return same / max(1, sum(map(len, answers)))


def show(job: Job, rounds: dict[str, list[dict[str, Any]]]) -> None:
    """Print the fastest round of each variant for each number of clients."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{len(job.prompts[0])} tokens in, {job.new_tokens} out, {job.dtype}")
    for column in (
        "clients",
        "variant",
        "tokens/s",
        "ft is",
        "CPU s",
        "TTFT p50/p99 (s)",
        "GiB",
        "same",
    ):
        table.add_column(column, justify="left" if column == "variant" else "right")
    for clients in job.clients:
        best = {
            name: max(results, key=lambda result: speed(job, result, clients))
            for name, results in rounds.items()
        }
        for name, result in best.items():
            measured = result["measured"][str(clients)]
            rate, first = speed(job, result, clients), measured["first"]
            ratio = speed(job, best["ft"], clients) / rate if "ft" in best else None
            reference = best.get("generate")
            wanted = None if reference is None else reference["measured"][str(clients)]["answers"]
            table.add_row(
                str(clients),
                name,
                f"{rate:.1f}",
                "" if ratio is None else f"{ratio:.2f}×",
                f"{measured['cpu']:.1f}",
                f"{quantile(first, 0.5):.2f} / {quantile(first, 0.99):.2f}" if first else "",
                f"{result['memory']:.2f}",
                "" if wanted is None else f"{100 * same_share(measured['answers'], wanted):.1f} %",
            )
        table.add_section()
    Console(width=100).print(table)


if __name__ == "__main__":
    sys.exit(main())
