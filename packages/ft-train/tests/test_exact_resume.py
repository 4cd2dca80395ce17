"""Stopping anywhere and going on gives the weights of a run that never stopped, to the bit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from ft_core.command import Command, Invocation
from ft_core.command.resolve import resolve
from ft_core.errors import FtError, ModelError
from ft_core.models.loading import load_model
from ft_core.samples import Dropped, Sample
from ft_core.tuners import TUNERS
from ft_train import Extras, SftRecipe, TrainData, TrainingPlan, train
from ft_train.arguments import RunArguments, TrainingArguments
from ft_train.callbacks.adalora import RANKS_FILE
from ft_train.optimizer_arguments import OPTIMIZER_GROUPS
from ft_train.tuner_arguments import TUNER_GROUPS
from ft_train.tuner_settings import ModelFacts, tuner_settings
from ft_train.tuning import tuning_of

COMMAND = Command(
    "train",
    "A training command.",
    (*TUNER_GROUPS, *OPTIMIZER_GROUPS, TrainingArguments, RunArguments),
    "nowhere:run",
)
STEPS = 9
ADALORA = "--sft_type adalora --adalora_init_r 6 --adalora_target_r 3"


def read(text: str) -> Invocation:
    return resolve(COMMAND, text.split(), environ={}, warn=lambda _: None)


def begin(lab: Any, text: str) -> Any:
    torch.manual_seed(0)
    invocation = read(text)
    tuner = TUNERS.get(invocation.values["sft_type"].value)
    model = load_model(lab.model_directory, dtype=torch.float32, for_training=True)
    settings = tuner_settings(invocation, ModelFacts(total_steps=STEPS))
    return tuner.apply(model, settings)


def reload(lab: Any, text: str, checkpoint: Path) -> Any:
    """Load a checkpoint as a command does that resumes."""
    torch.manual_seed(123)
    kind = read(text).values["sft_type"].value
    if kind == "full":
        return load_model(checkpoint, dtype=torch.float32, for_training=True)
    base = load_model(lab.model_directory, dtype=torch.float32, for_training=True)
    return TUNERS.get(kind).load(base, checkpoint, trainable=True)


def run(lab: Any, model: Any, text: str, data: TrainData, name: str, **options: Any) -> Path:
    plan: TrainingPlan = lab.plan(
        steps=STEPS,
        save_strategy="steps",
        save_steps=1,
        save_total_limit=None,
        dataloader_num_workers=2,
        learning_rate=1e-2,
    )
    tuning = tuning_of(read(text), plan)
    directory: Path = lab.directory / name
    directory.mkdir(exist_ok=True)
    train(
        SftRecipe(),
        model,
        TUNERS.get(read(text).values["sft_type"].value),
        data,
        plan,
        directory,
        extras=Extras(optimizer=tuning.optimizer, penalty=tuning.penalty, keeper=tuning.keeper),
        callbacks=tuning.watchers,
        **options,
    )
    return directory


class Lazy(Sequence[Any]):
    """Rows that are encoded when they are asked for; some give nothing, and some several samples."""

    def __init__(self, samples: list[Sample]) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: Any) -> Any:
        if index % 5 == 3:
            return [Dropped(index, "empty", "nothing to train")]
        sample = self._samples[index]
        return [sample, sample] if index % 5 == 1 else [sample]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("--lora_rank 2 --lora_dropout 0.2", "plain"),
        ("--lora_rank 2 --lora_dropout 0.2", "lazy"),
        ("--lora_rank 2", "packed"),
        (ADALORA, "plain"),
        (f"{ADALORA} --adalora_deltaT 4 --adalora_tinit 2 --adalora_tfinal 2", "plain"),
        ("--sft_type full --lisa_activated_layers 1 --lisa_step_interval 2", "plain"),
        ("--sft_type full --use_galore true --galore_rank 4 --galore_update_proj_gap 3", "plain"),
        ("--sft_type full --optim muon", "packed"),
    ],
)
def test_any_step_can_be_the_last_one_before_a_stop(lab: Any, text: str, kind: str) -> None:
    rows = lab.samples(13)  # 13 rows of 4 a step: the last step of an epoch is smaller
    data = {
        "plain": TrainData(rows),
        "lazy": TrainData(Lazy(rows)),
        "packed": TrainData(rows, groups=[[0, 1, 2], [3], [4, 5], [6, 7], [8, 9, 10], [11, 12]]),
    }[kind]
    whole = begin(lab, text)
    directory = run(lab, whole, text, data, "whole")
    expected = {name: p for name, p in whole.named_parameters() if p.requires_grad}
    for stop in (2, 4, 7):
        checkpoint = directory / f"checkpoint-{stop}"
        model = reload(lab, text, checkpoint)
        run(lab, model, text, data, f"from-{stop}", resume=checkpoint)
        found = dict(model.named_parameters())
        for name, parameter in expected.items():
            assert torch.equal(found[name], parameter), (stop, name)


def test_adalora_says_what_it_lacks(lab: Any) -> None:
    data = TrainData(lab.samples(6))
    directory = run(lab, begin(lab, ADALORA), ADALORA, data, "whole")
    checkpoint = directory / "checkpoint-3"
    (checkpoint / RANKS_FILE).unlink()
    with pytest.raises(ModelError, match=f"lacks {RANKS_FILE}; use --resume_only_model true"):
        run(lab, reload(lab, ADALORA, checkpoint), ADALORA, data, "again", resume=checkpoint)


def test_a_write_that_fails_leaves_the_checkpoint_before_it(lab: Any) -> None:
    def full(directory: Path) -> None:
        if directory.name.startswith(".checkpoint-4."):
            raise OSError(28, "No space left on device")

    data, directory = TrainData(lab.samples(13)), lab.directory / "run"
    plan = lab.plan(steps=6, save_strategy="steps", save_steps=2, save_total_limit=1)
    whole = lab.model()
    lab.run(whole, plan, data, name="whole")
    with pytest.raises(
        FtError,
        match=r"checkpoint-4 can't be written: No space left .*checkpoint-2 is whole: go on with",
    ):
        lab.run(lab.model(), plan, data, sidecars=full)
    assert [path.name for path in sorted(directory.iterdir()) if "checkpoint" in path.name] == [
        "checkpoint-2"
    ]
    checkpoint = directory / "checkpoint-2"
    (directory / ".checkpoint-4.abc").mkdir()  # as a process that was killed leaves it
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    lab.run(model, plan, data, resume=checkpoint)
    for one, other in zip(whole.parameters(), model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert not (directory / ".checkpoint-4.abc").exists()
