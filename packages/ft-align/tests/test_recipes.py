"""Recipes: how a batch is cut changes nothing; what anchors, references and metrics are."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from ft_align.encoding import AnswerEncoder, PairEncoder
from ft_align.mismatched import mismatch
from ft_align.recipes import Cpo, Dpo, LabelledRecipe, Orpo, PairRecipe
from ft_align.reference import AdapterOff, Frozen, adapter_off
from ft_align.running_mean import RunningMean
from ft_align.shared_prompts import enable_shared_prompts
from ft_core.examples import Example
from ft_core.recipe import LossOutput, Recipe, StepRecipe
from ft_core.samples import Sample
from ft_core.templates.template import Template
from ft_core.testing import tiny_model

RECIPES: dict[str, Recipe] = {
    "dpo": PairRecipe(objective=Dpo(0.3), share=0.8, likelihood=0.2),
    "ipo": PairRecipe(objective=Dpo(0.3, "ipo")),
    "orpo": PairRecipe(PairEncoder("orpo"), Orpo(), likelihood=1.0),
    "simpo": PairRecipe(PairEncoder("simpo"), Cpo(2.0, "simpo"), likelihood=1.0),
    "cpo": PairRecipe(PairEncoder("cpo"), Cpo(0.2), likelihood=0.5),
    "kto": LabelledRecipe(beta=0.3, desirable_weight=1.4),
    "bco": LabelledRecipe(beta=0.3, loss_type="bco"),
    "apo": LabelledRecipe(beta=0.3, loss_type="apo_zero_unpaired"),
}


@pytest.fixture(scope="module")
def model(directory: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(directory, attn_implementation="sdpa")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Frozen:
    path = tiny_model(tmp_path_factory.mktemp("reference"), seed=2)
    return Frozen(AutoModelForCausalLM.from_pretrained(path, attn_implementation="sdpa"))


def samples_of(
    recipe: Recipe, template: Template, pairs: list[Example], labelled: list[Example]
) -> list[Sample]:
    rows = labelled if isinstance(recipe, LabelledRecipe) else pairs
    samples = [item for item in recipe.encode(rows, template) if isinstance(item, Sample)]
    assert len(samples) == len(rows)
    return samples


def step(
    recipe: Recipe, model: Any, cut: Sequence[Sequence[Sample]], reference: Any
) -> tuple[float, dict[str, torch.Tensor], list[LossOutput]]:
    """Do what the trainer does in a step: look at all of it, then add up the normalised losses."""
    found: Sequence[Any] = [{} for _ in cut]
    if isinstance(recipe, StepRecipe):
        found = recipe.prepare(model, cut, reference)
    totals = recipe.count([sample for samples in cut for sample in samples])
    value, outputs = 0.0, []
    for samples, more in zip(cut, found, strict=True):
        output = recipe.loss(model, {**recipe.collate(samples), **more}, reference)
        loss = torch.stack([t.total / totals[t.unit] for t in output.terms.values()]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        value += loss.item()
        outputs.append(output)
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return value, gradients, outputs


def mean(outputs: list[LossOutput], name: str) -> float:
    parts = [output.metrics[name] for output in outputs if name in output.metrics]
    return sum(total for total, _ in parts) / sum(count for _, count in parts)


@pytest.mark.parametrize("name", RECIPES)
def test_how_a_batch_is_cut_changes_nothing(
    name: str,
    model: Any,
    reference: Frozen,
    chatml: Template,
    pairs: list[Example],
    labelled: list[Example],
) -> None:
    recipe = RECIPES[name]
    samples = samples_of(recipe, chatml, pairs, labelled)
    whole, gradients, outputs = step(recipe, model, [samples], reference)
    assert any(gradient.abs().max() > 1e-3 for gradient in gradients.values())
    shuffled = [samples[index] for index in (3, 0, 4, 2, 1)]
    for cut in ([[item] for item in samples], [samples[:2], samples[2:]], [[x] for x in shuffled]):
        value, other, parts = step(recipe, model, cut, reference)
        assert value == pytest.approx(whole, rel=1e-5)
        assert other.keys() == gradients.keys()
        for key, gradient in gradients.items():
            torch.testing.assert_close(other[key], gradient, rtol=1e-3, atol=1e-5, msg=key)
        for metric in outputs[0].metrics:
            assert mean(parts, metric) == pytest.approx(mean(outputs, metric), rel=1e-4), metric


def test_weights_of_rows_count_in_every_term(
    model: Any, reference: Frozen, chatml: Template, pairs: list[Example]
) -> None:
    from dataclasses import replace

    recipe = RECIPES["dpo"]
    twice = [pairs[0], pairs[0], pairs[1]]
    weighed = [replace(pairs[0], weight=2.0), pairs[1]]
    steps = [
        step(recipe, model, [[s for s in recipe.encode(rows, chatml) if isinstance(s, Sample)]], reference)
        for rows in (twice, weighed)
    ]  # fmt: skip
    assert steps[0][0] == pytest.approx(steps[1][0], rel=1e-5)


def test_untrained_models_have_no_margin(
    model: Any, chatml: Template, pairs: list[Example]
) -> None:
    recipe = RECIPES["dpo"]
    samples = samples_of(recipe, chatml, pairs, [])
    _, _, outputs = step(recipe, model, [samples], Frozen(copy.deepcopy(model)))
    assert mean(outputs, "rewards/margins") == pytest.approx(0, abs=1e-5)
    assert mean(outputs, "logps/chosen") < -1
    tokens = sum(item.sequences[0].trained for item in samples)
    per_token = -mean(outputs, "logps/chosen") * len(samples) / tokens
    assert mean(outputs, "nll_loss") == pytest.approx(per_token, rel=1e-5)


def test_answers_go_to_the_next_other_prompt(chatml: Template, labelled: list[Example]) -> None:
    recipe = RECIPES["kto"]
    samples = samples_of(recipe, chatml, [], labelled)
    ((first, second, *_),) = mismatch([samples])
    size = int(samples[1].values["prompt"])
    assert second is not None and first is not None
    assert list(second.input_ids[:size]) == list(samples[1].sequences[0].input_ids[:size])
    answer = int(samples[0].values["prompt"])
    assert list(second.input_ids[size:]) == list(samples[0].sequences[0].input_ids[answer:])
    assert sum(second.loss_weights) == samples[0].sequences[0].trained
    last = int(samples[-1].values["prompt"])
    head = int(samples[0].values["prompt"])
    assert list(first.input_ids[head:]) == list(samples[-1].sequences[0].input_ids[last:])
    cut = mismatch([samples], max_length=size + 1)[0][1]
    assert cut is not None and len(cut) == size + 1


def test_answers_to_the_same_prompt_never_meet_it(chatml: Template, pairs: list[Example]) -> None:
    encoder = AnswerEncoder()
    items = [s for s in encoder.encode(pairs[2:4], chatml) if isinstance(s, Sample)]
    assert [item.values["label"] for item in items] == [1.0, 0.0, 1.0, 0.0]
    for own, other in zip(items, mismatch([items])[0], strict=True):
        assert other is not None
        size = int(own.values["prompt"])
        same_row = [item for item in items if item.row == own.row]
        answers = [list(item.sequences[0].input_ids[size:]) for item in same_row]
        assert list(other.input_ids[size:]) not in answers
    assert mismatch([items[:2]]) == [[None, None]]


def test_a_step_with_one_prompt_has_no_divergence(
    model: Any, reference: Frozen, chatml: Template, labelled: list[Example]
) -> None:
    recipe = RECIPES["kto"]
    samples = samples_of(recipe, chatml, [], labelled)[:1]
    _, _, outputs = step(recipe, model, [samples], reference)
    assert outputs[0].metrics["kl"] == (0.0, 1.0)


def test_the_divergence_is_that_of_separate_forwards(
    model: Any, reference: Frozen, chatml: Template, labelled: list[Example]
) -> None:
    recipe = RECIPES["kto"]
    samples = samples_of(recipe, chatml, [], labelled)

    def logprob(net: Any, ids: Sequence[int], prompt: int) -> float:
        with torch.no_grad():
            logprobs = net(input_ids=torch.tensor([list(ids)])).logits[0].log_softmax(-1)
        return sum(float(logprobs[i - 1, ids[i]]) for i in range(prompt, len(ids)))

    # This way round it isn't below 0.
    policy, frozen = (
        copy.deepcopy(reference.model).requires_grad_(True),
        Frozen(copy.deepcopy(model)),
    )
    ratios = []
    for index, sample in enumerate(samples):
        before, size = samples[index - 1], int(sample.values["prompt"])
        learned = before.sequences[0]
        answer = learned.input_ids[int(before.values["prompt"]) :]
        trained = sum(map(bool, learned.loss_weights))
        ids = [*sample.sequences[0].input_ids[:size], *answer[:trained]]
        ratios.append(logprob(policy, ids, size) - logprob(model, ids, size))
    _, _, outputs = step(recipe, policy, [samples], frozen)
    expected = sum(ratios) / len(ratios)
    assert expected > 0.01  # or clamping would hide a difference
    assert outputs[0].metrics["kl"][0] == pytest.approx(expected, rel=1e-3)


def test_bco_compares_with_the_mean_of_the_steps_before(
    model: Any, reference: Frozen, chatml: Template, labelled: list[Example]
) -> None:
    recipe = LabelledRecipe(beta=0.3, loss_type="bco")
    samples = samples_of(recipe, chatml, [], labelled)
    first = recipe.prepare(model, [samples], reference)
    assert first[0]["anchor"] == 0.0
    model.train()
    outputs = [recipe.loss(model, {**recipe.collate(samples), **first[0]}, reference)]
    rewards = sum(outputs[0].metrics[f"rewards/{kind}"][0] for kind in ("chosen", "rejected"))
    second = recipe.prepare(model, [samples, []], reference)
    assert second[0]["anchor"] == pytest.approx(rewards / len(samples))
    # Neither evaluation nor a filler moves it.
    model.eval()
    recipe.loss(model, {**recipe.collate(samples), **second[0]}, reference)
    model.train()
    recipe.loss(model, {**recipe.collate(samples), **second[1]}, reference)
    assert recipe.state() == {"mean": second[0]["anchor"], "count": len(samples)}
    other = LabelledRecipe(beta=0.3, loss_type="bco")
    other.load_state(recipe.state())
    assert other.prepare(model, [samples], reference)[0]["anchor"] == second[0]["anchor"]
    other.load_state({})
    assert other.prepare(model, [samples], reference)[0]["anchor"] == 0.0


def test_a_running_mean_is_the_mean_of_everything() -> None:
    mean_of = RunningMean()
    for total, count in ((3.0, 2), (-4.0, 1), (10.0, 5)):
        mean_of.note(total, count)
        mean_of.settle()
    assert mean_of.value == pytest.approx(9.0 / 8) and mean_of.count == 8


def adapted(directory: Path, **config: Any) -> Any:
    base = AutoModelForCausalLM.from_pretrained(directory, attn_implementation="sdpa")
    settings = {"r": 4, "target_modules": ["q_proj", "down_proj"], "lora_dropout": 0.5, **config}
    net = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **settings))
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                parameter.add_(0.1)
    return net


@pytest.mark.parametrize("config", [{}, {"modules_to_save": ["lm_head"]}])
def test_without_its_adapter_a_model_is_its_base(
    directory: Path, model: Any, chatml: Template, pairs: list[Example], config: dict[str, Any]
) -> None:
    from ft_align.logprobs import answer_logprobs, collate_answers

    net = adapted(directory, **config)
    assert enable_shared_prompts(net)
    off = adapter_off(net)
    assert isinstance(off, AdapterOff)
    batch = collate_answers(samples_of(RECIPES["dpo"], chatml, pairs, []))
    net.train()
    found = answer_logprobs(off, batch).sums
    expected = answer_logprobs(model, batch).sums
    torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=1e-4)
    assert not found.requires_grad and net.training
    with torch.no_grad():
        assert (answer_logprobs(net, batch).sums - expected).abs().max() > 1e-3
    trained = [name for name, p in net.named_parameters() if p.requires_grad]
    assert trained and all("lora" in n or "modules_to_save" in n for n in trained)


@pytest.mark.parametrize(
    "config", [{"bias": "lora_only"}, {"bias": "all"}, {"init_lora_weights": "pissa"}]
)
def test_where_the_base_changes_too_it_needs_a_copy(directory: Path, config: Any) -> None:
    assert adapter_off(adapted(directory, **config)) is None


def test_a_whole_model_has_no_adapter_to_switch_off(model: Any) -> None:
    assert adapter_off(model) is None
