"""``ft rlhf --rlhf_type rm`` from words to a reward model that plain transformers and peft use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from ft_cli.main import main

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("rlhf")]

PAIRS = [
    {"query": f"say {word}", "response": f"{word} yes", "rejected_response": f"{word} no"}
    for word in ("ba", "ce", "di", "fo", "gu", "ha", "je", "ki", "lo", "mu")
]


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in PAIRS), encoding="utf-8")
    return file


def words(model: Path, rows: Path, output: Path, *more: object) -> list[str]:
    settings = {
        "rlhf_type": "rm",
        "model_id_or_path": model,
        "template_type": "chatml",
        "dataset": rows,
        "dataset_test_ratio": 0.2,
        "output_dir": output,
        "batch_size": 4,
        "gradient_accumulation_steps": 2,
        "center_rewards_coefficient": 0.01,
        "max_steps": 10,
        "eval_steps": 5,
        "logging_steps": 1,
        "dtype": "fp32",
        "dataloader_num_workers": 0,
    }
    flags = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    return ["rlhf", *flags, *map(str, more)]


def run_of(output: Path) -> Path:
    return next(output.glob("*/v0-*"))


def log_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "logging.jsonl").read_text().splitlines()]


def scores(model: Any, tokenizer: Any, row: dict[str, str]) -> tuple[float, float]:
    """Score both answers of a row in the chat format of the checkpoint."""
    texts = [
        tokenizer.apply_chat_template(
            [
                {"role": "user", "content": row["query"]},
                {"role": "assistant", "content": row[name]},
            ],
            tokenize=False,
        ).rstrip("\n")
        for name in ("response", "rejected_response")
    ]
    ids = [tokenizer(text, add_special_tokens=False, return_tensors="pt") for text in texts]
    with torch.no_grad():
        chosen, rejected = (model(**item).logits.item() for item in ids)
    return chosen, rejected


@pytest.mark.parametrize("tuner", ["lora", "full"])
def test_a_reward_model_prefers_what_it_learned_and_plain_libraries_load_it(
    model: Path, pairs: Path, tmp_path: Path, tuner: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rate = {"lora": 1e-2, "full": 3e-3}[tuner]
    more = ("--sft_type", tuner, "--learning_rate", rate)
    assert main(words(model, pairs, tmp_path, *more)) == 0
    run = run_of(tmp_path)
    log = log_of(run)
    accuracies = [row["rewards/accuracies"] for row in log if "rewards/accuracies" in row]
    assert accuracies[-1] == 1
    last = [row for row in log if "eval_loss" in row][-1]
    assert last["eval_rewards/accuracies"] == 1 and last["eval_rewards/margins"] > 0
    checkpoint = run / "checkpoint-10"
    load = AutoModelForSequenceClassification.from_pretrained
    if tuner == "full":
        loaded = load(checkpoint)
    else:
        loaded = PeftModel.from_pretrained(load(model, num_labels=1), checkpoint)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    found = [scores(loaded.eval(), tokenizer, row) for row in PAIRS]
    assert all(chosen > rejected for chosen, rejected in found)
    margin = sum(chosen - rejected for chosen, rejected in found) / len(found)
    shown = [row["rewards/margins"] for row in log if "rewards/margins" in row][-1]
    assert margin == pytest.approx(shown, rel=0.5)
    capsys.readouterr()
    assert main(["infer", "--ckpt_dir", str(checkpoint), "--val_dataset", str(pairs)]) == 1
    assert "is a reward model" in capsys.readouterr().err
    if tuner == "lora":
        assert main(["merge-lora", "--ckpt_dir", str(checkpoint)]) == 1
        assert "is the adapter of a reward model" in capsys.readouterr().err


def test_a_resumed_reward_model_ends_like_one_that_went_through(
    model: Path, pairs: Path, tmp_path: Path
) -> None:
    more = ("--save_steps", 5, "--lr_scheduler_type", "constant", "--max_steps")
    assert main(words(model, pairs, tmp_path / "whole", *more, 10)) == 0
    assert main(words(model, pairs, tmp_path / "half", *more, 5)) == 0
    half = run_of(tmp_path / "half")
    resumed = ("--resume_from_checkpoint", half / "checkpoint-5")
    assert main(words(model, pairs, tmp_path / "half", *more, 10, *resumed)) == 0
    name = Path("checkpoint-10") / "adapter_model.safetensors"
    assert (run_of(tmp_path / "whole") / name).read_bytes() == (half / name).read_bytes()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--sft_type", "llamapro"), "--sft_type llamapro and --rlhf_type rm"),
        (("--predict_with_generate", "true"), "--predict_with_generate true and --rlhf_type rm"),
        (("--loss_type", "sigmoid"), "--loss_type sigmoid is no loss of rm"),
        (("--label_smoothing", 0.1), "no meaning for the loss bradley_terry of rm"),
        (("--center_rewards_coefficient", -1), "--center_rewards_coefficient"),
        (("--sequence_parallel_size", 2), "--sequence_parallel_size 2"),
    ],
)
def test_what_a_reward_model_cannot_use_is_named(
    model: Path,
    pairs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: tuple[object, ...],
    message: str,
) -> None:
    assert main(words(model, pairs, tmp_path, *flags)) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
