"""Whole runs on tiny models: normalisation, checkpoints, resuming, signals, the log."""

import json
import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, TrainerCallback

from ft_core.errors import DataError, FtError, ModelError, UsageError
from ft_core.samples import Dropped, Sample, Tokens
from ft_core.testing import tiny_model
from ft_train import SftRecipe, TrainData, TrainingPlan, train
from ft_train.order import BatchOrder
from ft_train.run_options import Extras


class WholeModel:
    """A tuner that trains and saves everything."""

    name = "full"

    def save(self, model, directory, *, safe_serialization=True):
        model.save_pretrained(directory, safe_serialization=safe_serialization)


@dataclass
class At(TrainerCallback):
    """Calls a function at the end of one step."""

    step: int
    call: object

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.call()


@pytest.fixture(scope="module")
def model_directory(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model"))


def load(directory, *, dtype=torch.float32, dropout=0.0):
    return AutoModelForCausalLM.from_pretrained(
        directory, dtype=dtype, attention_dropout=dropout, attn_implementation="sdpa"
    )


def samples(count, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for row in range(count):
        length = 6 + int(torch.randint(12, (), generator=generator))
        ids = torch.randint(3, 384, (length,), generator=generator).tolist()
        rows.append(Sample((Tokens(ids, [0.0] * 3 + [1.0] * (length - 3)),), row))
    return rows


def plan(**values):
    settings = {
        "batch_size": 2,
        "gradient_accumulation_steps": 2,
        "steps": 4,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    return TrainingPlan(**{**settings, **values})


def run(model, directory, the_plan, data=None, **options):
    directory.mkdir(exist_ok=True)
    data = data or TrainData(samples(16))
    return train(SftRecipe(), model, WholeModel(), data, the_plan, directory, **options)


def weights(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def rows(directory):
    lines = (directory / "logging.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_one_step_equals_plain_torch(model_directory, tmp_path):
    data = TrainData(samples(4))
    model = load(model_directory, dtype=torch.float64)
    expected = load(model_directory, dtype=torch.float64)
    losses, count = torch.zeros((), dtype=torch.float64), 0
    for sample in data.train:
        ids = torch.tensor([sample.sequences[0].input_ids])
        logits = expected(input_ids=ids).logits[0, 2:-1]
        losses = losses + torch.nn.functional.cross_entropy(logits, ids[0, 3:], reduction="sum")
        count += ids.shape[1] - 3
    (losses / count).backward()
    torch.nn.utils.clip_grad_norm_(expected.parameters(), 1.0)
    torch.optim.AdamW(
        expected.parameters(), lr=1e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0
    ).step()
    result = run(
        model,
        tmp_path,
        plan(steps=1, weight_decay=0.0, lr_scheduler_type="constant"),
        data,
    )
    assert result.final_loss == pytest.approx(losses.item() / count, rel=1e-6)
    for name, value in weights(expected).items():
        torch.testing.assert_close(weights(model)[name], value, rtol=1e-6, atol=1e-12, msg=name)


def test_accumulation_changes_nothing(model_directory, tmp_path):
    results = []
    for batch, accumulation in ((4, 1), (1, 4), (2, 2)):
        model = load(model_directory, dtype=torch.float64)
        directory = tmp_path / f"{batch}"
        result = run(
            model,
            directory,
            plan(batch_size=batch, gradient_accumulation_steps=accumulation, optim="sgd"),
            TrainData(samples(14)),
        )
        results.append((weights(model), [row["loss"] for row in result.log_history]))
    for found, losses in results[1:]:
        assert losses == pytest.approx(results[0][1], rel=1e-6)
        for name, value in results[0][0].items():
            torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-13, msg=name)


def test_packs_train_like_their_rows(model_directory, tmp_path):
    data = samples(8)
    packed, plain = load(model_directory), load(model_directory)
    one_step = plan(batch_size=8, gradient_accumulation_steps=1, steps=1)
    run(plain, tmp_path / "a", one_step, TrainData(data))
    run(
        packed,
        tmp_path / "b",
        replace(one_step, batch_size=3),
        TrainData(data, groups=[[0, 5, 2], [1, 3], [4, 6, 7]]),
    )
    for name, value in weights(plain).items():
        torch.testing.assert_close(weights(packed)[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_evaluation_counts_tokens_alike_however_batched(model_directory, tmp_path):
    held_out = samples(7, seed=5)
    found = []
    for size in (1, 3, 7):
        model = load(model_directory)
        result = run(
            model,
            tmp_path / f"{size}",
            plan(
                evaluation_strategy="steps", eval_steps=4, eval_batch_size=size, learning_rate=0.0
            ),
            TrainData(samples(16), held_out),
        )
        evaluation = [row for row in result.log_history if "eval_loss" in row]
        assert [row["step"] for row in evaluation] == [4]
        found.append((evaluation[0]["eval_loss"], evaluation[0]["eval_acc"]))
    total, count = 0.0, 0
    with torch.no_grad():
        for sample in held_out:
            ids = torch.tensor([sample.sequences[0].input_ids])
            logits = model(input_ids=ids).logits[0, 2:-1]
            total += float(torch.nn.functional.cross_entropy(logits, ids[0, 3:], reduction="sum"))
            count += ids.shape[1] - 3
    for loss, accuracy in found:
        assert loss == pytest.approx(total / count, rel=1e-5)
        assert accuracy == found[0][1]


def test_the_log_and_what_a_run_leaves(model_directory, tmp_path, capsys):
    result = run(
        load(model_directory),
        tmp_path,
        plan(
            steps=6,
            logging_steps=2,
            save_strategy="steps",
            save_steps=2,
            evaluation_strategy="steps",
            eval_steps=2,
            report_to=("tensorboard",),
        ),
        TrainData(samples(16), samples(3, seed=2)),
        sidecars=lambda directory: (directory / "sft_args.json").write_text("{}", encoding="utf-8"),
        info={"model_info": "tiny"},
    )
    log = rows(tmp_path)
    training = [row for row in log if "loss" in row]
    assert [row["global_step/max_steps"] for row in training] == ["2/6", "4/6", "6/6"]
    for key in (
        "grad_norm",
        "learning_rate",
        "memory(GiB)",
        "train_speed(iter/s)",
        "tokens_per_second",
        "trained_tokens_per_second",
        "epoch",
        "percentage",
        "elapsed_time",
        "remaining_time",
    ):
        assert key in training[0], key
    assert [row["eval_loss"] for row in log if "eval_loss" in row]
    assert log[-1]["last_model_checkpoint"] == str(result.last_checkpoint)
    assert log[-1]["model_info"] == "tiny" and log[-1]["global_step"] == 6
    assert result.last_checkpoint == tmp_path / "checkpoint-6"
    names = sorted(path.name for path in tmp_path.iterdir())
    kept = {"checkpoint-6", result.best_checkpoint.name}
    assert {name for name in names if name.startswith("checkpoint-")} == kept
    assert (tmp_path / "images" / "train_loss.png").is_file()
    assert (tmp_path / "images" / "train_learning_rate.png").is_file()
    assert list((tmp_path / "runs").glob("events*"))
    assert (result.last_checkpoint / "sft_args.json").is_file()
    AutoModelForCausalLM.from_pretrained(result.last_checkpoint)
    printed = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("step ") for line in printed) == 6
    assert result.trained_tokens == sum(
        sample.sequences[0].trained for sample in samples(16)
    ) + _trained_in_second_epoch(result)


def _trained_in_second_epoch(result):
    """6 steps of 4 rows on 16 rows are one epoch and a half."""
    from ft_train.order import BatchOrder

    order = BatchOrder(16, batch_size=2, seed=42)
    order.set_epoch(1)
    first_half = [row for batch in list(order)[:4] for row in batch]
    everything = samples(16)
    return sum(everything[row].sequences[0].trained for row in first_half)


def test_best_is_the_lowest_evaluation_loss_and_is_never_deleted(model_directory, tmp_path):
    result = run(
        load(model_directory),
        tmp_path,
        plan(
            steps=8,
            learning_rate=1e-2,  # it learns the rows by heart
            lr_scheduler_type="constant",
            save_strategy="steps",
            save_steps=1,
            evaluation_strategy="steps",
            eval_steps=1,
        ),
        TrainData(samples(4), samples(3, seed=2)),
    )
    losses = {row["step"]: row["eval_loss"] for row in result.log_history if "eval_loss" in row}
    best = min(losses, key=losses.get)
    assert result.best_checkpoint == tmp_path / f"checkpoint-{best}"
    assert result.best_metric == losses[best]
    assert result.best_checkpoint.is_dir() and result.last_checkpoint.is_dir()
    assert best < 7
    assert {path.name for path in tmp_path.glob("checkpoint-*")} == {
        f"checkpoint-{best}",
        "checkpoint-8",
    }


@pytest.mark.parametrize("stop_at", [3, 5], ids=["in the first epoch", "in the second"])
def test_resuming_is_exact(model_directory, tmp_path, stop_at):
    data = TrainData(samples(15), samples(3, seed=2))
    the_plan = plan(
        steps=8, save_strategy="steps", save_steps=100, evaluation_strategy="steps", eval_steps=2
    )
    whole = load(model_directory, dropout=0.3)
    straight = run(whole, tmp_path / "straight", the_plan, data)

    first = load(model_directory, dropout=0.3)
    directory = tmp_path / "stopped"
    stop = At(stop_at, lambda: os.kill(os.getpid(), signal.SIGTERM))
    stopped = run(first, directory, the_plan, data, callbacks=(stop,))
    assert stopped.interrupted and stopped.global_step == stop_at
    assert stopped.last_checkpoint == directory / f"checkpoint-{stop_at}"

    torch.manual_seed(99)
    second = load(stopped.last_checkpoint, dropout=0.3)
    resumed = run(second, directory, the_plan, data, resume=stopped.last_checkpoint)
    assert not resumed.interrupted and resumed.global_step == 8
    for name, value in weights(whole).items():
        assert torch.equal(weights(second)[name], value), name
    assert resumed.best_metric == straight.best_metric
    expected = [(r["step"], r["loss"]) for r in straight.log_history if "loss" in r]
    assert [(r["step"], r["loss"]) for r in resumed.log_history if "loss" in r] == expected
    steps = [row["global_step/max_steps"] for row in rows(directory) if "loss" in row]
    assert steps == [f"{step}/8" for step in range(1, 9)]


def test_ctrl_c_saves_a_whole_checkpoint_even_when_only_weights_are_saved(
    model_directory, tmp_path
):
    stop = At(2, lambda: os.kill(os.getpid(), signal.SIGINT))
    before = signal.getsignal(signal.SIGINT)
    result = run(
        load(model_directory),
        tmp_path,
        plan(save_strategy="steps", save_steps=1, save_only_model=True),
        callbacks=(stop,),
    )
    assert result.interrupted
    assert signal.getsignal(signal.SIGINT) is before
    assert not (tmp_path / "checkpoint-1" / "optimizer.pt").exists()
    assert (tmp_path / "checkpoint-2" / "optimizer.pt").is_file()
    assert (tmp_path / "checkpoint-2" / "rng_state.pth").is_file()


def test_a_second_ctrl_c_stops_at_once(model_directory, tmp_path):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(load(model_directory), tmp_path, plan(), callbacks=(At(1, twice),))


def test_weights_alone_can_not_be_resumed(model_directory, tmp_path):
    the_plan = plan(steps=2, save_strategy="steps", save_only_model=True)
    result = run(load(model_directory), tmp_path, the_plan)
    with pytest.raises(ModelError, match=r"lacks optimizer\.pt.*--resume_only_model"):
        run(load(model_directory), tmp_path, the_plan, resume=result.last_checkpoint)


def test_other_rows_can_not_be_resumed(model_directory, tmp_path):
    the_plan = plan(steps=2, save_strategy="steps")
    result = run(load(model_directory), tmp_path, the_plan)
    with pytest.raises(UsageError, match="the number of rows or packs was 16 and is 9"):
        run(
            load(model_directory),
            tmp_path,
            the_plan,
            TrainData(samples(9)),
            resume=result.last_checkpoint,
        )


def test_a_loss_of_nan_stops_the_run(model_directory, tmp_path):
    model = load(model_directory)
    with torch.no_grad():
        model.lm_head.weight[0, 0] = float("nan")
    place = "rows.jsonl:{}".format
    with pytest.raises(FtError, match="the loss became nan in step 1") as raised:
        run(model, tmp_path, plan(), extras=Extras(name_row=place))
    saved = json.loads((tmp_path / "nan-step-1.json").read_text(encoding="utf-8"))
    assert str(tmp_path / "nan-step-1.json") in str(raised.value)
    rows_of_run = samples(16)
    for row in saved["rows"]:
        assert row["place"] == place(row["row"]) and row["place"] in str(raised.value)
        ids = rows_of_run[row["row"]].sequences[0].input_ids
        assert row["sequences"][0]["input_ids"] == list(ids)
    order = BatchOrder(16, batch_size=2, seed=42)
    assert [row["row"] for row in saved["rows"]] == next(iter(order))


def test_a_gradient_of_nan_names_all_rows_of_the_step(model_directory, tmp_path):
    model = load(model_directory)
    model.lm_head.weight.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(FtError, match=r"the gradient became nan in step 1 \(row \d+, .*row \d+\)"):
        run(model, tmp_path, plan())
    saved = json.loads((tmp_path / "nan-step-1.json").read_text(encoding="utf-8"))
    assert len(saved["rows"]) == 4


def test_no_rows_are_refused(model_directory, tmp_path):
    with pytest.raises(DataError, match="no rows are left"):
        run(load(model_directory), tmp_path, plan(), TrainData([]))


def test_rows_that_are_encoded_on_demand_may_be_dropped(model_directory, tmp_path):
    data = [*samples(6), Dropped(6, "too_long", "too long"), [samples(1)[0], samples(2)[1]]]
    result = run(
        load(model_directory),
        tmp_path,
        plan(batch_size=1, gradient_accumulation_steps=2),
        TrainData(data),
    )
    assert result.dropped == {"too_long": 1}
    assert result.trained_tokens == sum(
        sample.sequences[0].trained for sample in [*samples(6), *samples(2)]
    )


def test_worker_processes_give_the_same_weights(model_directory, tmp_path):
    found = []
    for workers in (0, 1):
        model = load(model_directory)
        run(model, tmp_path / str(workers), plan(steps=2, dataloader_num_workers=workers))
        found.append(weights(model))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_the_model_goes_back_to_its_own_attention(model_directory, tmp_path):
    model = load(model_directory)
    run(model, tmp_path, plan(steps=1))
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    "scheduler",
    [
        "cosine",
        "linear",
        "constant",
        "constant_with_warmup",
        "cosine_with_restarts",
        "polynomial",
        "inverse_sqrt",
    ],
)
def test_schedulers_warm_up(model_directory, tmp_path, scheduler):
    result = run(load(model_directory), tmp_path, plan(lr_scheduler_type=scheduler, warmup_steps=2))
    rates = [row["learning_rate"] for row in result.log_history]
    assert rates[0] == (1e-3 if scheduler == "constant" else 0.0)
    assert max(rates) == pytest.approx(1e-3, rel=0.3)


def test_a_step_with_gradient_checkpointing_is_the_same(model_directory, tmp_path):
    found = []
    for checkpointing in (False, True):
        model = load(model_directory)
        run(
            model,
            tmp_path / str(checkpointing),
            plan(steps=2, gradient_checkpointing=checkpointing),
        )
        found.append(weights(model))
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-5, atol=1e-7)


def test_a_full_disk_is_a_readable_error(model_directory, tmp_path):
    def full(directory: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(FtError, match="No space left"):
        run(
            load(model_directory),
            tmp_path,
            plan(steps=1, save_strategy="steps"),
            sidecars=full,
        )
    assert not list(tmp_path.glob("*checkpoint-1*"))
