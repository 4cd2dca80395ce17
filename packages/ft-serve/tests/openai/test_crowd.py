"""Two hundred clients that come and go: no answer lost or mixed up, nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from transformers import AutoModelForCausalLM

from ft_core.tokenizer import Tokenizer
from ft_serve import PtEngine

CLIENTS = 200
SECONDS = 120
PROMPTS = [f"count {number} and say hello world" for number in range(24)]
FULL_MIB = 120
"""Room for what allocators keep; a leak of each request's state would be several times that."""


# A client of httpx that gives up while it connects leaves its own socket to the garbage collector. Sockets and
# requests that the server would leave behind are counted below.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
async def test_a_crowd_that_comes_and_goes(
    serve: Any, directory: Path, tokenizer: Tokenizer
) -> None:
    model = AutoModelForCausalLM.from_pretrained(directory)
    engine = PtEngine(model, tokenizer, stop_token_ids={tokenizer.eos_token_id})
    limits = httpx.Limits(max_connections=CLIENTS)
    with serve(engine, max_model_len=512) as running:
        async with httpx.AsyncClient(base_url=running.url, limits=limits, timeout=300) as http:
            expected = [(await answer(http, prompt))[1] for prompt in PROMPTS]
            process, sizes = psutil.Process(), []
            counts = {"whole": 0, "left": 0, "refused": 0}
            end = time.monotonic() + SECONDS

            async def client(number: int) -> None:
                source = random.Random(number)
                while time.monotonic() < end:
                    which = source.randrange(len(PROMPTS))
                    leaves = source.random() < 0.3
                    patience = source.random() * 0.5 if leaves else None
                    try:
                        async with asyncio.timeout(patience):
                            status, text = await answer(
                                http, PROMPTS[which], stream=source.random() < 0.5
                            )
                    except TimeoutError:
                        counts["left"] += 1
                        continue
                    if status == 503:
                        counts["refused"] += 1
                        continue
                    assert status == 200, text
                    assert text == expected[which]
                    counts["whole"] += 1

            async def watch() -> None:
                while time.monotonic() < end:
                    await asyncio.sleep(SECONDS / 12)
                    gc.collect()
                    sizes.append(process.memory_info().rss / 2**20)

            await asyncio.gather(watch(), *(client(number) for number in range(CLIENTS)))
            assert (await answer(http, PROMPTS[0]))[1] == expected[0]
        async with asyncio.timeout(120):
            while running.front.in_flight or engine.active:
                await asyncio.sleep(0.01)
        answering = running.front.answering
        assert (answering.running, answering.waiting, answering.queued_tokens) == (0, 0, 0)
        assert counts["whole"] > CLIENTS
        assert counts["left"] > 20
        third = len(sizes) // 3
        assert max(sizes[-third:]) - max(sizes[: 2 * third]) < FULL_MIB
        print(counts, [round(size) for size in sizes])


async def answer(http: httpx.AsyncClient, prompt: str, *, stream: bool = False) -> tuple[int, str]:
    """Return the status and the text, read as a client reads it."""
    body = {"prompt": prompt, "max_tokens": 12, "temperature": 0, "stream": stream}
    if not stream:
        found = await http.post("/v1/completions", json=body)
        if found.status_code != 200:
            return found.status_code, found.text
        return 200, str(found.json()["choices"][0]["text"])

    async with http.stream("POST", "/v1/completions", json=body) as events:
        if events.status_code != 200:
            return events.status_code, (await events.aread()).decode()
        text, complete = "", False
        async for line in events.aiter_lines():
            if line == "data: [DONE]":
                complete = True
            elif line.startswith("data: "):
                event = json.loads(line[6:])
                assert "error" not in event, event
                text += "".join(choice["text"] for choice in event["choices"])
        assert complete
        return 200, text
