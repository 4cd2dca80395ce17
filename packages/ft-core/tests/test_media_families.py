"""Each family: the ids and features are those of its own processor, losses lie on answers, batches agree with rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import ProcessorMixin

from ft_core.examples import Example, Message
from ft_core.media import MediaProcessor, MediaTemplate, encode_question
from ft_core.media.batches import with_features
from ft_core.media.sounds import open_audio
from ft_core.media.testing import FAMILIES, picture, tiny_multimodal, tone
from ft_core.models.groups import module_groups
from ft_core.models.loading import load_model
from ft_core.models.modules import find_targets
from ft_core.sequences import join, token_logits
from ft_core.templates.jinja import JinjaTemplate
from ft_core.tokenizer import Tokenizer
from ft_core.tuners import TUNERS, LoraSettings

SEES = sorted(set(FAMILIES) - {"qwen2_audio"})


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    folder = tmp_path_factory.mktemp("media")
    images = (
        picture(folder / "a.png", "red", (48, 48)),
        picture(folder / "b.png", "blue", (100, 60)),
    )
    audios = tone(folder / "a.wav", seconds=1.0), tone(folder / "b.wav", seconds=0.4)
    return {"image": tuple(map(str, images)), "audio": tuple(map(str, audios))}  # type: ignore[dict-item]


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def directory(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_multimodal(tmp_path_factory.mktemp(family), family)


@pytest.fixture(scope="module")
def template(directory: Path) -> MediaTemplate:
    return MediaTemplate(
        JinjaTemplate(Tokenizer.from_directory(directory)), MediaProcessor(directory)
    )


def kind_of(family: str) -> str:
    return "audio" if family == "qwen2_audio" else "image"


def row(kind: str, files: tuple[str, ...]) -> Example:
    turns = [Message("user", f"<{kind}>What is it?"), Message("assistant", "Red.")]
    if len(files) > 1:
        turns += [Message("user", f"And <{kind}> now?"), Message("assistant", "Blue")]
    return Example(messages=tuple(turns), **{f"{kind}s": files})  # type: ignore[arg-type]


def conversation(kind: str, files: tuple[str, ...], rate: int) -> list[dict[str, Any]]:
    """The same row as a processor's own chat template takes it."""

    def medium(path: str) -> dict[str, Any]:
        from ft_core.media import MediaLimits

        if kind == "audio":
            return {"type": "audio", "audio": open_audio(path, rate, MediaLimits())}
        return {"type": "image", "path": path}

    def text(value: str) -> dict[str, str]:
        return {"type": "text", "text": value}

    return [
        {"role": "user", "content": [medium(files[0]), text("What is it?")]},
        {"role": "assistant", "content": [text("Red.")]},
        {"role": "user", "content": [text("And "), medium(files[1]), text(" now?")]},
        {"role": "assistant", "content": [text("Blue")]},
    ]


def test_ids_and_features_are_those_of_the_processor_itself(
    family: str, template: MediaTemplate, media: dict[str, tuple[str, str]]
) -> None:
    kind = kind_of(family)
    library = template.processor.library
    tokens = template.encode([row(kind, media[kind])])[0][0]
    # SmolVLM's own method asks for its part for videos, which needs torchvision; the one it extends doesn't.
    own = ProcessorMixin.apply_chat_template(
        library,
        conversation(kind, media[kind], 16_000),
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    expected = own["input_ids"][0].tolist()
    # A template may write something after the last answer's end, which is no part of what is learned.
    assert list(tokens.input_ids) == expected[: len(tokens)]
    assert template.tokenizer.decode(expected[len(tokens) :]).strip() == ""
    for name, value in template.processor.process(tokens.media).features.items():
        if name in own:
            assert torch.equal(value, torch.as_tensor(own[name])), name
    named = {"pixel_values", "input_features"} & set(own)
    assert named, "the processor gives something to look at or to hear"


def test_media_are_never_learned_and_the_answers_are(
    family: str, template: MediaTemplate, media: dict[str, tuple[str, str]]
) -> None:
    kind = kind_of(family)
    example = row(kind, media[kind])
    tokens = template.encode([example])[0][0]
    learned = [t for t, w in zip(tokens.input_ids, tokens.loss_weights, strict=True) if w]
    said = template.tokenizer.decode(learned).replace(" ", "")  # some templates put a space before
    assert said.replace("<|im_end|>", "|") == "Red.|Blue|"
    assert [item.source for item in tokens.media] == list(media[kind])
    for item in tokens.media:
        assert item.length > 0
        assert not any(tokens.loss_weights[item.start : item.end])


def test_the_prompt_is_what_stands_before_the_answer(
    family: str, template: MediaTemplate, media: dict[str, tuple[str, str]]
) -> None:
    kind = kind_of(family)
    example = row(kind, media[kind])
    tokens = template.encode([example])[0][0]
    question = encode_question(template, example)
    assert list(tokens.input_ids[: len(question)]) == list(question.input_ids)
    assert question.media == tokens.media
    assert tokens.loss_weights[len(question)] > 0


def test_a_batch_gives_each_row_the_logits_it_has_alone(
    family: str, directory: Path, template: MediaTemplate, media: dict[str, tuple[str, str]]
) -> None:
    kind = kind_of(family)
    first, second = media[kind]
    text = Example(messages=(Message("user", "Who are you?"), Message("assistant", "A model.")))
    examples = [row(kind, (first, second)), row(kind, (second,)), text, row(kind, (first,))]
    rows = [tokens for (tokens,) in template.encode(examples)]
    model = load_model(directory, dtype=torch.float32)
    with torch.no_grad():
        together = token_logits(model, with_features(join(rows), template.processor))
        alone = [
            token_logits(model, with_features(join([tokens]), template.processor))
            for tokens in rows
        ]
    assert torch.allclose(together, torch.cat(alone), atol=1e-4)
    # A picture matters: with another one the answer has other logits.
    (other,) = template.encode([row(kind, (first,))])[0]
    seen = token_logits(model, with_features(join([other]), template.processor))
    (swapped,) = template.encode([row(kind, (second,))])[0]
    assert (
        seen.shape == token_logits(model, with_features(join([swapped]), template.processor)).shape
    )
    assert not torch.allclose(
        seen, token_logits(model, with_features(join([swapped]), template.processor)), atol=1e-6
    )


def test_adapters_go_to_the_language_model_and_the_projector(directory: Path) -> None:
    model = load_model(directory, dtype=torch.float32, for_training=True)
    groups = module_groups(model)
    assert groups.vision
    assert groups.projector
    targets = find_targets(model, ["DEFAULT"]).modules
    inner = [name for name in targets if name.startswith(groups.vision)]
    assert all(name.startswith(groups.projector) for name in inner)
    assert any(name.startswith(groups.layers[0]) for name in targets)
    TUNERS.get("lora").apply(model, LoraSettings(rank=2, target_modules=("DEFAULT",)))
    adapted = {
        name.rpartition(".lora_A")[0] for name, _ in model.named_modules() if ".lora_A." in name
    }
    assert adapted == set(targets)
    if "gemma3" not in type(model).__name__.lower():  # which projects by a parameter of its own
        assert any(name.startswith(groups.projector) for name in targets)
