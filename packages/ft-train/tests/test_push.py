"""What each strategy pushes, when, and what happens when a push fails."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ft_core.errors import HubError, UsageError
from ft_core.hub import Destination
from ft_train import TrainData
from ft_train.callbacks.push import FOR_RESUMING, LAST, PushCheckpoints
from ft_train.push_arguments import PushArguments, PushStrategy

Push = tuple[str, str, bool, int]
"""Checkpoint, folder, whether it was whole, and how many checkpoints were there."""


class Repository:
    """Takes the place of ``push`` and remembers what it was told."""

    def __init__(self, failing: int = 0) -> None:
        self.pushes: list[Push] = []
        self.failing = failing

    def __call__(
        self,
        destination: Destination,
        directory: Path,
        *,
        message: str,
        under: str = "",
        leave_out: Sequence[str] = (),
    ) -> None:
        if self.failing:
            self.failing -= 1
            raise HubError("o/r can't be pushed to Hugging Face: no network")
        assert (directory / "model.safetensors").is_file()
        saved = len(list(directory.parent.glob("checkpoint-*")))
        self.pushes.append((directory.name, under, not leave_out, saved))


def run(
    lab: Any,
    monkeypatch: pytest.MonkeyPatch,
    strategy: PushStrategy,
    repository: Repository,
    *,
    evaluates: bool = True,
) -> Any:
    monkeypatch.setattr("ft_train.callbacks.push.push", repository)
    destination = Destination("huggingface", "o/r", "secret")
    callback = PushCheckpoints(destination, strategy, lab.directory / "run")
    plan = lab.plan(
        steps=6,
        save_strategy="steps",
        save_steps=2,
        save_total_limit=None,
        evaluation_strategy="steps" if evaluates else "no",
        eval_steps=2,
    )
    rows = lab.samples(12)
    data = TrainData(rows, lab.samples(4, seed=1) if evaluates else ())
    return lab.run(lab.model(), plan, data, callbacks=(callback,))


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        (
            "push_last",
            [("checkpoint-2", "", 1), ("checkpoint-4", "", 2), ("checkpoint-6", "", 3)],
        ),
        (
            "all_checkpoints",
            [
                ("checkpoint-2", "checkpoint-2", 1),
                ("checkpoint-4", "checkpoint-4", 2),
                ("checkpoint-6", "checkpoint-6", 3),
            ],
        ),
        (
            "checkpoint",
            [
                ("checkpoint-2", "", 1),
                ("checkpoint-2", LAST, 1),
                ("checkpoint-4", "", 2),
                ("checkpoint-4", LAST, 2),
                ("checkpoint-6", "", 3),
                ("checkpoint-6", LAST, 3),
            ],
        ),
    ],
)
def test_strategies_that_follow_the_saves(
    lab: Any,
    monkeypatch: pytest.MonkeyPatch,
    strategy: PushStrategy,
    expected: list[tuple[str, str, int]],
) -> None:
    repository = Repository()
    run(lab, monkeypatch, strategy, repository)
    assert [(name, under, saved) for name, under, _, saved in repository.pushes] == expected
    assert all(whole == bool(under) for _, under, whole, _ in repository.pushes)


def test_the_best_model_is_pushed_when_it_is_found_and_only_then(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = Repository()
    result = run(lab, monkeypatch, "push_best", repository)
    losses = {
        f"checkpoint-{row['step']}": row["eval_loss"]
        for row in result.log_history
        if "eval_loss" in row
    }
    records = [
        name
        for number, name in enumerate(losses)
        if losses[name] == min(list(losses.values())[: number + 1])
    ]
    assert [name for name, *_ in repository.pushes] == records
    assert result.best_checkpoint.name == repository.pushes[-1][0]


def test_only_the_end(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = Repository()
    result = run(lab, monkeypatch, "end", repository)
    assert repository.pushes == [(result.best_checkpoint.name, "", False, 3)]


def test_without_evaluation_the_last_is_the_best(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = Repository()
    run(lab, monkeypatch, "end", repository, evaluates=False)
    assert [name for name, *_ in repository.pushes] == ["checkpoint-6"]


def test_a_failed_push_is_said_and_tried_again(
    lab: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = Repository(failing=1)
    run(lab, monkeypatch, "all_checkpoints", repository)
    assert "tried again after the next save" in capsys.readouterr().err
    assert [name for name, *_ in repository.pushes] == [f"checkpoint-{n}" for n in (2, 4, 6)]


def test_what_can_not_be_pushed_at_the_end_is_an_error_with_everything_on_disk(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(HubError, match="no network"):
        run(lab, monkeypatch, "push_last", Repository(failing=99))
    assert (lab.directory / "run" / "checkpoint-6" / "model.safetensors").is_file()


def test_what_only_resuming_needs_is_left_out(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from fnmatch import fnmatch

    run(lab, monkeypatch, "end", Repository())
    names = {path.name for path in (lab.directory / "run" / "checkpoint-6").iterdir()}
    kept = {name for name in names if not any(fnmatch(name, p) for p in FOR_RESUMING)}
    assert kept == {"config.json", "generation_config.json", "model.safetensors"}


def test_flags_without_pushing_are_refused() -> None:
    with pytest.raises(UsageError, match="--hub_model_id has no effect without --push_to_hub"):
        PushArguments(hub_model_id="a").check(frozenset({"hub_model_id"}))
    PushArguments(hub_model_id="a", push_to_hub=True).check(
        frozenset({"hub_model_id", "push_to_hub"})
    )
