"""Pushing to both hubs: Hugging Face by its own client against a server here, ModelScope by what its client is told."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from huggingface_hub import constants

from ft_core.errors import DependencyError, HubError, UsageError
from ft_core.hub import open_destination, push
from ft_core.hub.testing import Shelf, serve


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Shelf]:
    state = Shelf()
    with serve(state) as address:
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "MODELSCOPE_API_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        yield state


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    directory = tmp_path / "checkpoint-2"
    directory.mkdir()
    for name in ("adapter_config.json", "optimizer.pt", "rng_state_0.pth"):
        (directory / name).write_text(name, encoding="utf-8")
    return directory


@pytest.mark.parametrize("private", [False, True])
def test_a_repository_is_made_once_and_filled(
    shelf: Shelf, checkpoint: Path, private: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "right")
    for _ in range(2):
        destination = open_destination("tiny-lora", hub="huggingface", private=private)
    assert (str(destination), destination.repository) == (
        "finch/tiny-lora on Hugging Face",
        "finch/tiny-lora",
    )
    assert "right" not in repr(destination)
    assert shelf.private == ({"finch/tiny-lora"} if private else set())
    push(destination, checkpoint, message="one", leave_out=("optimizer.pt", "rng_state*.pth"))
    files = shelf.repositories["finch/tiny-lora"]
    assert files == {"adapter_config.json": b"adapter_config.json"}
    push(destination, checkpoint, message="two", under="last")
    assert {"last/optimizer.pt", "last/rng_state_0.pth"} <= set(files)


def test_a_given_token_and_owner_go_first(
    shelf: Shelf, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "wrong")
    destination = open_destination("team/model", hub="huggingface", token="right")
    push(destination, checkpoint, message="one")
    assert "optimizer.pt" in shelf.repositories["team/model"]


def test_without_a_token_nothing_is_asked(shelf: Shelf) -> None:
    with pytest.raises(UsageError, match=r"--push_to_hub needs a token of Hugging Face.*HF_TOKEN"):
        open_destination("a", hub="huggingface")
    with pytest.raises(UsageError, match=r"ModelScope.*MODELSCOPE_API_TOKEN"):
        open_destination("a", hub="modelscope")


def test_refusals_name_the_repository_and_hide_the_token(shelf: Shelf, checkpoint: Path) -> None:
    with pytest.raises(HubError, match="tiny can't be pushed to Hugging Face") as raised:
        open_destination("tiny", hub="huggingface", token="secret-token")
    assert "secret-token" not in str(raised.value) and "on disk" not in str(raised.value)
    destination = open_destination("tiny", hub="huggingface", token="right")
    shelf.broken = True
    with pytest.raises(HubError, match=r"finch/tiny can't be pushed.*on disk in .*checkpoint-2"):
        push(destination, checkpoint, message="one")


class FakeError(Exception):
    """As the client of ModelScope raises."""


@pytest.fixture
def modelscope(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Put a client in the place of ModelScope's, and return what it is told."""
    told: list[tuple[Any, ...]] = []

    class User:
        username = "finch"

    class Api:
        def __init__(self, *, token: str) -> None:
            self.token = token

        def whoami(self) -> User:
            if self.token == "wrong":
                raise FakeError("token rejected")
            return User()

        def repo_exists(self, *what: str) -> bool:
            return what[0] == "team/there"

        def create_repo(self, *what: str, visibility: str) -> None:
            told.append(("create", *what, visibility))

        def upload_folder(self, *what: Any, **how: Any) -> None:
            told.append(("upload", *what, how["path_in_repo"], how["ignore_patterns"]))

    package, errors = ModuleType("modelscope_hub"), ModuleType("modelscope_hub.errors")
    package.HubApi, errors.HubError = Api, FakeError  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "modelscope_hub", package)
    monkeypatch.setitem(sys.modules, "modelscope_hub.errors", errors)
    return told


def test_modelscope_gets_the_same(modelscope: list[tuple[Any, ...]], checkpoint: Path) -> None:
    destination = open_destination("tiny", hub="modelscope", token="right", private=True)
    assert str(destination) == "finch/tiny on ModelScope"
    push(destination, checkpoint, message="one", under="x", leave_out=("optimizer.pt",))
    assert modelscope == [
        ("create", "finch/tiny", "model", "private"),
        ("upload", "finch/tiny", "model", checkpoint, "x", ["optimizer.pt"]),
    ]
    open_destination("team/there", hub="modelscope", token="right")
    assert len(modelscope) == 2
    with pytest.raises(HubError, match="tiny can't be pushed to ModelScope: token rejected"):
        open_destination("tiny", hub="modelscope", token="wrong")


def test_a_missing_client_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modelscope_hub", None)
    with pytest.raises(DependencyError, match=r"ModelScope needs modelscope-hub.*\[modelscope\]"):
        open_destination("tiny", hub="modelscope", token="right")
