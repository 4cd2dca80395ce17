"""``ft-serve deploy`` as a process: from its words to its exit code."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch
from openai import OpenAI
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from ft_serve.console import main

QUESTION: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
GREEDY: dict[str, Any] = {"messages": QUESTION, "temperature": 0, "max_tokens": 12}


class Process:
    """A server in a process, with what it wrote."""

    def __init__(self, words: list[str], environ: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ft_serve", "deploy", *words],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **environ},
        )
        self._clients = ExitStack()
        self.lines: list[str] = []
        self._ready = threading.Event()
        self.url = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.lines.append(line.rstrip())
            if found := re.match(r"ready: (\S+) answers", line):
                self.url = found[1]
                self._ready.set()
        self._ready.set()

    def wait_until_ready(self) -> None:
        assert self._ready.wait(300)
        assert self.url, self.text

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def client(self, key: str = "none") -> OpenAI:
        return self._clients.enter_context(OpenAI(base_url=self.url, api_key=key, max_retries=0))

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def end(self) -> int:
        code = self._process.wait(120)
        self._reader.join()
        self._clients.close()
        return code

    def kill(self) -> None:
        self._process.kill()
        self.end()
        assert self._process.stderr is not None
        self._process.stderr.close()


Deploy = Callable[..., AbstractContextManager[Process]]


@pytest.fixture
def deploy(directory: Path) -> Deploy:
    @contextmanager
    def deployed(*words: object, **environ: str) -> Iterator[Process]:
        given = ["--model_id_or_path", str(directory), "--template_type", "chatml"]
        settings = ["--port", "0", "--dtype", "fp32"]
        process = Process([*given, *settings, *map(str, words)], environ)
        try:
            process.wait_until_ready()
            yield process
        finally:
            process.kill()

    return deployed


@pytest.mark.slow
def test_it_answers_and_stops_without_losing_an_answer(deploy: Deploy) -> None:
    with deploy("--max_new_tokens", 400, "--temperature", 0, "--log_interval", 1) as process:
        client = process.client()
        assert [card.id for card in client.models.list()] == ["tiny"]
        stream = client.chat.completions.create(
            model="tiny", messages=QUESTION, stream=True, extra_body={"ignore_eos": True}
        )
        first = next(iter(stream))
        process.signal(signal.SIGTERM)
        chunks = [first, *stream]
        assert chunks[-1].choices[0].finish_reason == "length"
        assert process.end() == 0
    assert "stopping; 1 requests are under way" in process.text
    assert "Traceback" not in process.text
    assert "What is the capital of France" in process.text  # verbose is on by default


@pytest.mark.slow
def test_a_second_signal_stops_at_once(deploy: Deploy) -> None:
    with deploy("--drain_timeout", 600, "--verbose", "false") as process:
        client = process.client()
        stream = client.chat.completions.create(
            model="tiny",
            messages=QUESTION,
            stream=True,
            extra_body={"ignore_eos": True, "max_tokens": 490},
        )
        next(iter(stream))
        process.signal(signal.SIGINT)
        process.signal(signal.SIGINT)
        assert process.end() == 0
        stream.close()
    assert "What is the capital of France" not in process.text


def adapter(base: Path, directory: Path, seed: int) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
        adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if "lora_" in name:
                    parameter.normal_(std=0.5)
        adapted.save_pretrained(str(directory))
    return directory


@pytest.mark.slow
def test_adapters_answer_by_their_names(deploy: Deploy, directory: Path, tmp_path: Path) -> None:
    one, two = (adapter(directory, tmp_path / f"number{seed}", seed) for seed in (1, 2))

    def answer(process: Process, model: str | None) -> str | None:
        body: dict[str, Any] = {**GREEDY, **({} if model is None else {"model": model})}
        found = httpx.post(f"{process.url}/chat/completions", timeout=120, json=body).json()
        return str(found["choices"][0]["message"]["content"])

    with deploy() as plain:
        base = answer(plain, "tiny")
    with deploy("--ckpt_dir", one, "--lora_modules", f"two={two}") as process:
        cards = {card.id: card.to_dict() for card in process.client().models.list()}
        assert list(cards) == ["default-lora", "tiny", "two"]
        assert cards["two"]["parent"] == "tiny"
        assert not [card for card in cards.values() if str(tmp_path) in str(card)]
        texts = [answer(process, name) for name in ("tiny", "default-lora", "two")]
        assert len(set(texts)) == 3
        assert texts[0] == base
        assert answer(process, None) == texts[1]


@pytest.mark.slow
def test_keys_come_from_the_environment_and_hosts_are_checked(deploy: Deploy) -> None:
    with deploy(FT_API_KEY="one,two") as process:
        assert process.client("two").models.list().data
        with pytest.raises(openai.AuthenticationError):
            process.client("three").models.list()
        rebound = httpx.get(f"{process.url}/models", timeout=120, headers={"host": "evil.example"})
        assert rebound.status_code == 403
    assert "one" not in re.split(r"\W+", process.text)


@pytest.mark.slow
def test_the_network_without_a_key_is_warned_of(deploy: Deploy) -> None:
    with deploy("--host", "0.0.0.0") as process:
        port = process.url.rpartition(":")[2]
        body = {**GREEDY, "max_tokens": 1}
        url = f"http://127.0.0.1:{port}/chat/completions"
        assert httpx.post(url, json=body, timeout=120).status_code == 200
    assert "CAN USE THE MODEL" in process.text
    assert "capital of France" not in process.text


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    key, file = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", key, "-out", file),
        ],
        check=True,
        capture_output=True,
    )
    return key, file


@pytest.mark.slow
def test_it_speaks_https(deploy: Deploy, certificate: tuple[Path, Path]) -> None:
    import ssl

    key, file = certificate
    with deploy("--ssl_keyfile", key, "--ssl_certfile", file) as process:
        assert process.url.startswith("https://")
        context = ssl.create_default_context(cafile=str(file))
        found = httpx.get(f"{process.url}/models", timeout=120, verify=context)
        assert found.json()["data"][0]["id"] == "tiny"


def refused(capsys: pytest.CaptureFixture[str], directory: Path, *words: object) -> str:
    given = ["deploy", "--model_id_or_path", str(directory), *map(str, words)]
    assert main(given) == 2
    return capsys.readouterr().err


def test_a_port_in_use_names_its_user(capsys: pytest.CaptureFixture[str], directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = refused(capsys, directory, "--port", port)
    assert f"--port {port}" in text
    assert f"process {os.getpid()}" in text


@pytest.mark.parametrize("half", ["--ssl_keyfile", "--ssl_certfile"])
def test_half_of_a_pair_is_refused(
    capsys: pytest.CaptureFixture[str], directory: Path, half: str
) -> None:
    text = refused(capsys, directory, half, "x.pem")
    assert "--ssl_keyfile" in text
    assert "--ssl_certfile" in text


def test_a_certificate_that_is_none_is_refused(
    capsys: pytest.CaptureFixture[str], directory: Path, tmp_path: Path
) -> None:
    (tmp_path / "x.pem").write_text("nothing")
    pair = ("--ssl_keyfile", tmp_path / "x.pem", "--ssl_certfile", tmp_path / "x.pem")
    assert "x.pem" in refused(capsys, directory, "--port", 0, *pair)


def test_flags_that_cut_requests_are_refused(
    capsys: pytest.CaptureFixture[str], directory: Path
) -> None:
    text = refused(capsys, directory, "--truncation_strategy", "truncation_left")
    assert "--truncation_strategy truncation_left" in text
