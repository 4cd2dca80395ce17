"""Servers as child processes: started, watched, started again, and gone with whoever started them."""

from __future__ import annotations

import asyncio
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

import ft_serve.testing_server
from ft_core.engine import Sampling
from ft_core.errors import ModelError
from ft_serve.engines.child.process import ChildServer, Launch, State
from ft_serve.engines.remote.completions import Vllm
from ft_serve.engines.remote.engine import RemoteEngine, Served
from ft_serve.testing import complete

pytestmark = pytest.mark.slow

PROGRAM = ft_serve.testing_server.__file__
WAIT = 60.0


def launch(directory: Path, *further: str) -> Launch:
    words = (sys.executable, PROGRAM, "--served-model-name", "model", *further)
    return Launch(
        name="the stand-in",
        command=lambda port: [*words, "--port", str(port)],
        log=directory / "server.log",
        poll=0.05,
        check_every=0.1,
        back_off=0.01,
        grace=5.0,
    )


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ChildServer]:
    server = ChildServer(launch(tmp_path))
    yield server
    server.close()


def processes(log: Path) -> list[int]:
    """Return what the servers of this log have said of their processes and helpers."""
    lines = re.findall(r"^processes (\d+) (\d+)$", log.read_text(), re.MULTILINE)
    return [int(number) for line in lines for number in line]


def wait_for_end(numbers: Sequence[int]) -> None:
    """Wait until all these processes have ended; fail if one goes on."""
    for number in numbers:
        try:
            handle = os.pidfd_open(number)
        except ProcessLookupError:
            continue
        try:
            ended, _, _ = select.select([handle], [], [], WAIT)
            assert ended, f"process {number} goes on"
        finally:
            os.close(handle)


def engine_of(server: ChildServer) -> RemoteEngine:
    return RemoteEngine(server, Vllm(), Served("model", (), 4096), stop_token_ids=[2])


ASKED = Sampling(max_new_tokens=5)


def test_it_answers_and_is_gone_with_all_it_started(tmp_path: Path) -> None:
    server = ChildServer(launch(tmp_path))
    server.wait_ready(WAIT)
    engine = engine_of(server)
    assert engine.ready
    assert len(asyncio.run(complete(engine, [1, 2], ASKED))) == 5
    asyncio.run(engine.close())
    assert server.state is State.CLOSED
    numbers = processes(tmp_path / "server.log")
    assert len(numbers) == 2
    wait_for_end(numbers)
    with pytest.raises(ModelError, match="the engine was closed"):
        asyncio.run(complete(engine, [1, 2], ASKED))


def test_after_a_crash_it_is_started_again(server: ChildServer, tmp_path: Path) -> None:
    server.wait_ready(WAIT)
    engine = engine_of(server)
    want = asyncio.run(complete(engine, [1, 2], ASKED))
    before = processes(tmp_path / "server.log")
    with pytest.raises(httpx.HTTPError):
        httpx.post(f"{server.url}/crash", json={})
    wait_for_end(before)  # the helper too, which the server has left behind
    server.wait_started(2, WAIT)
    server.wait_ready(WAIT)
    assert asyncio.run(complete(engine, [1, 2], ASKED)) == want
    assert len(processes(tmp_path / "server.log")) == 4


def test_one_that_does_not_start_says_why(tmp_path: Path) -> None:
    server = ChildServer(launch(tmp_path, "--enforce-eager"))
    with pytest.raises(ModelError) as raised:
        server.wait_ready(WAIT)
    message = str(raised.value)
    assert "the stand-in ended with exit code 1" in message
    assert "RuntimeError: told not to start" in message
    assert str(tmp_path / "server.log") in message
    assert (server.state, server.starts) == (State.DEAD, 1)
    server.close()


def test_one_that_never_gets_ready_is_given_up(tmp_path: Path) -> None:
    settings = replace(launch(tmp_path), health="/nowhere", start_within=0.5)
    server = ChildServer(replace(settings, command=lambda port: ["sleep", "1000"]))
    with pytest.raises(ModelError, match="was not ready within"):
        server.wait_ready(WAIT)
    server.close()


def test_one_that_keeps_ending_is_given_up(tmp_path: Path) -> None:
    first = tmp_path / "started"
    program = f"test -e {first} && exit 3; touch {first}; exec {sys.executable} {PROGRAM} "
    settings = launch(tmp_path)

    def command(port: int) -> list[str]:
        return ["sh", "-c", program + f"--served-model-name model --port {port}"]

    server = ChildServer(replace(settings, command=command, most_restarts=2))
    server.wait_ready(WAIT)
    with pytest.raises(httpx.HTTPError):
        httpx.post(f"{server.url}/crash", json={})
    server.wait_started(3, WAIT)
    with pytest.raises(ModelError, match="ended with exit code 3"):
        server.wait_ready(WAIT)
    assert server.starts == 3
    server.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_when_its_owner_is_killed(tmp_path: Path, number: int) -> None:
    program = f"""
import sys
from pathlib import Path
from ft_serve.engines.child.process import ChildServer, Launch
words = [sys.executable, {PROGRAM!r}, "--served-model-name", "model", "--port"]
launch = Launch("it", lambda port: [*words, str(port)], Path({str(tmp_path)!r}) / "server.log", grace=5.0)
server = ChildServer(launch)
server.wait_ready(60)
print("ready", flush=True)
sys.stdin.read()
"""
    owner = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdin is not None
    assert owner.stdout is not None
    assert owner.stdout.readline() == "ready\n"
    owner.send_signal(number)
    owner.wait(WAIT)
    owner.stdin.close()
    owner.stdout.close()
    wait_for_end(processes(tmp_path / "server.log"))


def test_the_keeper_itself_may_be_killed(server: ChildServer, tmp_path: Path) -> None:
    server.wait_ready(WAIT)
    main, helper = processes(tmp_path / "server.log")
    keeper = int(Path(f"/proc/{main}/status").read_text().split("PPid:")[1].split()[0])
    os.kill(keeper, signal.SIGKILL)
    wait_for_end([main])
    os.kill(helper, signal.SIGKILL)  # of which nobody knows any more
    server.wait_started(2, WAIT)
    server.wait_ready(WAIT)
