"""The proof that a merged model is what it should be: it loads elsewhere and answers the same."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from ft_core.checkpoints import open_checkpoint
from ft_core.errors import ModelError, UsageError
from ft_core.hub.cache import Report, report_to_stderr
from ft_core.models.loading import load_checkpoint
from ft_core.models.resolution import ModelSource
from ft_quant.dtypes import DTYPE_NAMES, stored_dtype

PROMPTS = (
    "Who are you?",
    "What is the capital of France?",
    "Write a short poem about the sea.",
)
"""What both models are asked."""

TOLERANCES: Mapping[str, float] = {"fp32": 1e-3, "fp16": 0.03, "bf16": 0.2}
"""Largest difference of a logit that rounding the merged weights explains, in standard deviations of
the logits; the deeper a model, the nearer it comes."""

_SCRIPT = Path(__file__).with_name("plain_load.py")


@dataclass(frozen=True, slots=True)
class Verification:
    """How a merged model compares with base and adapter.

    Attributes:
        merged: the directory that was loaded.
        max_difference: largest absolute difference of a logit, over all positions of all prompts.
        spread: standard deviation of the logits of base and adapter.
        tolerance: allowed ``max_difference`` in units of ``spread``.
        same_choice: share of positions in [0, 1] where both find the same token most likely.
        positions: how many positions were compared.
    """

    merged: Path
    max_difference: float
    spread: float
    tolerance: float
    same_choice: float
    positions: int

    @property
    def agrees(self) -> bool:
        """Whether the difference is no more than rounding explains (false where it is not a number)."""
        return self.max_difference <= self.tolerance * self.spread

    def __str__(self) -> str:
        """One line for a terminal."""
        verdict = "agrees with" if self.agrees else "DIFFERS from"
        return (
            f"{self.merged} loads in a fresh process and {verdict} base and adapter: largest difference "
            f"of a logit {self.max_difference:.2g} (allowed {self.tolerance * self.spread:.2g}), the same "
            f"token first at {self.same_choice:.1%} of {self.positions} positions"
        )


def verify_merge(
    merged: str | Path,
    ckpt_dir: str | Path,
    *,
    prompts: Sequence[str] = PROMPTS,
    tolerance: float | None = None,
    source: ModelSource | None = None,
    report: Report = report_to_stderr,
) -> Verification:
    """Load a merged model in a fresh process and compare its logits with those of base and adapter.

    The process has transformers only, as somebody else's would: it finds the model, its tokenizer and its
    chat template in the directory. Both sides compute in float32 on the CPU, so that what is left is the
    rounding of the stored weights.

    Args:
        merged: what ``merge_checkpoint`` wrote.
        ckpt_dir: the checkpoint it was made from.
        prompts: texts that both are asked, one conversation each.
        tolerance: largest difference that counts as agreement, in standard deviations of the logits;
            ``None`` takes that of the stored data type from ``TOLERANCES``.
        source: where the base model comes from; ``None`` takes what the checkpoint says.
        report: is told what takes long.

    Raises:
        ModelError: the merged model doesn't load in the fresh process; the message carries its error.
        UsageError: no prompts are given.
    """
    if not prompts:
        raise UsageError("there are no prompts to compare the models on; give at least one")
    directory = open_checkpoint(merged).path
    if tolerance is None:
        tolerance = TOLERANCES[DTYPE_NAMES[stored_dtype(directory)]]
    report(f"loading {directory} in a fresh process")
    answers = _ask_fresh_process(directory, prompts)
    model = load_checkpoint(ckpt_dir, source=source, report=report, dtype=torch.float32)
    max_difference, same, positions = 0.0, 0, 0
    reference: list[torch.Tensor] = []
    for index in range(len(prompts)):
        theirs = answers[f"logits.{index}"]
        with torch.no_grad():
            ours = model(input_ids=answers[f"ids.{index}"][None]).logits[0].float()
        if ours.shape != theirs.shape:
            raise ModelError(
                f"{directory} has {theirs.shape[-1]} tokens in its vocabulary, base and adapter have "
                f"{ours.shape[-1]}; it was made from another checkpoint"
            )
        difference = (ours - theirs).abs().max().item()
        # max() would drop a nan that comes second.
        max_difference = difference if math.isnan(difference) else max(max_difference, difference)
        same += int((ours.argmax(-1) == theirs.argmax(-1)).sum())
        positions += len(ours)
        reference.append(ours)
    return Verification(
        merged=directory,
        max_difference=max_difference,
        spread=torch.cat(reference).std().item(),
        tolerance=tolerance,
        same_choice=same / positions,
        positions=positions,
    )


def _ask_fresh_process(directory: Path, prompts: Sequence[str]) -> dict[str, torch.Tensor]:
    with tempfile.TemporaryDirectory() as scratch:
        request, response = Path(scratch, "prompts.json"), Path(scratch, "logits.safetensors")
        request.write_text(json.dumps(list(prompts)), encoding="utf-8")
        # -P keeps this package's directory, where the script lies, off the import path.
        command = [sys.executable, "-P", str(_SCRIPT), str(directory), str(request), str(response)]
        done = subprocess.run(
            command,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise ModelError(
                f"{directory} doesn't load in a fresh process:\n{done.stderr.strip()[-2000:]}"
            )
        tensors: dict[str, torch.Tensor] = load_file(response)
        return tensors
