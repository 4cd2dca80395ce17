"""A real browser, and the pages of ft served by real commands."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Response, expect, sync_playwright

from ft_core.testing import tiny_model
from ft_ui.studio.jobs import Jobs, send_stop
from ft_ui.studio.program import Program
from ft_ui.studio.workplace import Workplace

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)  # fmt: skip
PATIENCE = 120_000
"""Milliseconds to wait for what a busy machine may take long for."""

expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, or the Chrome that is there."""
    found = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("there is no browser: make setup-browser")
        pytest.skip("there is no browser: make setup-browser")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=[*QUIET])
        yield started
        started.close()


@dataclass
class Watched:
    """What a page did that it shouldn't: errors, requests elsewhere, failed answers."""

    faults: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> None:
        page.on("pageerror", lambda error: self.faults.append(f"error {error}"))
        page.on(
            "console",
            lambda said: self.faults.append(said.text) if said.type == "error" else None,
        )
        page.on("request", lambda request: self.check_address(request.url))
        page.on("response", self.check_answer)

    def check_address(self, url: str) -> None:
        place = urlsplit(url)
        if place.scheme not in ("data", "blob") and place.hostname != "127.0.0.1":
            self.faults.append(f"asked {url}")

    def check_answer(self, answer: Response) -> None:
        if answer.status >= 400:
            self.faults.append(f"{answer.status} {answer.url}")


@pytest.fixture
def contexts() -> Iterator[list[BrowserContext]]:
    """The windows that are open."""
    opened: list[BrowserContext] = []
    yield opened
    close_all(opened)


def close_all(contexts: list[BrowserContext]) -> None:
    """Close the windows: a page asks its server time and again as long as it is open."""
    while contexts:
        contexts.pop().close()


@pytest.fixture
def open_page(browser: Browser, contexts: list[BrowserContext]) -> Iterator[Callable[..., Page]]:
    """Open pages; at the end none of them may have had an error or asked another host."""
    watched = Watched()

    def opened(url: str, width: int = 1280, *, dark: bool = False) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if dark else "light",
            locale="en-US",
        )
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        watched.watch(page)
        page.goto(url)
        return page

    yield opened
    close_all(contexts)
    assert watched.faults == []


def picture(page: Page, name: str) -> None:
    """Keep a picture of the page for the documents, where ``make screenshots`` asks for it."""
    if directory := os.environ.get("FT_SCREENSHOTS"):
        page.screenshot(path=Path(directory, f"{name}.png"))


@pytest.fixture
def take_picture() -> Callable[[Page, str], None]:
    """Keep pictures for the documents."""
    return picture


@dataclass
class Served:
    """A page's server.

    Attributes:
        url: where it is.
        process: its process.
    """

    url: str
    process: subprocess.Popen[str]

    def end(self) -> None:
        """Press Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)


FT = ("-m", "ft_cli")


@contextmanager
def serving(*words: object, cwd: Path, program: Sequence[str] = FT) -> Iterator[Served]:
    """Run a command that serves a page, until the end of the block; ``program`` is what Python runs."""
    process = subprocess.Popen(
        [sys.executable, *program, *map(str, words)],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "NO_PROXY": "*"},
    )
    assert process.stderr is not None
    said: list[str] = []
    try:
        for line in process.stderr:
            said.append(line)
            if (found := re.search(r"open\s+(http://\S+)", line)) is not None:
                yield Served(found[1], process)
                break
        else:
            pytest.fail("".join(said))
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
        process.stderr.close()


@pytest.fixture
def serve(contexts: list[BrowserContext]) -> Callable[..., object]:
    """Serve a page by a command; its windows are closed before it ends."""

    @contextmanager
    def serve(*words: object, cwd: Path, program: Sequence[str] = FT) -> Iterator[Served]:
        with serving(*words, cwd=cwd, program=program) as served:
            try:
                yield served
            finally:
                close_all(contexts)

    return serve


def end_jobs(root: Path) -> None:
    """End what a studio started and a failed test left: it outlives the studio."""
    jobs = Jobs(Workplace(root), Program("ft", (sys.executable, "-m", "ft_cli"), {}))
    for job in jobs.all():
        if job.alive:
            send_stop(job.data["pid"], job.data["pid_start"], force=True)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A working directory with a tiny model and rows."""
    tiny_model(tmp_path / "tiny-llama", "llama")
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"say {first}{second}"},
                {"role": "assistant", "content": f"{first}{second} indeed"},
            ]
        }
        for first in ("ba", "ce", "di", "fo", "gu", "ha", "je", "ki")
        for second in ("lo", "mu", "ne", "po", "ru", "sa", "ti", "vo")
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "rows.jsonl").write_text(text, encoding="utf-8")
    yield tmp_path
    end_jobs(tmp_path)


@pytest.fixture
def tuned(ft: Callable[..., object], place: Path) -> Path:
    """A checkpoint whose answers end like those of its rows, with a d."""
    ft(
        *("sft", "--model_id_or_path", "tiny-llama", "--dataset", "rows.jsonl", "--dtype", "fp32"),
        *("--max_steps", 200, "--learning_rate", 5e-3, "--lora_rank", 16, "--lora_alpha", 256),
        *("--batch_size", 8, "--gradient_accumulation_steps", 1, "--target_modules", "ALL"),
        *("--dataset_test_ratio", 0, "--save_steps", 200),
        cwd=place,
    )
    return next(place.glob("output/tiny-llama/v0-*/checkpoint-200"))
