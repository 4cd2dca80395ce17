"""Runs and jobs of the studio: found on disk, stopped by checked process ids, resumed, deleted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ft_core.errors import UsageError
from ft_core.runs import Run, process_start
from ft_ui.studio.advice import explain
from ft_ui.studio.jobs import Job, Jobs, run_now, send_stop
from ft_ui.studio.metrics import read_progress, smoothed
from ft_ui.studio.program import Program
from ft_ui.studio.run_list import (
    checkpoints_in,
    delete_run,
    find_runs_in,
    get_run,
    resume_words,
    stop_run,
)
from ft_ui.studio.workplace import Workplace

PROGRAM = Program("py", (sys.executable, "-c", "import sys; exec(sys.argv[2])"), {})
"""A program that runs the code after its command."""


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    return Workplace(tmp_path.resolve())


def make_run(workplace: Workplace, name: str, *, status: str = "done", **data: Any) -> Path:
    directory = workplace.root / "output" / "model" / name
    run = Run.open(
        directory,
        command="sft",
        argv=["sft", "--dataset", "rows.jsonl"],
        arguments={"model_type": "tiny", "dataset": ["rows.jsonl"]},
    )
    run.update(status=status, created=data.pop("created", "2026-01-01T00:00:00"), **data)
    return directory


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def wait_for_end(job: Job, jobs: Jobs) -> Job:
    """Follow a job to its end by what it writes."""
    while True:
        found = jobs.get(job.name)
        if "exit_code" in found.data:
            return found
        assert found.status in ("starting", "running"), found.status
        os.sched_yield()


def test_runs_are_found_wherever_they_were_started(workplace: Workplace) -> None:
    make_run(workplace, "v0-1", created="2026-01-01T00:00:00")
    make_run(workplace, "v1-2", created="2026-01-02T00:00:00")
    hidden = workplace.root / ".cache" / "v9-9"
    hidden.mkdir(parents=True)
    (hidden / "run.json").write_text("{}", encoding="utf-8")
    (workplace.root / "output" / "run.json").write_text("not json", encoding="utf-8")
    runs = find_runs_in(workplace)
    assert [run.name for run in runs] == ["output/model/v1-2", "output/model/v0-1"]
    assert (runs[0].model, runs[0].data, runs[0].status) == ("tiny", "rows.jsonl", "done")


def test_progress_is_read_while_it_is_written(tmp_path: Path) -> None:
    file = tmp_path / "logging.jsonl"
    lines = [
        {"loss": 4.0, "global_step/max_steps": "1/3"},
        {"eval_loss": 3.5, "global_step/max_steps": "1/3"},
        {"loss": 3.0, "global_step/max_steps": "2/3"},
    ]
    file.write_text("".join(json.dumps(x) + "\n" for x in lines) + '{"loss": 2', encoding="utf-8")
    progress = read_progress(file)
    assert (progress.step, progress.steps) == (2, 3)
    assert progress.curve("loss") == [(1, 4.0), (2, 3.0)]
    assert progress.latest("eval_loss") == 3.5
    assert read_progress(tmp_path / "none").step == 0


def test_smoothing_keeps_a_constant_and_a_weight_of_zero_changes_nothing() -> None:
    flat = [(1, 2.0), (2, 2.0), (3, 2.0)]
    assert [value for _, value in smoothed(flat, 0.9)] == pytest.approx([2.0] * 3)
    rough = [(1, 1.0), (2, 3.0)]
    assert smoothed(rough, 0.0) == rough
    assert smoothed(rough, 0.5)[1][1] == pytest.approx((0.25 * 1 + 0.5 * 3) / 0.75)


def test_a_run_that_was_stopped_after_saving_is_interrupted(workplace: Workplace) -> None:
    directory = make_run(workplace, "v0-1")
    line = json.dumps({"interrupted": True, "log_history": []})
    (directory / "logging.jsonl").write_text(line + "\n", encoding="utf-8")
    assert find_runs_in(workplace)[0].status == "interrupted"


def test_only_the_process_of_the_run_gets_the_signal(
    workplace: Workplace, sleeper: subprocess.Popen[bytes]
) -> None:
    start = process_start(sleeper.pid)
    assert start is not None
    make_run(workplace, "v0-1", status="running", pid=sleeper.pid, pid_start=start + 1)
    run = get_run(workplace, "output/model/v0-1")
    assert run.status == "lost"
    with pytest.raises(UsageError, match="isn't running"):
        stop_run(run, force=False)
    with pytest.raises(UsageError, match="ended already"):
        send_stop(sleeper.pid, start + 1, force=True)
    assert sleeper.poll() is None

    make_run(workplace, "v0-1", status="running", pid=sleeper.pid, pid_start=start)
    stop_run(get_run(workplace, "output/model/v0-1"), force=False)
    assert sleeper.wait(60) == -signal.SIGTERM


@pytest.mark.parametrize("pid", [None, 0, 1, -1, "7", True])
def test_numbers_that_are_no_process_of_ours_are_left_alone(pid: Any) -> None:
    with pytest.raises(UsageError, match="ended already"):
        send_stop(pid, None, force=True)


def test_a_run_goes_on_from_its_latest_checkpoint(workplace: Workplace) -> None:
    directory = make_run(workplace, "v0-1", status="interrupted")
    with pytest.raises(UsageError, match="no checkpoint"):
        resume_words(get_run(workplace, "output/model/v0-1"))
    for step in (9, 10):
        (directory / f"checkpoint-{step}").mkdir()
    (directory / "checkpoint-11.half").mkdir()
    words = resume_words(get_run(workplace, "output/model/v0-1"))
    assert words == [
        *("sft", "--dataset", "rows.jsonl"),
        *("--resume_from_checkpoint", str(directory / "checkpoint-10")),
    ]
    assert checkpoints_in(workplace)[0] == "output/model/v0-1/checkpoint-10"


def test_a_running_run_is_neither_resumed_nor_deleted(workplace: Workplace) -> None:
    directory = make_run(workplace, "v0-1", status="running")  # by this very process
    run = get_run(workplace, "output/model/v0-1")
    for action in (resume_words, delete_run):
        with pytest.raises(UsageError, match="stop it first"):
            action(run)
    make_run(workplace, "v0-1", status="failed")
    delete_run(get_run(workplace, "output/model/v0-1"))
    assert not directory.exists()


@pytest.mark.parametrize("name", ["../x", "/etc", "output", ""])
def test_only_runs_inside_can_be_named(name: str, workplace: Workplace) -> None:
    (workplace.root / "output").mkdir()
    with pytest.raises(UsageError, match=r"outside|no run"):
        get_run(workplace, name)


def test_a_job_leaves_its_output_and_exit_code(workplace: Workplace) -> None:
    jobs = Jobs(workplace, PROGRAM)
    good = jobs.start(["run", "import os; print('in', os.getcwd()); print('$HOME; `id`')"])
    bad = jobs.start(["run", "import sys; print('error: no rows'); sys.exit(2)"])
    done, failed = wait_for_end(good, jobs), wait_for_end(bad, jobs)
    assert (done.status, failed.status) == ("done", "failed")
    assert done.log() == f"in {workplace.root}\n$HOME; `id`\n", "no shell reads the words"
    assert [job.name for job in jobs.all()] == sorted((good.name, bad.name), reverse=True)
    assert Jobs(workplace, PROGRAM).get(bad.name).data["exit_code"] == 2, "another studio sees it"


def test_a_job_is_stopped_with_what_it_started(workplace: Workplace) -> None:
    jobs = Jobs(workplace, PROGRAM)
    code = (
        "import subprocess, sys, time; child = subprocess.Popen(['sleep', '600']); "
        "print(child.pid, flush=True); time.sleep(600)"
    )
    job = jobs.start(["run", code])
    while not jobs.get(job.name).log().strip():
        os.sched_yield()
    running = jobs.get(job.name)
    child = int(running.log())
    assert running.status == "running" and process_start(child) is not None
    send_stop(running.data["pid"], running.data["pid_start"], force=True)
    assert wait_for_end(job, jobs).status == "stopped"
    deadline = time.monotonic() + 60
    while process_start(child) is not None and time.monotonic() < deadline:
        os.sched_yield()  # it has its signal; the system takes a moment
    assert process_start(child) is None


def test_what_cannot_be_started_says_so(workplace: Workplace) -> None:
    jobs = Jobs(workplace, Program("none", ("/no/such/program",), {}))
    job = wait_for_end(jobs.start(["x"]), jobs)
    assert job.status == "failed" and "can't be started" in job.log()


@pytest.mark.parametrize("name", ["../../etc", "20260101-000000-sft-abcdef/..", "x"])
def test_a_job_is_named_by_its_name_only(name: str, workplace: Workplace) -> None:
    with pytest.raises(UsageError, match="no such job"):
        Jobs(workplace, PROGRAM).get(name)


def test_progress_bars_show_their_last_state(workplace: Workplace) -> None:
    directory = workplace.root / "job"
    directory.mkdir()
    (directory / "log.txt").write_bytes(b"a\r 10%\r 20%\n\x1b[32mgreen\x1b[0m\r\nend")
    assert Job(directory, {}).log() == " 20%\ngreen\nend"


def test_short_commands_give_their_output_or_their_error(workplace: Workplace) -> None:
    assert run_now(PROGRAM, ["run", "print(1)"], workplace.root) == "1\n"
    code = "import sys; print('noise\\nerror: bad rows\\nsecond', file=sys.stderr); sys.exit(1)"
    with pytest.raises(UsageError, match=r"^bad rows\nsecond$"):
        run_now(PROGRAM, ["run", code], workplace.root)


@pytest.mark.parametrize(
    ("log", "kind"),
    [
        ("x\ntorch.OutOfMemoryError: CUDA out of memory. Tried", "memory"),
        ("error: disk: No space left on device", "disk"),
        ("error: --quant_method awq needs AutoAWQ: pip install 'ft-quant[awq]'", "package"),
        ("error: rows.jsonl:3: missing answer", "data"),
        ("error: --port 80: address already in use", "port"),
        ("error: something new", None),
    ],
)
def test_errors_in_a_log_are_explained(log: str, kind: str | None) -> None:
    advice = explain(f"step 1\n{log}\n")
    assert advice is not None and advice.kind == kind
    assert advice.lines in log


def test_a_log_without_an_error_needs_no_advice() -> None:
    assert explain("step 1/2, loss 3\nrun directory: x\n") is None
    assert explain("") is None
