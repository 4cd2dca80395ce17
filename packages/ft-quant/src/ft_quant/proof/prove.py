"""Proving a result against its source, and what follows from it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ft_core.errors import ModelError
from ft_core.models.loading import load_with_adapter
from ft_core.prepare import Say
from ft_quant.proof import measure_process
from ft_quant.proof.measure import Measurement, Texts, measure
from ft_quant.proof.verdict import PERPLEXITY_BOUNDS, Proof, compare

if TYPE_CHECKING:
    from ft_quant.export import ExportJob
    from ft_quant.export_arguments import ProofArguments


class Source:
    """A whole model that results are compared with; it is measured once, when first needed.

    Args:
        directory: of the model.
        texts: what it and its results are measured on.
        python: another environment's interpreter; ``None`` takes this one.
    """

    def __init__(self, directory: Path, texts: Texts, *, python: str | None) -> None:
        self.directory = directory
        self.texts = texts
        self._python = python
        self._measured: Measurement | None = None

    def measured(self) -> Measurement:
        """Return what the source does.

        Raises:
            ModelError: it doesn't load in a fresh process.
        """
        if self._measured is None:
            self._measured = measure(self.directory, self.texts, python=self._python)
        return self._measured

    def prove(
        self,
        result: Path,
        *,
        bound: float,
        vocabulary: int,
        gguf_file: str | None = None,
        python: str | None = None,
    ) -> Proof:
        """Compare a result with the source.

        Args:
            result: its directory.
            bound: largest ratio of perplexities that counts as good.
            vocabulary: number of tokens.
            gguf_file: name of a GGUF file in it.
            python: the interpreter that loads it.

        Raises:
            ModelError: one of them doesn't load in a fresh process.
        """
        before = self.measured()
        after = measure(result, self.texts, gguf_file=gguf_file, python=python)
        return compare(
            before,
            after,
            bound=bound,
            vocabulary=vocabulary,
            questions=tuple(self.texts.questions),
            prompts=tuple(self.texts.prompts),
        )


def prove_merge(job: ExportJob, merged: Path) -> Proof:
    """Compare a merged model in a fresh process with base and adapter in this one.

    Raises:
        ModelError: it doesn't load, or answers otherwise than its parts.
    """
    job.say("loading the merged model in a fresh process, and base and adapter here")
    after = measure(merged, job.texts)
    before = _measure_parts(job, after)
    proof = compare(
        before,
        after,
        bound=PERPLEXITY_BOUNDS["merge"],
        vocabulary=job.prepared.tokenizer.vocab_size,
        questions=tuple(job.texts.questions),
        prompts=tuple(job.texts.prompts),
    )
    settle(proof, "merging", job.proof, job.say)
    return proof


def settle(proof: Proof, what: str, arguments: ProofArguments, say: Say) -> None:
    """Refuse a broken result, and warn of one that lost much.

    Raises:
        ModelError: it is broken and ``--force`` isn't given.
    """
    if proof.verdict == "good":
        return
    if proof.verdict == "worse":
        say(f"warning: {what}: {proof}")
        return
    if not arguments.force:
        raise ModelError(
            f"{what} gives a broken model, so nothing was written: {proof}. --force true writes it all the same"
        )
    say(f"warning: {what} gives a broken model, which is written since --force is given: {proof}")


def _measure_parts(job: ExportJob, merged: Measurement) -> Measurement:
    """Measure base and adapter, the adapter attached by the code that trained it."""
    prepared = job.prepared
    assert prepared.checkpoint is not None
    model = load_with_adapter(
        prepared.directory,
        prepared.checkpoint,
        dtype=torch.float32,
        name=prepared.source.base_name(prepared.directory),
        trust_remote_code=prepared.trust_remote_code,
    )
    scored = [
        measure_process.score(model, list(text.ids), list(text.counts))
        for text in job.texts.held_out
    ]
    answers = [
        measure_process.answer(model, list(ids), job.texts.new_tokens) for ids in merged.prompt_ids
    ]
    return Measurement(
        nll=sum(nll for nll, _ in scored),
        tokens=sum(len(choices) for _, choices in scored),
        choices=[choices for _, choices in scored],
        prompts=merged.prompts,
        prompt_ids=merged.prompt_ids,
        answers=answers,
        texts=[prepared.tokenizer.decode(ids, skip_special_tokens=True) for ids in answers],
        loading_seconds=0.0,
        scoring_seconds=0.0,
        generating_seconds=0.0,
        peak_memory=0,
    )
