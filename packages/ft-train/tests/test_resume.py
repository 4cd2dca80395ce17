"""Which checkpoint a run continues from."""

import json
import os

import pytest

from ft_core.errors import ModelError, UsageError
from ft_core.samples import Dropped, Sample, Tokens
from ft_train import TrainData, find_checkpoint
from ft_train.plots import draw_curves, smooth
from ft_train.resume import NEEDED, RunState, check_resumable, rows_fingerprint


def checkpoint(directory, *, complete=True, at=0):
    directory.mkdir(parents=True)
    for name in (*NEEDED, "rng_state.pth") if complete else NEEDED[-2:-1]:
        (directory / name).write_text("{}", encoding="utf-8")
    os.utime(directory, (at, at))
    return directory


def test_latest_is_the_newest_below_the_output_directory(tmp_path):
    checkpoint(tmp_path / "m" / "v0-a" / "checkpoint-50", at=100)
    newest = checkpoint(tmp_path / "m" / "v1-b" / "checkpoint-10", at=200)
    assert find_checkpoint("latest", tmp_path) == newest


def test_a_run_directory_means_its_last_checkpoint(tmp_path):
    checkpoint(tmp_path / "checkpoint-9")
    last = checkpoint(tmp_path / "checkpoint-10")
    assert find_checkpoint(str(tmp_path), "output") == last
    assert find_checkpoint(str(tmp_path / "checkpoint-9"), "output").name == "checkpoint-9"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("latest", "no checkpoint below"),
        ("nowhere", "no such directory"),
        (".", "neither a checkpoint nor a run directory"),
    ],
)
def test_nothing_to_continue(tmp_path, monkeypatch, value, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UsageError, match=f"--resume_from_checkpoint {value}: {message}".replace(".:", r"\.:")
    ):
        find_checkpoint(value, tmp_path / "output")


def test_weights_alone_are_refused(tmp_path):
    check_resumable(checkpoint(tmp_path / "checkpoint-1"))
    with pytest.raises(ModelError, match=r"lacks optimizer\.pt.*--resume_only_model true"):
        check_resumable(checkpoint(tmp_path / "checkpoint-2", complete=False))


def test_what_decides_the_order_must_not_change(tmp_path):
    state = RunState(items=10, batch_size=2, gradient_accumulation_steps=4, world_size=1, seed=42)
    state.save(tmp_path)
    state.check(tmp_path)
    other = RunState(items=10, batch_size=1, gradient_accumulation_steps=4, world_size=1, seed=7)
    with pytest.raises(UsageError, match="batch_size was 2 and is 1, seed was 42 and is 7"):
        other.check(tmp_path)


def test_ranks_may_change_where_steps_keep_their_rows(tmp_path):
    two = RunState(10, 2, 4, 2, 42, processes=2)
    two.save(tmp_path)
    assert two.check(tmp_path) is None
    note = RunState(10, 2, 8, 1, 42).check(tmp_path)
    assert note is not None
    assert "gradient_accumulation_steps was 4 and is 8" in note
    assert "the number of processes (NPROC_PER_NODE, NNODES) was 2 and is 1" in note


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ({}, {"world_size": 1, "processes": 1}, "the number of processes with rows of their own"),
        (
            {"division": "ZeRO-2"},
            {
                "division": "ZeRO-2",
                "gradient_accumulation_steps": 8,
                "world_size": 1,
                "processes": 1,
            },
            r"the number of processes \(NPROC_PER_NODE, NNODES\) was 2 and is 1",
        ),
        ({}, {"division": "FSDP2"}, r"how processes divide the run .* was DDP and is FSDP2"),
        (
            {"arrangement": "by_length"},
            {"arrangement": "by_length", "batch_size": 1, "gradient_accumulation_steps": 8},
            "batch_size was 2 and is 1",
        ),
        (
            {"stream": "a"},
            {"stream": "a", "gradient_accumulation_steps": 8, "world_size": 1, "processes": 1},
            "the number of processes",
        ),
        ({"rows": "a"}, {"rows": "b"}, r"the content of the rows \(--dataset .*\) changed"),
    ],
)
def test_what_would_change_a_step_is_refused(tmp_path, before, after, message):
    common = {
        "items": 10,
        "batch_size": 2,
        "gradient_accumulation_steps": 4,
        "world_size": 2,
        "seed": 42,
        "processes": 2,
    }
    RunState(**{**common, **before}).save(tmp_path)
    with pytest.raises(UsageError, match=message):
        RunState(**{**common, **after}).check(tmp_path)


def test_checkpoints_of_before_rows_were_hashed_can_be_continued(tmp_path):
    state = RunState(10, 2, 4, 1, 42, rows="a")
    state.save(tmp_path)
    file = tmp_path / "ft_state.json"
    old = json.loads(file.read_text())
    for name in ("rows", "processes", "division"):
        del old[name]
    file.write_text(json.dumps(old), encoding="utf-8")
    assert state.check(tmp_path) is None


def test_other_rows_have_another_fingerprint():
    def rows(last):
        return [Sample((Tokens([1, 2, value], [0.0, 1.0, 1.0]),), value) for value in (3, 4, last)]

    found = {
        rows_fingerprint(data)
        for data in (
            TrainData(rows(5)),
            TrainData(rows(6)),
            TrainData(rows(5)[:2]),
            TrainData(rows(5), groups=[[0, 1], [2]]),
            TrainData([[Dropped(0, "empty", "no text")], *rows(5)[1:]]),
        )
    }
    assert len(found) == 5
    assert rows_fingerprint(TrainData(rows(5))) in found


def test_curves_are_drawn_for_what_came_up_twice(tmp_path):
    history = [
        {"step": 1, "loss": 3.0, "learning_rate": 0.1},
        {"step": 2, "loss": 2.0, "learning_rate": 0.2, "memory(GiB)": 1.0},
        {"step": 2, "eval_loss": 2.5},
        {"step": 2, "train_runtime": 1.0},
    ]
    files = draw_curves(history, tmp_path / "images")
    assert sorted(file.name for file in files) == ["train_learning_rate.png", "train_loss.png"]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)
    assert draw_curves([], tmp_path / "none") == [] and not (tmp_path / "none").exists()


def test_smoothing_starts_at_the_first_value():
    assert smooth([2.0, 2.0, 2.0]) == pytest.approx([2.0, 2.0, 2.0])
    assert smooth([1.0, 0.0])[1] == pytest.approx(0.09 / 0.19)
