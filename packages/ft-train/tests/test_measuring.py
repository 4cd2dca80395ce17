"""What evaluations decide: the best checkpoint, stopping early, and the weights at the end."""

import json
import math

import pytest
import torch
from transformers import AutoModelForCausalLM

from ft_core.engine import Sampling
from ft_core.errors import UsageError
from ft_train import SftRecipe, TrainData
from ft_train.generation import AnswerSettings
from ft_train.run_options import Extras

EVERY_STEP = {
    "evaluation_strategy": "steps",
    "eval_steps": 1,
    "save_strategy": "steps",
    "save_steps": 1,
    "save_total_limit": None,
}
OVERFITS = {"steps": 8, "learning_rate": 1e-2, "lr_scheduler_type": "constant", **EVERY_STEP}


def extras(decode, **sampling):
    return Extras(
        answers=AnswerSettings(
            decode, frozenset({2}), sampling=Sampling(**{"max_new_tokens": 8, **sampling})
        )
    )


def evaluations(result, name="eval_loss"):
    return {row["step"]: row[name] for row in result.log_history if name in row}


def test_answers_are_measured_and_choose_the_best(lab, decode):
    data = TrainData(lab.samples(4), lab.samples(2))
    plan = lab.plan(
        **{**OVERFITS, "steps": 6},
        predict_with_generate=True,
        best_metric="rouge-l",
        greater_is_better=True,
    )
    result = lab.run(lab.model(), plan, data, extras=extras(decode))
    found = evaluations(result, "eval_rouge-l")
    assert len(found) == 6 and all(0 <= value <= 100 for value in found.values())
    assert {"eval_rouge-1", "eval_rouge-2", "eval_bleu-4", "eval_loss", "eval_acc"} <= set(
        result.log_history[-1]
    )
    assert result.best_metric == max(found.values())
    assert found[int(result.best_checkpoint.name.rpartition("-")[2])] == result.best_metric
    assert (lab.directory / "run" / "images" / "eval_rouge_l.png").is_file()


def test_a_model_that_knows_its_rows_scores_all(lab, decode):
    """Rows whose answers are what the model says anyway."""
    model = lab.model().eval()
    rows = []
    for sample in lab.samples(3):
        prompt = list(sample.sequences[0].input_ids[:3])
        output = model.generate(torch.tensor([prompt]), max_new_tokens=5, do_sample=False)
        ids = output[0].tolist()
        tokens = type(sample.sequences[0])(ids, [0.0] * 3 + [1.0] * (len(ids) - 3))
        rows.append(type(sample)((tokens,), sample.row))
    plan = lab.plan(
        steps=1, learning_rate=0.0, predict_with_generate=True, **EVERY_STEP, eval_batch_size=2
    )
    result = lab.run(
        model, plan, TrainData(lab.samples(4), rows), extras=extras(decode, max_new_tokens=5)
    )
    row = result.log_history[-1]
    assert row["eval_rouge-l"] == pytest.approx(100) and row["eval_bleu-4"] == pytest.approx(100)
    assert row["eval_acc"] == 1.0


def test_stopping_early(lab):
    data = TrainData(lab.samples(4), lab.samples(3, seed=2))
    straight = lab.run(lab.model(), lab.plan(**OVERFITS), data, name="straight")
    losses = evaluations(straight)
    best, passed, expected = math.inf, 0, 8
    for step, loss in losses.items():
        best, passed = (loss, 0) if loss < best else (best, passed + 1)
        if passed == 2:
            expected = step
            break
    assert expected < 8
    stopped = lab.run(lab.model(), lab.plan(**OVERFITS, early_stopping_patience=2), data)
    assert stopped.global_step == expected and not stopped.interrupted
    assert stopped.last_checkpoint.name == f"checkpoint-{expected}"
    assert stopped.best_metric == best


def test_patience_survives_a_resume(lab):
    data = TrainData(lab.samples(4), lab.samples(3, seed=2))
    patient = lab.plan(**OVERFITS, early_stopping_patience=3)
    straight = lab.run(lab.model(), patient, data, name="straight")
    at = straight.global_step - 1
    lab.run(lab.model(), lab.plan(**{**OVERFITS, "steps": at}), data)
    checkpoint = lab.directory / "run" / f"checkpoint-{at}"
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    resumed = lab.run(model, patient, data, resume=checkpoint)
    assert resumed.global_step == straight.global_step < 8


