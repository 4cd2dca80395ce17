"""A tiny model, an adapter of it, and an export of them without the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ft_core.arguments import GenerationArguments, ModelArguments, TemplateArguments
from ft_core.checkpoints import write_sidecars
from ft_core.examples import Example, Message
from ft_core.models.loading import load_model
from ft_core.prepare import Prepared, prepare
from ft_core.testing import CHATML, tiny_model
from ft_core.tokenizer import Tokenizer
from ft_core.tuners import TUNERS, LoraSettings
from ft_quant.export import ExportJob
from ft_quant.export_arguments import ConvertArguments, ProofArguments, QuantizeArguments
from ft_quant.plan import plan_export
from ft_quant.proof.measure import HeldOut, Texts


def silent(sentence: str) -> None:
    """Say nothing of progress."""


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama whose layers groups of 32 divide."""
    return tiny_model(
        tmp_path_factory.mktemp("base") / "tiny-llama",
        hidden_size=64,
        intermediate_size=128,
        initializer_range=0.2,
    )


@pytest.fixture(scope="session")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA checkpoint of it whose numbers are far from zero."""
    return make_adapter(base, tmp_path_factory.mktemp("run") / "checkpoint-3")


def make_adapter(base: Path, directory: Path, **settings: Any) -> Path:
    lora = TUNERS.get("lora")
    model = load_model(base, dtype=torch.float32, for_training=True)
    model = lora.apply(model, LoraSettings(**{"target_modules": ("ALL",), **settings}))
    generator = torch.Generator().manual_seed(7)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    directory.mkdir(parents=True)
    lora.save(model, directory)
    write_sidecars(
        directory,
        tokenizer=Tokenizer.from_directory(base),
        chat_template=CHATML,
        arguments={
            "model_id_or_path": str(base),
            "sft_type": "lora",
            "template_type": "jinja",
            "dataset": ["rows.jsonl"],
            "max_length": 256,
        },
    )
    return directory


def prepared_of(model: Path | None = None, checkpoint: Path | None = None) -> Prepared:
    named = None if model is None else str(model)
    if checkpoint is not None and model is None:
        named = str(checkpoint)
    return prepare(
        ModelArguments(model_id_or_path=named),
        TemplateArguments(template_type="jinja"),
        ckpt_dir=None if checkpoint is None else str(checkpoint),
        say=silent,
    )


@pytest.fixture
def job() -> Callable[..., ExportJob]:
    """Make an export's job of a model or of an adapter's checkpoint."""

    def make(
        model: Path, checkpoint: Path | None = None, *, merge_lora: bool = False, **flags: Any
    ) -> ExportJob:
        prepared = prepared_of(model, checkpoint)
        quantize, convert, proof = (
            group(**{name: value for name, value in flags.items() if name in group.model_fields})
            for group in (QuantizeArguments, ConvertArguments, ProofArguments)
        )
        plan = plan_export(
            prepared.name,
            prepared.checkpoint,
            merge_lora=merge_lora,
            quantize=quantize,
            convert=convert,
        )
        return ExportJob(
            prepared=prepared,
            plan=plan,
            texts=texts(prepared),
            quantize=quantize,
            convert=convert,
            proof=proof,
            sampling=GenerationArguments(),
            say=silent,
        )

    return make


def texts(prepared: Prepared) -> Texts:
    """Two held-out conversations, and the prompts of the questions."""
    template = prepared.chosen.template
    rows = [
        Example(messages=(Message("user", question), Message("assistant", answer)))
        for question, answer in (("hello", "good morning"), ("thank you", "hello world"))
    ]
    encoded = [row for sample in template.encode(rows) for row in sample]
    questions = ("Who are you?",)
    return Texts(
        [HeldOut(row.input_ids, [int(w > 0) for w in row.loss_weights]) for row in encoded],
        questions,
        new_tokens=4,
        prompts=[
            "".join(piece.text for piece in template.render_prompt([Message("user", text)]))
            for text in questions
        ],
        calibration=[list(range(5, 37))] * 4,
        sources={"measured on": "two rows"},
    )
