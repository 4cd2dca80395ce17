"""``--new_special_tokens`` from rows to answers: trained, resumed, merged, asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ft_cli.main import main

TOKENS = ("<answer>", "</answer>")


@pytest.fixture
def tagged(tmp_path: Path) -> Path:
    file = tmp_path / "tagged.jsonl"
    rows = [
        {"query": f"say {word}", "response": f"<answer>{word}</answer>"} for word in ("ba", "ce")
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


@pytest.mark.parametrize("sft_type", ["lora", "full"])
def test_they_are_answered_with(
    sft_type: str,
    model: Path,
    tagged: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = (
        *("sft", "--model_id_or_path", model, "--dataset", f"{tagged}#8", "--dtype", "fp32"),
        *("--new_special_tokens", *TOKENS, "--sft_type", sft_type, "--learning_rate", 0.03),
        *("--batch_size", 8, "--gradient_accumulation_steps", 1, "--dataset_test_ratio", 0),
        *("--lora_dropout", 0, "--report_to", "none", "--output_dir", tmp_path / "out"),
        *("--save_only_model", "false", "--save_steps", 20),
    )

    def run(*more: object) -> Path:
        assert main([str(word) for word in (*words, *more)]) == 0
        out = capsys.readouterr().out
        return Path(out.split("last checkpoint: ")[1].splitlines()[0])

    first = run("--max_steps", 20)
    checkpoint = run("--max_steps", 40, "--resume_from_checkpoint", first)
    assert checkpoint.name == "checkpoint-40"
    losses = [
        row["loss"]
        for line in (checkpoint.parent / "logging.jsonl").read_text().splitlines()
        if "loss" in (row := json.loads(line))
    ]
    assert losses[-1] < losses[0] - 0.5

    ask = (
        *("infer", "--ckpt_dir", checkpoint, "--val_dataset", tagged, "--max_new_tokens", 6),
        *("--temperature", 0, "--dtype", "fp32"),
    )
    assert main([str(word) for word in ask]) == 0
    (file,) = (checkpoint / "infer_result").glob("*.jsonl")
    answers = [json.loads(line)["response"] for line in file.read_text().splitlines()]
    assert any(token in "".join(answers) for token in TOKENS)

    directory = checkpoint
    if sft_type == "lora":
        assert main(["merge-lora", "--ckpt_dir", str(checkpoint), "--dtype", "fp32"]) == 0
        directory = checkpoint.with_name("checkpoint-40-merged")
    tokenizer = AutoTokenizer.from_pretrained(directory)
    plain = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    for row, answer in zip(
        map(json.loads, tagged.read_text().splitlines()), sorted_as(tagged, file), strict=True
    ):
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": row["query"]}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        made = plain.generate(**prompt, max_new_tokens=6, do_sample=False)[
            0, prompt["input_ids"].shape[1] :
        ]
        assert tokenizer.decode(made, skip_special_tokens=True) == answer


def sorted_as(rows: Path, results: Path) -> list[str]:
    """Return the answers in the order of the rows."""
    by_query = {
        row["query"]: row["response"]
        for row in map(json.loads, results.read_text(encoding="utf-8").splitlines())
    }
    return [by_query[json.loads(line)["query"]] for line in rows.read_text().splitlines()]
