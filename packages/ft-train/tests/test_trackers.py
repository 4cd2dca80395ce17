"""Trackers get the log: their own clients are stood in for by ones that note what they are called with."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from typing import Any
from unittest.mock import MagicMock

import pytest

from ft_core.errors import DependencyError, UsageError
from ft_train.arguments import RunArguments


class ConfigError(Exception):
    """Stands for wandb's."""


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **attributes: Any) -> MagicMock:
    """Put a client that notes its calls in the place of a tracker's."""
    client = MagicMock(name=name, **attributes)
    client.__spec__ = ModuleSpec(name, None)
    client.__version__ = "99.0"
    monkeypatch.setitem(sys.modules, name, client)
    return client


def logged(calls: list[Any]) -> dict[str, Any]:
    """Return everything that was logged, under the last key that gave it."""
    found: dict[str, Any] = {}
    for call in calls:
        values = call.kwargs.get("metrics") or call.args[0]
        found |= values
    return found


def test_wandb_gets_the_log(monkeypatch: pytest.MonkeyPatch, lab: Any) -> None:
    client = stand_in(monkeypatch, "wandb", run=None)
    for part in ("wandb.sdk", "wandb.sdk.lib"):
        stand_in(monkeypatch, part)
    stand_in(monkeypatch, "wandb.sdk.lib.config_util", ConfigError=ConfigError)

    def begin(**options: Any) -> None:
        client.run = MagicMock(id="1", url="none")

    client.init.side_effect = begin
    lab.run(lab.model(), lab.plan(report_to=("wandb",), steps=2))
    assert client.init.call_args.kwargs["name"] == "run"
    values = logged(client.log.call_args_list)
    assert values["train/loss"] > 0 and values["train/global_step"] == 2
    assert "train/trained_tokens_per_second" in values


def test_swanlab_gets_the_log(monkeypatch: pytest.MonkeyPatch, lab: Any) -> None:
    client = stand_in(monkeypatch, "swanlab")
    client.get_run.return_value = None
    lab.run(lab.model(), lab.plan(report_to=("swanlab",), steps=2))
    assert client.init.call_args.kwargs["experiment_name"] == "run"
    assert logged(client.log.call_args_list)["train/loss"] > 0


def test_mlflow_gets_the_log(monkeypatch: pytest.MonkeyPatch, lab: Any) -> None:
    client = stand_in(monkeypatch, "mlflow")
    client.utils.validation.MAX_PARAM_VAL_LENGTH = 500
    client.utils.validation.MAX_PARAMS_TAGS_PER_BATCH = 100
    client.active_run.side_effect = [None, *[MagicMock()] * 9]  # none until one was started
    lab.run(lab.model(), lab.plan(report_to=("mlflow",), steps=2))
    assert client.start_run.call_args.kwargs["run_name"] == "run"
    assert logged(client.log_metrics.call_args_list)["loss"] > 0


def test_all_means_those_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, "swanlab")
    monkeypatch.setitem(sys.modules, "wandb", None)
    found = RunArguments(report_to=["all"]).trackers()
    assert "swanlab" in found and "wandb" not in found


def test_unknown_and_missing_trackers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="wandb"):
        RunArguments(report_to=["wandbb"]).trackers()
    with pytest.raises(DependencyError, match="pip install clearml"):
        RunArguments(report_to=["clearml"]).trackers()