def test_a_threshold_makes_small_gains_count_for_nothing(lab):
    data = TrainData(lab.samples(16), lab.samples(3, seed=2))
    plan = lab.plan(
        **{**OVERFITS, "learning_rate": 1e-4},
        early_stopping_patience=2,
        early_stopping_threshold=5.0,
    )
    assert lab.run(lab.model(), plan, data).global_step == 3


def test_the_best_weights_come_back(lab, same_weights):
    data = TrainData(lab.samples(4), lab.samples(3, seed=2))
    model, last = lab.model(), lab.model()
    result = lab.run(model, lab.plan(**OVERFITS, load_best_model_at_end=True), data)
    lab.run(last, lab.plan(**OVERFITS), data, name="last")
    assert result.best_checkpoint != result.last_checkpoint
    same_weights(model, AutoModelForCausalLM.from_pretrained(result.best_checkpoint))
    same_weights(last, AutoModelForCausalLM.from_pretrained(result.last_checkpoint))


def test_an_unknown_metric_is_named_with_those_there_are(lab):
    data = TrainData(lab.samples(4), lab.samples(3, seed=2))
    with pytest.raises(UsageError, match="--metric_for_best_model f1: evaluation gives loss, acc"):
        lab.run(lab.model(), lab.plan(**EVERY_STEP, best_metric="f1"), data)


@pytest.mark.parametrize("accuracy", ["token", "sentence"])
def test_training_rows_show_accuracy(lab, accuracy):
    result = lab.run(
        lab.model(), lab.plan(steps=12, learning_rate=1e-2), TrainData(lab.samples(4)),
        recipe=SftRecipe(accuracy=accuracy),
    )  # fmt: skip
    found = [row["acc"] for row in result.log_history if "acc" in row]
    assert len(found) == 12 and found[0] < found[-1] <= 1


def test_tokens_that_were_read_are_counted_over_resumes(lab):
    rows = lab.samples(8)
    plan = lab.plan(
        steps=4, include_num_input_tokens_seen=True, save_strategy="steps", save_steps=2
    )
    first = lab.run(lab.model(), plan, TrainData(rows))
    whole = sum(sample.length for sample in rows)
    assert [row["num_input_tokens_seen"] for row in first.log_history][1::2] == [whole, 2 * whole]
    checkpoint = first.last_checkpoint.parent / "checkpoint-2"
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    again = lab.run(model, plan, TrainData(rows), resume=checkpoint)
    assert again.log_history[-1]["num_input_tokens_seen"] == 2 * whole
    assert "num_input_tokens_seen" not in lab.run(lab.model(), lab.plan(), name="b").log_history[-1]


def test_the_card_of_a_run(lab, decode):
    data = TrainData(lab.samples(4), lab.samples(3, seed=2))
    info = {
        "model_info": {"name": "tiny"},
        "dataset_info": {"train": 4, "dropped": {"too_long": 1}},
    }
    plan = lab.plan(**{**OVERFITS, "steps": 3}, sample_answers=2, seed=7)
    result = lab.run(lab.model(), plan, data, extras=extras(decode), info=info)
    card = json.loads((lab.directory / "run" / "run_card.json").read_text(encoding="utf-8"))
    assert card["data"] == info["dataset_info"] and card["seed"] == 7
    assert card["result"]["best_metric"] == result.best_metric
    assert card["versions"]["torch"] == torch.__version__
    assert card["hardware"]["cores"] and card["recipe"] == "sft"
    assert len(card["answers"]) == 2
    first, question = card["answers"][0], data.evaluation[0].sequences[0]
    assert first["prompt"] == decode(question.input_ids[:3])
    assert first["reference"] == decode(question.input_ids[3:])
    untrained, trained = lab.model(), AutoModelForCausalLM.from_pretrained(result.last_checkpoint)
    for model, said in ((untrained, first["before"]), (trained, first["after"])):
        ids = torch.tensor([question.input_ids[:3]])
        output = model.eval().generate(ids, max_new_tokens=8, do_sample=False, eos_token_id=2)
        assert said == decode([t for t in output[0, 3:].tolist() if t != 2])
    text = (lab.directory / "run" / "run_card.md").read_text(encoding="utf-8")
    assert "too_long 1" in text and "**Before training**" in text and first["after"] in text
