"""Measuring a model in a fresh process that has transformers only, as somebody else's would."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ft_core.errors import ModelError

_SCRIPT = Path(__file__).with_name("measure_process.py")


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A text that no calibration saw.

    Attributes:
        ids: its tokens.
        counts: for each token, 1 where predicting it counts and 0 where it is given, as a question is.
    """

    ids: Sequence[int]
    counts: Sequence[int]


@dataclass(frozen=True, slots=True)
class Texts:
    """What models are measured on.

    Attributes:
        held_out: texts that no calibration saw.
        questions: what the models are asked, one conversation each.
        new_tokens: of each answer.
        prompts: the text that ft's own chat format makes of each question; empty where they aren't compared.
        calibration: token ids of texts that a method may look at, of equal length.
        sources: where the texts come from, for the record.
    """

    held_out: Sequence[HeldOut]
    questions: Sequence[str] = (
        "Who are you?",
        "What is the capital of France?",
        "Count from one to ten.",
    )
    new_tokens: int = 16
    prompts: Sequence[str] = ()
    calibration: Sequence[Sequence[int]] = ()
    sources: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a model did in its process.

    Attributes:
        nll: summed negative log-likelihood of what counts in the held-out texts, in nats; may be no number.
        tokens: that count.
        choices: the most likely token in place of each of them, by text.
        prompts: the text that the tokenizer's own chat template makes of each question.
        prompt_ids: its tokens.
        answers: token ids of each greedy answer.
        texts: the same as text.
        loading_seconds: until the model was there.
        scoring_seconds: for the held-out texts.
        generating_seconds: for the answers.
        peak_memory: bytes that the process held at most.
    """

    nll: float
    tokens: int
    choices: Sequence[Sequence[int]]
    prompts: Sequence[str]
    prompt_ids: Sequence[Sequence[int]]
    answers: Sequence[Sequence[int]]
    texts: Sequence[str]
    loading_seconds: float
    scoring_seconds: float
    generating_seconds: float
    peak_memory: int

    @property
    def perplexity(self) -> float:
        """Of the held-out texts; infinite or no number where the model is broken."""
        mean = self.nll / max(self.tokens, 1)
        return math.exp(mean) if mean < 700 else math.inf

    @property
    def tokens_per_second(self) -> float:
        """New tokens a second of the answers, one prompt at a time."""
        count = sum(map(len, self.answers))
        return count / self.generating_seconds if self.generating_seconds else 0.0


def measure(
    directory: Path,
    texts: Texts,
    *,
    gguf_file: str | None = None,
    python: str | None = None,
    dtype: str = "float32",
    threads: int = 0,
) -> Measurement:
    """Load a model in a fresh process, score the held-out texts and answer the questions.

    Args:
        directory: the model.
        texts: what it is measured on.
        gguf_file: name of a GGUF file in it to load.
        python: another environment's interpreter; ``None`` takes this one.
        dtype: of the computation, as torch names it.
        threads: of torch; 0 leaves them.

    Raises:
        ModelError: it doesn't load or doesn't run; the message carries the process's error.
    """
    request = {
        "directory": str(directory),
        "gguf_file": gguf_file,
        "dtype": dtype,
        "sequences": [list(map(int, text.ids)) for text in texts.held_out],
        "scored": [list(text.counts) for text in texts.held_out],
        "questions": list(texts.questions),
        "new_tokens": texts.new_tokens,
        "threads": threads,
    }
    what = directory if gguf_file is None else directory / gguf_file
    result = run_script(
        _SCRIPT, request, python=python, failed=f"{what} doesn't work in a fresh process"
    )
    names = Measurement.__dataclass_fields__
    return Measurement(**{name: value for name, value in result.items() if name in names})


def run_script(
    script: Path, request: Mapping[str, Any], *, python: str | None, failed: str
) -> dict[str, Any]:
    """Run one of the scripts that import nothing of ft, and return what it writes.

    Args:
        script: takes the files of a request and of a result.
        request: is given to it as JSON.
        python: its interpreter; ``None`` takes this one.
        failed: begins the message when it fails.

    Raises:
        ModelError: it fails; the message ends with its last error.
    """
    with tempfile.TemporaryDirectory(prefix="ft-quant-") as scratch:
        asked, answered = Path(scratch, "request.json"), Path(scratch, "result.json")
        asked.write_text(json.dumps(request), encoding="utf-8")
        # -P keeps the directory where the script lies off the import path.
        done = subprocess.run(
            [python or sys.executable, "-P", str(script), str(asked), str(answered)],
            env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
            cwd=scratch,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0 or not answered.is_file():
            reason = (done.stderr.strip() or done.stdout.strip())[-2000:]
            raise ModelError(f"{failed} (exit code {done.returncode}):\n{reason}")
        result: dict[str, Any] = json.loads(answered.read_text(encoding="utf-8"))
        return result
