"""Two processes that train together give what one gives with the same rows a step, however they are divided."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ft_core.checkpoints import open_checkpoint
from ft_core.errors import ModelError
from ft_core.testing import tiny_model
from ft_train.resume import check_resumable

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("processes")]

WORKER = Path(__file__).with_name("trainer_worker.py")
WRAPPED = {
    "plain": "DDP",
    "sequence": "DDP",
    "zero2": "ZeRO-2",
    "zero3": "ZeRO-3",
    "offload": "ZeRO-3",
    "fsdp": "FSDP2",
}
KINDS = ("full", "lora")


def torchrun(processes: int, out: Path, model: Path, *words: str) -> None:
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc_per_node", str(processes), str(WORKER), str(out), str(model), *words),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-5000:]


def facts(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "facts.json").read_text(encoding="utf-8"))
    return found


def weights(directory: Path, step: int) -> dict[str, torch.Tensor]:
    (file,) = (directory / f"checkpoint-{step}").glob("*.safetensors")
    return load_file(file)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def runs(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process; two, divided in each way, each gone on with from its first checkpoint."""
    out = tmp_path_factory.mktemp("runs")
    torchrun(1, out / "one", model, *(f"{kind}:plain:" for kind in KINDS))
    two = [
        f"{kind}:{way}:{before}"
        for kind in KINDS
        for way in WRAPPED
        for before in ("", out / "two" / kind / way)
    ]
    torchrun(2, out / "two", model, *two)
    return out


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WRAPPED)
def test_two_processes_are_as_one(runs: Path, way: str, kind: str) -> None:
    straight, divided = runs / "one" / kind / "plain", runs / "two" / kind / way
    one, two = facts(straight), facts(divided)
    assert two["wrapped"] == WRAPPED[way]
    for name in ("losses", "evaluations"):
        assert two[name] == pytest.approx(one[name], rel=1e-5), name
    assert two["norms"] == pytest.approx(one["norms"], rel=1e-4)
    assert len(two["losses"]) == 4 and len(two["evaluations"]) == 2
    expected, found = weights(straight, 4), weights(divided, 4)
    assert set(found) == set(expected)
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WRAPPED)
def test_a_divided_run_goes_on_where_it_was(runs: Path, way: str, kind: str) -> None:
    straight, continued = (runs / "two" / kind / name for name in (way, f"{way}-continued"))
    assert facts(continued)["losses"] == facts(straight)["losses"]
    for name, weight in weights(straight, 4).items():
        assert torch.equal(weights(continued, 4)[name], weight), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["zero2", "zero3"])
def test_parts_of_deepspeed_are_put_together(
    runs: Path, way: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = tmp_path / "c"
    shutil.copytree(runs / "two" / kind / way / "checkpoint-4", checkpoint)
    check_resumable(checkpoint)
    (file,) = checkpoint.glob("*.safetensors")
    expected = load_file(file)
    file.unlink()
    assert open_checkpoint(checkpoint).path == checkpoint
    assert "putting together the parts that DeepSpeed wrote" in capsys.readouterr().err
    found = load_file(file)
    assert set(found) == set(expected)
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight.to(found[name].dtype))
    assert not (checkpoint / ".together").exists()


def test_fewer_processes_go_on_where_the_backend_can(
    runs: Path, model: Path, tmp_path: Path
) -> None:
    ways = [f"{kind}/{way}" for kind in KINDS for way in ("plain", "fsdp")]
    words = [f"{way.replace('/', ':')}:{runs / 'two' / way}" for way in ways]
    torchrun(1, tmp_path, model, *words)
    for way in ways:
        one, two = facts(tmp_path / f"{way}-continued"), facts(runs / "two" / way)
        assert one["losses"] == pytest.approx(two["losses"], rel=1e-5)


def test_parts_that_would_run_code_are_refused(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> Any:
            return (os.system, ("true",))

    folder = tmp_path / "global_step2"
    folder.mkdir()
    (tmp_path / "latest").write_text("global_step2", encoding="utf-8")
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    torch.save({"module": Harm()}, folder / "zero_pp_rank_0_mp_rank_00_model_states.pt")
    with pytest.raises(ModelError, match=r"model_states\.pt would import .*\.system"):
        open_checkpoint(tmp_path)
