"""Pushing what was made, by Hugging Face's own client against a server here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from ft_core import HubError, UsageError
from ft_core.hub.testing import Shelf, serve
from ft_quant.export import ExportJob, Made
from ft_quant.export_arguments import PublishArguments
from ft_quant.publish import check_pushable, open_repository, publish

SECRET = "hf_a_secret_token"


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Shelf]:
    state = Shelf(token=SECRET)
    with serve(state) as address:
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("USE_HF", "1")
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        yield state


def made(kind: str, directory: Path) -> Made:
    directory.mkdir()
    for name in ("model.safetensors", "export.json", "README.md", "optimizer.pt", ".cache"):
        (directory / name).write_text(f"{kind} {name}")
    return Made(kind, directory, 1, 1.0)  # type: ignore[arg-type]


def test_the_smallest_form_is_pushed_and_a_gguf_beside_it(
    shelf: Shelf, job: Callable[..., ExportJob], base: Path, adapter: Path, tmp_path: Path
) -> None:
    prepared = job(base, adapter, to_gguf="f16").prepared
    results = [made(kind, tmp_path / kind) for kind in ("merged", "quantized", "gguf")]
    asked = PublishArguments(
        push_to_hub=True, hub_model_id="small", hub_token=SECRET, hub_private_repo=True
    )
    repository = open_repository(asked)
    assert repository is not None and shelf.private
    said: list[str] = []
    publish(repository, results, prepared, message="first", say=said.append)
    assert shelf.repositories["finch/small"] == {
        "model.safetensors": b"quantized model.safetensors",
        "export.json": b"quantized export.json",
        "README.md": b"quantized README.md",
        "gguf/model.safetensors": b"gguf model.safetensors",
        "gguf/export.json": b"gguf export.json",
        "gguf/README.md": b"gguf README.md",
    }
    assert shelf.messages == ["first", "first"]
    assert said and not any(SECRET in line for line in said) and SECRET not in repr(repository)


def test_a_push_that_broke_off_goes_on_with_the_checkpoint(
    shelf: Shelf, job: Callable[..., ExportJob], base: Path, adapter: Path, tmp_path: Path
) -> None:
    prepared = job(base, adapter, to_gguf="f16").prepared
    repository = open_repository(
        PublishArguments(push_to_hub=True, hub_model_id="team/lora", hub_token=SECRET)
    )
    assert repository is not None
    shelf.broken = True
    with pytest.raises(HubError, match=r"team/lora can't be pushed.*on disk in .*merged") as raised:
        publish(
            repository,
            [made("merged", tmp_path / "merged")],
            prepared,
            message="one",
            say=lambda text: None,
        )
    assert SECRET not in str(raised.value)
    shelf.broken = False
    publish(repository, [], prepared, message="two", say=lambda text: None)
    assert {"adapter_config.json", "adapter_model.safetensors"} <= set(
        shelf.repositories["team/lora"]
    )


def test_nothing_to_push_is_refused(
    job: Callable[..., ExportJob], base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = job(base, to_gguf="f16").prepared
    check_pushable(prepared, makes=True)
    with pytest.raises(UsageError, match="--push_to_hub true has nothing to push"):
        check_pushable(prepared, makes=False)
    monkeypatch.setenv("USE_HF", "1")
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match="--push_to_hub needs a token of Hugging Face"):
        open_repository(PublishArguments(push_to_hub=True, hub_model_id="a"))
    assert open_repository(PublishArguments()) is None
