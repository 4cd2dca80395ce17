"""Checkpoint directories: atomic writing, reading, sidecars and retention."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, GenerationConfig

from ft_core.checkpoints import (
    atomic_directory,
    list_checkpoints,
    open_checkpoint,
    prune,
    saved_arguments,
    write_sidecars,
)
from ft_core.errors import FtError, ModelError, UsageError
from ft_core.models.loading import base_source, load_checkpoint, load_model
from ft_core.testing import tiny_model
from ft_core.tokenizer import Tokenizer
from ft_core.tuners import TUNERS, LoraSettings
from ft_core.whole_directories import clear_leftovers


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "model")


@pytest.fixture
def adapter(model_dir: Path, tmp_path: Path) -> Path:
    tuner = TUNERS.get("lora")
    model = tuner.apply(load_model(model_dir, dtype=torch.float32), LoraSettings(rank=2))
    with atomic_directory(tmp_path / "run" / "checkpoint-3") as directory:
        tuner.save(model, directory)
    return tmp_path / "run" / "checkpoint-3"


def entries(directory: Path) -> list[str]:
    return sorted(item.name for item in directory.iterdir())


def test_a_directory_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "checkpoint-1"
    with atomic_directory(target) as directory:
        (directory / "weights").write_text("w")
        assert not target.exists()
        assert directory.parent == target.parent
    assert (target / "weights").read_text() == "w"
    assert entries(target.parent) == ["checkpoint-1"]
    assert target.stat().st_mode & 0o700 == 0o700


def test_nothing_is_left_of_a_failed_write(tmp_path: Path) -> None:
    with pytest.raises(KeyError), atomic_directory(tmp_path / "a") as directory:
        (directory / "half").write_text("w")
        raise KeyError("x")
    with pytest.raises(KeyboardInterrupt), atomic_directory(tmp_path / "a"):
        raise KeyboardInterrupt
    assert entries(tmp_path) == []


def test_a_full_disk_names_the_directory(tmp_path: Path) -> None:
    full = pytest.raises(
        FtError, match=r"checkpoint-1 can't be written: No space left.*--output_dir"
    )
    with full, atomic_directory(tmp_path / "checkpoint-1") as directory:
        (directory / "weights").symlink_to("/dev/full")
        (directory / "weights").write_text("w")
    assert entries(tmp_path) == []


def test_weights_that_hit_a_size_limit_leave_nothing(model_dir: Path, tmp_path: Path) -> None:
    model = load_model(model_dir, dtype=torch.float32)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        large = pytest.raises(FtError, match="checkpoint-1 can't be written: File too large")
        with large, atomic_directory(tmp_path / "run" / "checkpoint-1") as directory:
            TUNERS.get("full").save(model, directory)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert entries(tmp_path / "run") == []


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    unwritable = pytest.raises(FtError, match=r"file/checkpoint-1 can't be written")
    with unwritable, atomic_directory(tmp_path / "file" / "checkpoint-1"):
        pass


def test_an_existing_directory_is_kept_unless_replaced(tmp_path: Path) -> None:
    target = tmp_path / "merged"
    with atomic_directory(target) as directory:
        (directory / "old").write_text("1")
    with pytest.raises(UsageError, match="exists already"), atomic_directory(target):
        pass
    with pytest.raises(ValueError), atomic_directory(target, replace=True):
        raise ValueError
    assert entries(target) == ["old"]
    with atomic_directory(target, replace=True) as directory:
        (directory / "new").write_text("2")
    assert entries(target) == ["new"]
    assert entries(tmp_path) == ["merged"]


def test_sidecars_are_what_transformers_reads(model_dir: Path, tmp_path: Path) -> None:
    template = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
    out = tmp_path / "out"
    out.mkdir()
    write_sidecars(
        out,
        tokenizer=Tokenizer.from_directory(model_dir),
        chat_template=template,
        generation_config=GenerationConfig(eos_token_id=[2, 0], pad_token_id=0),
        arguments={
            "model_id_or_path": str(model_dir),
            "system": "söß",
            "lora_rank": 8,
            "path": tmp_path,
        },
    )
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer.chat_template == template
    assert tokenizer.encode("hello world") == AutoTokenizer.from_pretrained(model_dir).encode(
        "hello world"
    )
    assert GenerationConfig.from_pretrained(out).eos_token_id == [2, 0]
    assert json.loads((out / "sft_args.json").read_text())["system"] == "söß"


def test_relative_paths_are_saved_absolute(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_sidecars(tmp_path, arguments={"model_id_or_path": "model", "custom_register_path": None})
    saved = json.loads((tmp_path / "sft_args.json").read_text())
    assert saved == {"model_id_or_path": str(model_dir.resolve()), "custom_register_path": None}


def test_an_adapter_checkpoint_reads_back_and_loads(adapter: Path, model_dir: Path) -> None:
    write_sidecars(
        adapter,
        arguments={
            "sft_type": "lora",
            "model_id_or_path": str(model_dir),
            "model_type": None,
            "template_type": "chatml",
            "system": "",
            "learning_rate": 1e-4,
            "dataset": ["a.jsonl#3"],
            "dataset_seed": 7,
        },
    )
    checkpoint = open_checkpoint(adapter)
    assert (checkpoint.kind, checkpoint.base) == ("lora", str(model_dir))
    assert checkpoint.arguments["learning_rate"] == 1e-4
    taken = {
        "sft_type": "lora",
        "model_id_or_path": str(model_dir),
        "template_type": "chatml",
        "system": "",
    }
    assert saved_arguments(adapter) == taken
    assert saved_arguments(adapter, datasets=True) == {
        **taken,
        "dataset": ["a.jsonl#3"],
        "dataset_seed": 7,
    }
    model = load_checkpoint(adapter, dtype=torch.float32, report=pytest.fail)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_an_adapter_of_plain_peft_is_a_checkpoint_too(adapter: Path, model_dir: Path) -> None:
    assert saved_arguments(adapter) == {"sft_type": "lora", "model_id_or_path": str(model_dir)}
    assert base_source(open_checkpoint(adapter)).location == str(model_dir)
    model = load_checkpoint(adapter, dtype=torch.float32, trainable=True)
    assert model.training
    assert any(parameter.requires_grad for parameter in model.parameters())


def test_a_whole_model_is_a_checkpoint(model_dir: Path) -> None:
    checkpoint = open_checkpoint(model_dir)
    assert (checkpoint.kind, checkpoint.base) == ("full", None)
    assert base_source(checkpoint).location == str(model_dir)
    assert load_checkpoint(checkpoint, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_a_base_that_is_gone_is_named(adapter: Path, model_dir: Path) -> None:
    model_dir.rename(model_dir.with_name("moved"))
    with pytest.raises(ModelError, match=str(model_dir)):
        load_checkpoint(adapter, dtype=torch.float32)


def test_what_is_no_checkpoint_says_what_is_missing(adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"run directory.*checkpoint-3"):
        open_checkpoint(adapter.parent)
    with pytest.raises(ModelError, match=r"does not exist.*there are checkpoint-3"):
        open_checkpoint(adapter.parent / "checkpoint-9")
    with pytest.raises(ModelError, match="is a file"):
        open_checkpoint(adapter / "adapter_config.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"neither adapter_config.json.*nor config.json"):
        open_checkpoint(tmp_path / "empty")
    (tmp_path / "empty" / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"no model.safetensors"):
        open_checkpoint(tmp_path / "empty")
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match="no adapter weights"):
        open_checkpoint(adapter)
    (adapter / "adapter_config.json").write_text("{not json")
    with pytest.raises(ModelError, match=r"adapter_config.json: can't be read as JSON"):
        open_checkpoint(adapter)


def make_run(directory: Path, *steps: int) -> list[Path]:
    for step in steps:
        (directory / f"checkpoint-{step}").mkdir(parents=True)
        (directory / f"checkpoint-{step}" / "weights").write_text("w")
    return list_checkpoints(directory)


def test_checkpoints_are_listed_by_step(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-x").mkdir()
    (tmp_path / "checkpoint-7").write_text("a file")
    found = make_run(tmp_path, 100, 20, 3)
    assert [item.name for item in found] == ["checkpoint-3", "checkpoint-20", "checkpoint-100"]
    assert list_checkpoints(tmp_path / "missing") == []


@pytest.mark.parametrize(
    ("keep", "best", "left"),
    [
        (2, 1, [1, 5]),
        (2, 5, [4, 5]),
        (1, 2, [2, 5]),
        (0, None, [5]),
        (3, 1, [1, 4, 5]),
        (None, 1, [1, 2, 3, 4, 5]),
        (-1, 1, [1, 2, 3, 4, 5]),
        (9, 1, [1, 2, 3, 4, 5]),
    ],
)
def test_pruning_keeps_best_and_last(
    keep: int | None, best: int | None, left: list[int], tmp_path: Path
) -> None:
    before = make_run(tmp_path, 1, 2, 3, 4, 5)
    deleted = prune(tmp_path, keep, best=None if best is None else tmp_path / f"checkpoint-{best}")
    assert [int(item.name.split("-")[1]) for item in list_checkpoints(tmp_path)] == left
    assert sorted([*deleted, *list_checkpoints(tmp_path)]) == sorted(before)
    assert len(entries(tmp_path)) == len(left)


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    for name in (
        *(".checkpoint-2.abc", ".checkpoint-4.old.abc", ".checkpoint-6.old.abc"),
        *(".checkpoint-8.deleted", "checkpoint-6", ".other.abc"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text(name)
    clear_leftovers(tmp_path, "checkpoint-")
    assert entries(tmp_path) == [".other.abc", "checkpoint-4", "checkpoint-6"]
    # What was to be exchanged is back, where nothing took its place.
    assert (tmp_path / "checkpoint-4" / "weights").read_text() == ".checkpoint-4.old.abc"
    assert (tmp_path / "checkpoint-6" / "weights").read_text() == "checkpoint-6"
