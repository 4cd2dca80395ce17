"""Memory that runs out: smaller micro-batches where that is asked for, advice where it isn't."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from ft_core.errors import FtError, UsageError
from ft_core.models.memory import MemoryEstimate
from ft_train import SftRecipe, TrainData
from ft_train.advice import memory_savings
from ft_train.machine import is_out_of_memory, limit_gpu_memory
from ft_train.run_options import Extras

GIB = 2**30


class Tight:
    """The recipe on a machine whose memory holds so many rows of a micro-batch."""

    def __init__(self, rows, *, after=0, error=torch.OutOfMemoryError):
        self._recipe, self._rows, self._after, self._error = SftRecipe(), rows, after, error
        self.calls = 0

    def __getattr__(self, name):
        return getattr(self._recipe, name)

    def loss(self, model, batch, reference):
        self.calls += 1
        if len(batch["cu_seqlens"]) - 1 > self._rows and self.calls > self._after:
            raise self._error("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self._recipe.loss(model, batch, reference)


@pytest.mark.parametrize("after", [0, 3], ids=["at once", "in the second step"])
def test_a_run_that_starts_over_is_the_run_with_the_smaller_batch(lab, same_weights, capsys, after):
    found, expected = lab.model(attention_dropout=0.2), lab.model(attention_dropout=0.2)
    plan = lab.plan(batch_size=8, gradient_accumulation_steps=1, auto_find_batch_size=True)
    result = lab.run(found, plan, TrainData(lab.samples(30)), recipe=Tight(2, after=after))
    assert result.batch_size == 2
    straight = lab.run(
        expected,
        replace(plan, batch_size=2, gradient_accumulation_steps=4),
        TrainData(lab.samples(30)),
        name="straight",
    )
    same_weights(found, expected)
    assert [row["loss"] for row in result.log_history] == [
        row["loss"] for row in straight.log_history
    ]
    said = capsys.readouterr().err
    assert "batch_size 8: starting again with 4" in said and "with 2, and" in said


def test_smaller_batches_keep_the_rows_of_a_step(lab):
    plan, sizes = lab.plan(batch_size=12, gradient_accumulation_steps=3), []
    while plan is not None:
        assert plan.rows_per_step == 36
        sizes.append(plan.batch_size)
        plan = plan.with_fewer_rows()
    assert sizes == [12, 6, 3, 1]


def test_a_found_batch_size_is_kept_when_the_run_goes_on(lab):
    plan = lab.plan(
        batch_size=4,
        gradient_accumulation_steps=1,
        auto_find_batch_size=True,
        save_strategy="steps",
        save_steps=2,
    )
    first = lab.run(lab.model(), replace(plan, steps=2), recipe=Tight(2))
    model = AutoModelForCausalLM.from_pretrained(first.last_checkpoint, dtype=torch.float32)
    resumed = lab.run(model, plan, recipe=Tight(2), resume=first.last_checkpoint)
    assert (resumed.batch_size, resumed.global_step) == (2, 4)


def test_micro_batches_are_joined_and_keep_the_rows_of_a_step(lab):
    plan = lab.plan(batch_size=2, gradient_accumulation_steps=6)
    assert not plan.is_joined
    joined = plan.joined()
    assert [(item.batch_size, item.gradient_accumulation_steps) for item in joined] == [
        (12, 1),
        (6, 2),
        (4, 3),
    ]
    assert all(item.is_joined and item.rows_per_step == 12 for item in joined)
    assert "3 micro-batches of 2 at once" in joined[1].reasons["batch_size"]


def test_a_run_goes_on_with_the_micro_batches_it_chose(lab, same_weights):
    plan = lab.plan(
        batch_size=1,
        gradient_accumulation_steps=4,
        lr_scheduler_type="constant",
        warmup_steps=0,
        save_strategy="steps",
        save_steps=2,
    )
    halves, all_at_once = plan.joined()[1], plan.joined()[0]
    expected = lab.model(attention_dropout=0.2)
    lab.run(expected, halves, name="straight")
    model = lab.model(attention_dropout=0.2)
    first = lab.run(model, replace(halves, steps=2))
    found = AutoModelForCausalLM.from_pretrained(
        first.last_checkpoint, dtype=torch.float32, attention_dropout=0.2
    )
    resumed = lab.run(found, all_at_once, resume=first.last_checkpoint)
    assert resumed.batch_size == 2
    same_weights(found, expected)


def test_when_one_row_is_too_much_the_error_says_what_helps(lab):
    estimate = MemoryEstimate(
        weights=10 * GIB,
        gradients=10 * GIB,
        optimizer=20 * GIB,
        activations=6 * GIB,
        logits=GIB,
        recomputed=GIB,
        process=0,
        free=20 * GIB,
    )
    with pytest.raises(FtError) as raised:
        lab.run(
            lab.model(),
            lab.plan(batch_size=4, auto_find_batch_size=True),
            recipe=Tight(0),
            extras=Extras(estimate=estimate),
        )
    message = str(raised.value)
    assert "ran out with batch_size 1" in message
    helps = message[message.index("These help most") :]
    assert helps.count("saves about") == 3
    assert "--sft_type lora (saves about 30.00 GiB)" in helps
    assert "--optim adamw_8bit (saves about 15.00 GiB)" in helps
    assert "--gradient_checkpointing true (saves about 5.00 GiB)" in helps


def test_advice_leaves_out_what_is_done_already(lab):
    estimate = MemoryEstimate(4 * GIB, GIB, GIB, GIB, GIB, GIB, 0, 20 * GIB)
    plan = lab.plan(batch_size=4, gradient_checkpointing=True, optim="adamw_8bit", device="cuda")
    found = [item.flag for item in memory_savings(estimate, plan, "lora")]
    assert found == ["--quantization_bit 4", "half the --max_length", "--batch_size 2"]
    joined = memory_savings(estimate, plan.joined()[0], "lora")
    assert "--join_micro_batches false" in [item.flag for item in joined]


def test_without_an_estimate_the_advice_is_general(lab):
    with pytest.raises(FtError, match="memory ran out with batch_size 2; try"):
        lab.run(lab.model(), lab.plan(), recipe=Tight(1))


def test_other_errors_are_no_lack_of_memory(lab):
    with pytest.raises(OSError, match="CUDA out of memory"):
        lab.run(lab.model(), lab.plan(auto_find_batch_size=True), recipe=Tight(1, error=OSError))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("x"), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
            True,
        ),
        (MemoryError(), True),
        (RuntimeError("shapes don't match"), False),
        (ValueError("can't allocate memory"), False),
    ],
)
def test_what_counts_as_lack_of_memory(error, expected):
    assert is_out_of_memory(error) is expected


def test_several_processes_can_not_look_for_a_batch_size(lab):
    with pytest.raises(UsageError, match="--auto_find_batch_size true works in one process"):
        lab.run(lab.model(), lab.plan(auto_find_batch_size=True, world_size=2))


def test_a_share_of_the_gpu(monkeypatch):
    asked = []
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda share, device: asked.append(share)
    )
    limit_gpu_memory(None, "cpu")
    limit_gpu_memory(0.5, "cuda:0")
    assert asked == [0.5]
    with pytest.raises(UsageError, match=r"--gpu_memory_fraction 0\.5 limits the memory of a GPU"):
        limit_gpu_memory(0.5, "cpu")


def test_determinism_holds_for_the_run_only(lab):
    seen = []

    class Asks(Tight):
        def loss(self, model, batch, reference):
            seen.append(torch.are_deterministic_algorithms_enabled())
            return super().loss(model, batch, reference)

    lab.run(lab.model(), lab.plan(steps=1, full_determinism=True), recipe=Asks(9))
    assert seen and all(seen)
    assert not torch.are_deterministic_algorithms_enabled()
