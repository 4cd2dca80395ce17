"""Rows with an image, an audio or a video all the way: trained on, answered, served, with one answer everywhere."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from ft_cli.main import main
from ft_core.media.testing import COLOURS, film, picture, tiny_multimodal, tone

FAMILIES = {
    "qwen2_vl": "image",
    "llava": "image",
    "llava_onevision": "image",
    "smolvlm": "image",
    "internvl": "image",
    "gemma3": "image",
    "qwen2_audio": "audio",
}
TYPES = {"image": "image/png", "audio": "audio/wav", "video": "video/mp4"}
QUESTION = "What is it?"
ALONE = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

pytestmark = pytest.mark.slow


def media(folder: Path, kind: str) -> list[Path]:
    """Make four of a kind, and return them."""
    folder.mkdir()
    if kind == "image":
        return [picture(folder / f"{colour}.png", colour) for colour in COLOURS]
    if kind == "audio":
        return [tone(folder / f"{hertz}.wav", hertz) for hertz in (200, 400, 800, 1600)]
    return [film(folder / f"{frames}.mp4", frames) for frames in (8, 10, 12, 14)]


def write_rows(file: Path, kind: str, files: list[Path]) -> Path:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"<{kind}>{QUESTION}"},
                {"role": "assistant", "content": f"It is {path.stem}."},
            ],
            f"{kind}s": [str(path)],
        }
        for path in files
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


@contextmanager
def deployed(*words: object, **environ: str) -> Iterator[OpenAI]:
    """Serve a checkpoint, and yield a client of it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ft_cli", "deploy", "--port", "0", *map(str, words)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **ALONE, **environ},
    )
    assert process.stderr is not None
    said: list[str] = []
    try:
        for line in process.stderr:
            said.append(line)
            if found := re.match(r"ready: (\S+) answers", line):
                with OpenAI(base_url=found[1], api_key="none", max_retries=0) as client:
                    yield client
                break
        else:
            raise AssertionError("".join(said)[-3000:])
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)


def ask(client: OpenAI, kind: str, file: Path) -> str:
    """Return what a server answers to a file."""
    uri = f"data:{TYPES[kind]};base64,{base64.b64encode(file.read_bytes()).decode()}"
    content: list[Any] = [
        {"type": f"{kind}_url", f"{kind}_url": {"url": uri}},
        {"type": "text", "text": QUESTION},
    ]
    answer = client.chat.completions.create(
        model=client.models.list().data[0].id,
        messages=[{"role": "user", "content": content}],
        temperature=0,
    )
    return str(answer.choices[0].message.content)


