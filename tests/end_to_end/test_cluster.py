"""The files of ``examples/cluster``: they parse, agree with each other, and their launch line runs here."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "examples" / "cluster"
SCRIPTS = ("train.sh", "slurm.sbatch", "ssh.sh")
PLACE = ("NNODES", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "NPROC_PER_NODE")
INPUT = ("MODEL", "DATASET", "OUTPUT")


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_parse_and_stop_at_errors(name: str) -> None:
    script = CLUSTER / name
    subprocess.run(["bash", "-n", str(script)], check=True)
    linter = Path(sys.executable).with_name("shellcheck")
    linted = subprocess.run([linter, script], capture_output=True, text=True, check=False)
    assert linted.returncode == 0, linted.stdout
    text = script.read_text(encoding="utf-8")
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "\nset -euo pipefail\n" in text
    assert all(len(line) <= 120 and line == line.rstrip() for line in text.splitlines())


def test_every_launcher_says_where_a_node_is() -> None:
    slurm, ssh = ((CLUSTER / name).read_text(encoding="utf-8") for name in SCRIPTS[1:])
    for name in PLACE:
        assert re.search(rf"\b{name}=", slurm), f"slurm.sbatch doesn't set {name}"
        assert re.search(rf"\b{name}=", ssh), f"ssh.sh doesn't set {name}"
    for name in INPUT:
        assert f"{name}=" in ssh
    assert "#SBATCH --nodes=2" in slurm and "#SBATCH --signal=TERM@" in slurm


def test_the_job_of_kubernetes_has_two_alike_nodes() -> None:
    job: dict[str, Any] = yaml.safe_load((CLUSTER / "kubernetes.yaml").read_text(encoding="utf-8"))
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    replicas = job["spec"]["pytorchReplicaSpecs"]
    assert set(replicas) == {"Master", "Worker"} and replicas["Master"] == replicas["Worker"]
    assert sum(part["replicas"] for part in replicas.values()) == 2
    spec = replicas["Master"]["template"]["spec"]
    (container,) = spec["containers"]
    assert container["name"] == "pytorch", "the operator looks for this name"
    variables = {item["name"]: item["value"] for item in container["env"]}
    # MASTER_ADDR, MASTER_PORT and RANK are set by the operator.
    assert set(variables) == {"NNODES", "NPROC_PER_NODE", *INPUT}
    assert all(isinstance(value, str) for value in variables.values())
    assert variables["NNODES"] == "2"
    assert int(variables["NPROC_PER_NODE"]) == container["resources"]["limits"]["nvidia.com/gpu"]
    assert container["command"][-1].startswith(
        "NODE_RANK=$RANK exec bash examples/cluster/train.sh"
    )
    mounts = {item["name"] for item in container["volumeMounts"]}
    assert mounts == {item["name"] for item in spec["volumes"]}


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    plain = {key: value for key, value in os.environ.items() if key not in (*PLACE, *INPUT)}
    done = subprocess.run(
        ["bash", str(CLUSTER / "train.sh")], env=plain, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0 and "set MODEL to" in done.stderr


@pytest.mark.slow
@pytest.mark.xdist_group("processes")
def test_the_launch_line_runs_on_two_nodes(model: Path, rows: Path, tmp_path: Path) -> None:
    """Two nodes of one process each, both on this machine; then as if the job were started again."""
    words = (
        *("--max_steps", "2", "--batch_size", "1", "--gradient_accumulation_steps", "1"),
        *("--eval_steps", "2", "--dataset_test_ratio", "0.2", "--sample_answers", "0"),
    )

    def run_nodes(*more: str) -> list[tuple[int, str]]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        nodes = []
        for rank in range(2):
            place = dict(zip(PLACE, ("2", str(rank), "127.0.0.1", str(port), "1"), strict=True))
            environment = {
                **os.environ,
                **place,
                **dict(zip(INPUT, (str(model), str(rows), str(tmp_path / "out")), strict=True)),
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "OMP_NUM_THREADS": "1",
                "HF_HUB_OFFLINE": "1",
            }
            command = ["bash", str(CLUSTER / "train.sh"), *words, *more]
            nodes.append(
                subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
            )
        return [(node.returncode, text) for node in nodes for text in (node.communicate()[1],)]

    ended = run_nodes()
    assert all(code == 0 for code, _ in ended), ended
    (directory,) = (tmp_path / "out").glob("*/v*")
    found = json.loads((directory / "run.json").read_text(encoding="utf-8"))
    assert found["status"] == "done" and found["result"]["wrapped"] == "ZeRO-2"
    assert (directory / "checkpoint-2" / "adapter_model.safetensors").is_file()
    ended = run_nodes("--max_steps", "3")
    assert all(code == 0 for code, _ in ended), ended
    assert [item.name for item in (tmp_path / "out").glob("*/v*")] == [directory.name]
    assert (directory / "checkpoint-3").is_dir()
