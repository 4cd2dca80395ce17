"""Requests with images and audios: the answers are transformers' own, beside texts that share a batch."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from ft_core.engine import Capability, GenerationRequest, Sampling
from ft_core.errors import UsageError
from ft_core.examples import Example, Message
from ft_core.media import MediaProcessor, MediaTemplate, encode_question
from ft_core.media.testing import FAMILIES, picture, tiny_multimodal, tone
from ft_core.models.loading import load_model
from ft_core.samples import Tokens
from ft_core.templates.jinja import JinjaTemplate
from ft_core.tokenizer import Tokenizer
from ft_serve.engines.pt import PtEngine

NEW = 8


async def ids_of(engine: PtEngine, question: Tokens) -> list[int]:
    request = GenerationRequest(
        question.input_ids, Sampling(max_new_tokens=NEW), media=question.media
    )
    return [token async for event in engine.generate(request) for token in event.token_ids]


async def all_of(engine: PtEngine, questions: Sequence[Tokens]) -> list[list[int]]:
    try:
        return await asyncio.gather(*(ids_of(engine, item) for item in questions))
    finally:
        await engine.close()


def setting(
    directory: Path, family: str, files: tuple[str, ...]
) -> tuple[MediaTemplate, Tokens, Tokens]:
    tiny_multimodal(directory, family)
    template = MediaTemplate(
        JinjaTemplate(Tokenizer.from_directory(directory)), MediaProcessor(directory)
    )
    kind = "audio" if family == "qwen2_audio" else "image"
    asked = Example(messages=(Message("user", "What is it?"),), **{f"{kind}s": files})  # type: ignore[arg-type]
    plain = Example(messages=(Message("user", "Who are you?"),))
    return template, encode_question(template, asked), encode_question(template, plain)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_answers_to_media_and_texts_are_those_of_transformers(tmp_path: Path, family: str) -> None:
    images = str(picture(tmp_path / "a.png")), str(picture(tmp_path / "b.png", "blue", (90, 60)))
    files = (str(tone(tmp_path / "a.wav")),) if family == "qwen2_audio" else images
    template, seen, plain = setting(tmp_path / "model", family, files)
    model = load_model(tmp_path / "model", dtype=torch.float32)
    processor = template.processor

    def own(question: Tokens, **features: torch.Tensor) -> list[int]:
        ids = torch.tensor([list(question.input_ids)])
        output = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=NEW,
            do_sample=False,
            eos_token_id=None,
            **features,
        )
        return [int(token) for token in output[0, ids.shape[1] :]]

    features = processor.process(seen.media).features
    expected = own(seen, **features, **processor.token_types([seen.input_ids])), own(plain)
    engine = PtEngine(model, template.tokenizer, stop_token_ids=[], media=processor)
    assert Capability.MEDIA in engine.capabilities
    answers = asyncio.run(all_of(engine, [seen, plain, seen, plain]))
    assert answers == [*expected, *expected]


def test_a_model_of_texts_refuses_media(tmp_path: Path) -> None:
    template, seen, _ = setting(tmp_path / "m", "qwen2_vl", (str(picture(tmp_path / "a.png")),))
    model = load_model(tmp_path / "m", dtype=torch.float32)
    engine = PtEngine(model, template.tokenizer, stop_token_ids=[])
    assert Capability.MEDIA not in engine.capabilities
    with pytest.raises(UsageError, match="takes texts only"):
        asyncio.run(all_of(engine, [seen]))