def run(*words: object, **environ: str) -> None:
    """Run a command in this process, where transformers is loaded already; in another one if its environment differs."""
    texts = [str(word) for word in words]
    if not environ:
        assert main(texts) == 0
        return
    done = subprocess.run(
        [sys.executable, "-m", "ft_cli", *texts],
        env={**os.environ, **ALONE, **environ},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def train(model: Path, rows: Path, output: Path, steps: int, *more: object, **environ: str) -> Path:
    """Train on rows, and return the checkpoint."""
    run(
        *("sft", "--model_id_or_path", model, "--dataset", rows, "--output_dir", output),
        *("--max_steps", steps, "--batch_size", 4, "--gradient_accumulation_steps", 1),
        *("--dataset_test_ratio", 0, "--dtype", "fp32", "--logging_steps", 1, "--max_length", 1024),
        *("--sample_answers", 0, "--add_output_dir_suffix", "false", *more),
        **environ,
    )
    log = (output / "logging.jsonl").read_text(encoding="utf-8").splitlines()
    losses = [row["loss"] for row in map(json.loads, log) if "loss" in row]
    assert losses[-1] < losses[0]
    return output / f"checkpoint-{steps}"


def answers(
    checkpoint: Path, rows: Path, kind: str, files: list[Path], **environ: str
) -> list[str]:
    """Return what a checkpoint answers to rows, which is what it answers as a server."""
    answering = ("--ckpt_dir", checkpoint, "--max_new_tokens", 12, "--temperature", 0)
    result = checkpoint.parent / "result.jsonl"
    run("infer", *answering, "--val_dataset", rows, "--result_file", result, **environ)
    lines = result.read_text(encoding="utf-8").splitlines()
    found = [str(json.loads(line)["response"]) for line in lines]
    with deployed(*answering, **environ) as client:
        assert [ask(client, kind, file) for file in files] == found
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_is_trained_answered_and_served(tmp_path: Path, family: str) -> None:
    kind = FAMILIES[family]
    model = tiny_multimodal(tmp_path / "model", family)
    files = media(tmp_path / "media", kind)
    rows = write_rows(tmp_path / "rows.jsonl", kind, files)
    checkpoint = train(model, rows, tmp_path / "run", 3, "--learning_rate", "1e-2")
    assert len(answers(checkpoint, rows, kind, files)) == len(files)


def test_a_model_learns_to_name_the_colour_it_sees(tmp_path: Path, names_colours: Path) -> None:
    # Of a size and shape that it has never seen.
    new = [picture(tmp_path / f"{colour}.png", colour, (70, 45)) for colour in COLOURS]
    asked = write_rows(tmp_path / "asked.jsonl", "image", new)
    assert answers(names_colours, asked, "image", new) == [f"It is {c}." for c in COLOURS]


@pytest.mark.parametrize("known", [False, True])
def test_pictures_are_preferred_about(tmp_path: Path, *, known: bool) -> None:
    model = tiny_multimodal(tmp_path / "model", "qwen2_vl")
    files = media(tmp_path / "media", "image")
    rows = tmp_path / "rows.jsonl"
    with rows.open("w", encoding="utf-8") as file:
        for path in files:
            row = {"query": f"<image>{QUESTION}", "response": path.stem, "images": [str(path)]}
            file.write(json.dumps({**row, "rejected_response": "No idea."}) + "\n")
    output = tmp_path / "run"
    run(
        *("rlhf", "--rlhf_type", "dpo", "--model_id_or_path", model, "--dataset", rows),
        *("--output_dir", output, "--max_steps", 4, "--batch_size", 4, "--learning_rate", "1e-2"),
        *("--gradient_accumulation_steps", 1, "--dataset_test_ratio", 0, "--dtype", "fp32"),
        *("--sample_answers", 0, "--add_output_dir_suffix", "false", "--logging_steps", 1),
        *("--precompute_ref_logps", str(known).lower()),
    )
    log = (output / "logging.jsonl").read_text(encoding="utf-8").splitlines()
    margins = [row["rewards/margins"] for row in map(json.loads, log) if "rewards/margins" in row]
    assert margins[0] == pytest.approx(0, abs=1e-5)
    assert margins[-1] > 0.05


@pytest.fixture
def with_torchvision(tmp_path: Path) -> dict[str, str]:
    """What a process needs to find torchvision, which lies apart where torch was built for CPUs."""
    if importlib.util.find_spec("torchvision") is not None:
        return dict(ALONE)
    apart = Path(sys.prefix) / "torchvision"
    if not apart.is_dir():
        pytest.skip("torchvision is not installed")
    # Its own operators are for another torch; transformers' processors use none, but torchvision names them.
    site = tmp_path / "site" / "sitecustomize.py"
    site.parent.mkdir()
    site.write_text(
        "import torch\n"
        "library = torch.library.Library('torchvision', 'DEF')\n"
        "for name in ('nms', 'qnms'):\n"
        "    library.define(name + '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')\n",
        encoding="utf-8",
    )
    return {"PYTHONPATH": f"{site.parent}{os.pathsep}{apart}"}


def test_a_video_is_trained_answered_and_served(
    tmp_path: Path, with_torchvision: dict[str, str]
) -> None:
    making = (
        "import sys; from pathlib import Path; from ft_core.media.testing import tiny_multimodal; "
        "tiny_multimodal(Path(sys.argv[1]), 'qwen2_5_vl')"
    )
    model = tmp_path / "model"
    environment = {**os.environ, **ALONE, **with_torchvision}
    subprocess.run([sys.executable, "-c", making, str(model)], env=environment, check=True)
    files = media(tmp_path / "media", "video")
    rows = write_rows(tmp_path / "rows.jsonl", "video", files)
    checkpoint = train(
        model, rows, tmp_path / "run", 3, "--learning_rate", "1e-2", **with_torchvision
    )
    assert len(answers(checkpoint, rows, "video", files, **with_torchvision)) == len(files)


def test_tokens_of_a_video_are_those_of_the_processor_itself(
    tmp_path: Path, with_torchvision: dict[str, str]
) -> None:
    video = film(tmp_path / "video.mp4")
    script = Path(__file__).with_name("video_tokens.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), str(video)],
        env={**os.environ, **ALONE, **with_torchvision},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_video_without_torchvision_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if importlib.util.find_spec("torchvision") is not None:
        pytest.skip("torchvision is installed")
    model = tiny_multimodal(tmp_path / "model", "qwen2_vl")
    rows = write_rows(tmp_path / "rows.jsonl", "video", [film(tmp_path / "a.mp4")])
    words = ["sft", "--model_id_or_path", model, "--dataset", rows, "--max_steps", 1]
    assert main([str(word) for word in (*words, "--output_dir", tmp_path / "run")]) != 0
    assert "pip install 'ft-core[video]'" in capsys.readouterr().err
