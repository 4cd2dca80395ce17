"""Run directories: numbering, status, faults."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ft_core.errors import UsageError
from ft_core.launch import from_main, gather, launch_command, share
from ft_core.runs import Run, find_runs, new_run_directory


def make(tmp_path: Path, **fields: object) -> Run:
    return Run.create(
        command="sft",
        argv=["sft", "--lora_rank", "4"],
        arguments={"lora_rank": 4},
        output_dir=tmp_path,
        model_name="org/tiny",
        **fields,  # type: ignore[arg-type]
    )


def test_directories_are_numbered(tmp_path: Path) -> None:
    names = [make(tmp_path).directory.name.split("-")[0] for _ in range(3)]
    assert names == ["v0", "v1", "v2"]
    assert make(tmp_path).directory.parent == tmp_path / "org-tiny"


def test_two_at_once_get_different_directories(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: new_run_directory(tmp_path, "m"), range(24)))
    assert len({path.name.split("-")[0] for path in found}) == 24


def test_without_suffix_the_directory_is_taken_as_it_is(tmp_path: Path) -> None:
    assert make(tmp_path / "here", add_suffix=False).directory == tmp_path / "here"


def test_status_follows_the_work(tmp_path: Path) -> None:
    run = make(tmp_path)
    assert find_runs(tmp_path)[0].status == "running"
    with run.recording():
        run.update(result={"global_step": 3})
    record = find_runs(tmp_path)[0]
    assert record.status == "done" and record.data["result"] == {"global_step": 3}
    assert record.data["argv"] == ["sft", "--lora_rank", "4"]
    with pytest.raises(ValueError, match="boom"), run.recording():
        raise ValueError("boom")
    assert find_runs(tmp_path)[0].data["error"] == "ValueError: boom"
    with pytest.raises(KeyboardInterrupt), run.recording():
        raise KeyboardInterrupt
    assert find_runs(tmp_path)[0].status == "interrupted"


def test_a_killed_run_is_lost(tmp_path: Path) -> None:
    run = make(tmp_path)
    run.update(pid=2**22 + 1)
    assert find_runs(tmp_path)[0].status == "lost"


def test_arguments_alone_are_saved(tmp_path: Path) -> None:
    assert json.loads(make(tmp_path).save_arguments().read_text()) == {"lora_rank": 4}


def test_foreign_json_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("[1]")
    assert find_runs(tmp_path) == []


def test_an_output_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"--output_dir .*file"):
        new_run_directory(tmp_path / "file", "m")


@pytest.mark.parametrize("place", ["/proc/nowhere", "/dev/null/x"])
def test_an_output_directory_that_refuses(place: str) -> None:
    with pytest.raises(UsageError, match="can't write there"):
        new_run_directory(Path(place), "m")


def test_torchrun_command() -> None:
    assert launch_command("ft_cli", ["sft"], {}) is None
    assert launch_command("ft_cli", ["sft"], {"NPROC_PER_NODE": "2", "LOCAL_RANK": "0"}) is None
    command = launch_command(
        "ft_cli", ["sft", "--x"], {"NPROC_PER_NODE": "2", "MASTER_PORT": "29501"}
    )
    assert command is not None
    assert command[1:] == [
        *("-m", "torch.distributed.run", "--nproc_per_node", "2", "--nnodes", "1"),
        *("--master_port", "29501", "-m", "ft_cli", "sft", "--x"),
    ]
    with pytest.raises(UsageError, match="NNODES=two"):
        launch_command("ft_cli", [], {"NNODES": "two"})


def test_nodes_are_told_where_they_meet() -> None:
    alone = launch_command("ft_cli", ["sft"], {"NPROC_PER_NODE": "2"})
    assert alone is not None and "--standalone" in alone
    single = launch_command("ft_cli", ["sft"], {}, always=True)
    assert single is not None and single[3:7] == ["--nproc_per_node", "1", "--nnodes", "1"]
    place = {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "a", "NPROC_PER_NODE": "8"}
    command = launch_command("ft_cli", ["sft"], place)
    assert command is not None and "--standalone" not in command
    assert command[command.index("--node_rank") + 1] == "1"
    with pytest.raises(UsageError, match="NNODES=2 needs NODE_RANK and MASTER_ADDR too"):
        launch_command("ft_cli", ["sft"], {"NNODES": "2"})


def test_only_the_first_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    run = Run.open(tmp_path / "there", command="sft", argv=[], arguments={})
    with run.recording():
        run.update(result=1)
    run.save_arguments()
    assert run.directory.is_dir() and not list(run.directory.iterdir())


def test_a_lone_process_has_only_itself() -> None:
    assert gather(3) == [3] and share(3) == 3 and from_main(lambda: 3) == 3
    with pytest.raises(UsageError, match="boom"):
        from_main(fails)


def fails() -> int:
    raise UsageError("boom")
