"""``ft-serve bench``: ask a server as many clients at once would, and say how fast it was."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ft_core.command import ArgumentGroup, Command, Invocation
from ft_core.command.group import flag
from ft_core.errors import FtError, UsageError
from ft_core.prepare import to_stderr

if TYPE_CHECKING:
    from ft_serve.bench.load import Round


class BenchArguments(ArgumentGroup):
    """Which server, and what it is asked."""

    title: ClassVar[str] = "bench"

    url: str = "http://127.0.0.1:8000/v1"
    """Address of a server with OpenAI's completions, up to /v1."""

    model: str | None = None
    """What the server calls the model; none takes the first of its list."""

    api_key: str | None = flag(None, env="FT_API_KEY", secret=True)
    """Key of the server."""

    clients: list[int] = flag([1, 8, 32], commas=True)
    """How many ask at the same time, one round for each number."""

    requests: int = flag(0, ge=0)
    """Requests of a round; 0 sends two for each client."""

    input_tokens: int = flag(64, ge=1)
    """Tokens of each prompt, drawn at random."""

    output_tokens: int = flag(64, ge=1)
    """Tokens of each answer."""

    vocabulary: int = flag(6000, ge=16)
    """Prompts are made of token ids below this."""

    seed: int = 42
    """Of the prompts."""

    json_file: str | None = None
    """File for all figures."""

    def check(self, given: frozenset[str]) -> None:
        """Refuse rounds without clients and what is no address."""
        if not self.clients or min(self.clients) < 1:
            raise UsageError("--clients takes numbers from 1")
        if not self.url.startswith(("http://", "https://")):
            raise UsageError(f"--url {self.url}: write an address like http://127.0.0.1:8000/v1")


def run(invocation: Invocation) -> None:
    """Run the rounds and print the table."""
    from rich.console import Console

    from ft_serve.bench.report import summary, table

    flags = invocation.get(BenchArguments)
    rounds = asyncio.run(_rounds(flags))
    # Where there is no terminal, a line holds what the table needs.
    Console(width=None if sys.stdout.isatty() else 160).print(table(rounds))
    if flags.json_file is not None:
        text = json.dumps([summary(measured) for measured in rounds], indent=2)
        Path(flags.json_file).write_text(text + "\n", encoding="utf-8")
    failed = [item.error for measured in rounds for item in measured.seen if item.error]
    if failed:
        raise FtError(f"{len(failed)} requests failed; the first: {failed[0]}")


async def _rounds(flags: BenchArguments) -> list[Round]:
    from ft_serve.bench.load import Target, measure, random_prompts

    target = Target(flags.url.rstrip("/"), flags.model, flags.api_key)
    rounds = []
    for number, clients in enumerate(flags.clients):
        count = flags.requests or 2 * clients
        prompts = random_prompts(
            count, flags.input_tokens, seed=flags.seed + number, vocabulary=flags.vocabulary
        )
        if number == 0:  # the first request of all pays for what the server sets up
            await measure(target, prompts[:1], clients=1, new_tokens=2)
        measured = await measure(target, prompts, clients=clients, new_tokens=flags.output_tokens)
        to_stderr(f"{clients} clients: {measured.speed:.1f} tokens/s")
        rounds.append(measured)
    return rounds


COMMAND = Command(
    "bench",
    "Measure a server as many clients at once see it.",
    (BenchArguments,),
    run,
    epilog="ft-serve bench --url http://127.0.0.1:8000/v1 --clients 1 8 32",
)
