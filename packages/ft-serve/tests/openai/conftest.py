"""A real server on a real port, in front of an engine that each test chooses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from openai import OpenAI
from transformers import AutoModelForCausalLM

from ft_core.agents import AGENTS
from ft_core.engine import Engine, Sampling
from ft_core.templates import JinjaTemplate
from ft_core.testing import CHATML, tiny_model
from ft_core.tokenizer import Tokenizer
from ft_serve import PtEngine
from ft_serve.openai.app import make_app
from ft_serve.openai.front import Front
from ft_serve.openai.guard import Access
from ft_serve.openai.limits import Limits
from ft_serve.openai.served import Served
from ft_serve.openai.server import Address, Server

MODEL = "tiny"


@dataclass(frozen=True, slots=True)
class Running:
    """A server that runs.

    Attributes:
        url: without ``/v1``.
        port: of the URL.
        front: its state.
        server: what serves.
        clients: closed with the server, or their sockets wait for the garbage collector.
    """

    url: str
    port: int
    front: Front
    server: Server
    clients: ExitStack

    def client(self, **settings: Any) -> OpenAI:
        """OpenAI's own client, which reports the first failure."""
        given = {"api_key": "none", "max_retries": 0, **settings}
        return self.clients.enter_context(OpenAI(base_url=f"{self.url}/v1", **given))


Serve = Callable[..., AbstractContextManager[Running]]


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / MODEL, "llama", initializer_range=0.3)


@pytest.fixture(scope="session")
def tokenizer(directory: Path) -> Tokenizer:
    return Tokenizer.from_directory(directory)


@pytest.fixture(scope="session")
def serve(tokenizer: Tokenizer) -> Serve:
    @contextmanager
    def serving(
        engine: Engine | None,
        *,
        chat_template: str = CHATML,
        limits: Limits | None = None,
        access: Access | None = None,
        **settings: Any,
    ) -> Iterator[Running]:
        front = Front(limits)
        template = JinjaTemplate(tokenizer, chat_template, agent=AGENTS.get("hermes"))
        given: dict[str, Any] = {
            "name": MODEL,
            "sampling": Sampling(max_new_tokens=2048),
        } | settings
        if engine is not None:
            front.serve(Served(engine=engine, template=template, **given))
        address = Address(port=0)
        listening = address.listen()
        server = Server(make_app(front, access), front, address, listening, lambda _text: None)
        server.start()
        port = listening.getsockname()[1]
        try:
            with ExitStack() as clients:
                yield Running(f"http://127.0.0.1:{port}", port, front, server, clients)
        finally:
            server.stop()

    return serving


@pytest.fixture(scope="module")
def model(directory: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(directory).eval()


@pytest.fixture(scope="module")
def running(serve: Serve, directory: Path, tokenizer: Tokenizer) -> Iterator[Running]:
    """The tiny model behind ft's own engine."""
    weights = AutoModelForCausalLM.from_pretrained(directory)
    engine = PtEngine(weights, tokenizer, stop_token_ids={tokenizer.eos_token_id})
    with serve(engine, max_model_len=512) as server:
        yield server


@pytest.fixture(scope="module")
def client(running: Running) -> Iterator[OpenAI]:
    with running.client() as client:
        yield client
