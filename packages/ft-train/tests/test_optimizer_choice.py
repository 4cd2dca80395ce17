"""Optimizers by name: that they learn, and that Muon is what its authors say."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from ft_core.errors import UsageError
from ft_train import TrainData
from ft_train.arguments import needs_bitsandbytes


@pytest.mark.parametrize(
    "optim",
    [
        *("adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop", "muon"),
        *("ademamix", "lion_32bit", "adamw_8bit"),
    ],
)
def test_optimizers_learn(lab, optim):
    if needs_bitsandbytes(optim):
        pytest.importorskip("bitsandbytes")
    rates = {"sgd": 0.3, "rmsprop": 1e-3, "lion_32bit": 1e-3}
    result = lab.run(
        lab.model(),
        lab.plan(optim=optim, steps=8, learning_rate=rates.get(optim, 1e-2)),
        TrainData(lab.samples(4)),
    )
    losses = [row["loss"] for row in result.log_history]
    assert losses[-1] < losses[0]


def test_paged_optimizers_need_a_gpu(lab):
    with pytest.raises(UsageError, match="--optim paged_adamw_8bit pages its states to the CPU"):
        lab.run(lab.model(), lab.plan(optim="paged_adamw_8bit"))


def test_muon_takes_orthogonal_steps_for_matrices_and_adamw_for_the_rest(lab):
    model, before = lab.model(), dict(lab.model().named_parameters())
    plan = lab.plan(
        optim="muon", steps=1, lr_scheduler_type="constant", weight_decay=0.0, max_grad_norm=0.0
    )
    lab.run(model, plan)
    for name, value in model.named_parameters():
        step = (before[name] - value).detach() / plan.learning_rate
        if name.endswith("q_proj.weight"):
            # Five Newton-Schulz iterations leave singular values between about 0.7 and 1.2.
            sizes = torch.linalg.svdvals(step) / (0.2 * max(step.shape) ** 0.5)
            assert sizes.max() < 1.4 and sizes.median() > 0.5
        elif "embed_tokens" in name or "lm_head" in name or "norm" in name:
            moved = step[step.abs() > 1e-2].abs()
            assert moved.median() == pytest.approx(1, abs=2e-2) and moved.max() < 1.02


def test_muon_goes_on_where_a_checkpoint_stopped(lab, same_weights):
    whole = lab.model()
    plan = lab.plan(optim="muon", steps=4, save_strategy="steps", save_steps=2, save_total_limit=9)
    straight = lab.run(whole, plan, name="straight")
    lab.run(lab.model(), replace(plan), name="half")
    checkpoint = lab.directory / "half" / "checkpoint-2"
    resumed = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    lab.run(resumed, plan, name="half", resume=checkpoint)
    assert straight.global_step == 4
    same_weights(whole, resumed)
