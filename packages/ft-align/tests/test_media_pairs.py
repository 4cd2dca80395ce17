"""Preferences about what is seen: log-probabilities are those of each answer alone, and cuts leave images whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ft_align.encoding import AnswerEncoder, PairEncoder
from ft_align.known_reference import ReferenceStore, content_of
from ft_align.lengths import Lengths
from ft_align.logprobs import answer_logprobs
from ft_align.recipes.pairs import PairRecipe
from ft_core.examples import Example, Message
from ft_core.media import MediaProcessor, MediaRecipe, MediaTemplate
from ft_core.media.batches import with_features
from ft_core.media.testing import picture, tiny_multimodal
from ft_core.models.loading import load_model
from ft_core.samples import Dropped, Sample
from ft_core.templates import JinjaTemplate
from ft_core.tokenizer import Tokenizer


@pytest.fixture(scope="module", params=["qwen2_vl", "llava", "gemma3"])
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    family = str(request.param)
    return tiny_multimodal(tmp_path_factory.mktemp(family), family)


@pytest.fixture(scope="module")
def template(directory: Path) -> MediaTemplate:
    tokenizer = Tokenizer.from_directory(directory)
    return MediaTemplate(JinjaTemplate(tokenizer), MediaProcessor(directory))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    """Two about a picture each, and one about none."""
    folder = tmp_path_factory.mktemp("pictures")
    found = [
        Example(
            messages=(Message("user", "<image>What is it?"), Message("assistant", colour)),
            rejected=(Message("assistant", "No idea."),),
            images=(str(picture(folder / f"{colour}.png", colour, size)),),
        )
        for colour, size in (("red", (48, 48)), ("blue", (100, 60)))
    ]
    plain = (Message("user", "Who are you?"), Message("assistant", "A model."))
    return [*found, Example(messages=plain, rejected=(Message("assistant", "Nobody."),))]


def samples_of(template: MediaTemplate, rows: list[Example], **how: Any) -> list[Sample]:
    samples = PairEncoder(**how).encode(rows, template)
    assert all(isinstance(sample, Sample) for sample in samples), samples
    return samples  # type: ignore[return-value]


def test_answers_have_the_log_probability_that_they_have_alone(
    directory: Path, template: MediaTemplate, pairs: list[Example]
) -> None:
    model = load_model(directory, dtype=torch.float32)
    recipe = MediaRecipe(PairRecipe(), template.processor)
    samples = samples_of(template, pairs)
    with torch.no_grad():
        together = answer_logprobs(model, recipe.collate(samples)).sums.tolist()
    alone = []
    for sample, example in zip(samples, pairs, strict=True):
        prompt = int(sample.values["prompt"])
        for tokens in sample.sequences:
            assert bool(tokens.media) == bool(example.images)
            ids = torch.tensor([list(tokens.input_ids)])
            features = template.processor.process(tokens.media).features if tokens.media else {}
            types = template.processor.token_types([tokens.input_ids])
            with torch.no_grad():
                logits = model(input_ids=ids, **features, **types).logits[0, :-1]
            logprobs = logits.log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
            counted = torch.tensor([bool(w) for w in tokens.loss_weights])[1:]
            counted[: prompt - 1] = False
            alone.append(float(logprobs[counted].sum()))
    assert together == pytest.approx(alone, abs=1e-3)


def test_training_prefers_the_chosen_answers(
    directory: Path, template: MediaTemplate, pairs: list[Example]
) -> None:
    model = load_model(directory, dtype=torch.float32, for_training=True)
    reference = load_model(directory, dtype=torch.float32)
    recipe = MediaRecipe(PairRecipe(), template.processor)
    batch = recipe.collate(samples_of(template, pairs))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    margins = []
    for _ in range(4):
        output = recipe.loss(model, batch, reference)
        margins.append(output.metrics["rewards/margins"][0])
        sum(term.total for term in output.terms.values()).backward()  # type: ignore[union-attr]
        optimizer.step()
        optimizer.zero_grad()
    assert margins[-1] > margins[0] + 0.01


def test_what_a_reference_gives_is_known_for_pictures_too(
    directory: Path, template: MediaTemplate, pairs: list[Example], tmp_path: Path
) -> None:
    reference = load_model(directory, dtype=torch.float32)
    samples = samples_of(template, pairs)
    store = ReferenceStore(tmp_path, "reference")
    known = store.compute(
        samples, reference, finish=lambda batch: with_features(batch, template.processor)
    )
    with torch.no_grad():
        batch = MediaRecipe(PairRecipe(), template.processor).collate(samples)
        sums = answer_logprobs(reference, batch).sums.tolist()
    found = [sample.values[f"reference_{n}"] for sample in known for n in (0, 1)]
    assert found == pytest.approx(sums, abs=1e-4)
    # Another picture under the same name is another row.
    before = content_of(samples, "reference")
    file = Path(pairs[0].images[0])
    kept = file.read_bytes()
    picture(file, "green", (48, 60))
    assert content_of(samples, "reference") != before
    file.write_bytes(kept)


def test_a_prompt_is_never_cut_inside_a_picture(
    template: MediaTemplate, pairs: list[Example]
) -> None:
    row = pairs[0]
    (whole,) = samples_of(template, [row])
    prompt = int(whole.values["prompt"])
    (medium,) = whole.sequences[0].media
    inside = prompt - (medium.start + 1)  # would cut its first token off
    (cut,) = samples_of(template, [row], lengths=Lengths(max_prompt_length=inside))
    assert cut.values["cut"] >= medium.length
    for before, after in zip(whole.sequences, cut.sequences, strict=True):
        assert after.media == ()
        left = int(cut.values["prompt"])
        assert list(after.input_ids[left:]) == list(before.input_ids[prompt:])
        assert not set(before.input_ids[medium.start : medium.end]) & set(after.input_ids)
    # One token earlier, all of it stays.
    system = replace(row, messages=(Message("system", "Look closely."), *row.messages))
    (longer,) = samples_of(template, [system])
    (kept,) = longer.sequences[0].media
    bound = int(longer.values["prompt"]) - 1
    (fitted,) = samples_of(template, [system], lengths=Lengths(max_prompt_length=bound))
    (moved,) = fitted.sequences[0].media
    assert moved.length == kept.length
    tokens = fitted.sequences[0].input_ids
    assert list(tokens[moved.start : moved.end]) == list(
        longer.sequences[0].input_ids[kept.start : kept.end]
    )


def test_methods_that_learn_from_texts_only_say_so(
    template: MediaTemplate, pairs: list[Example]
) -> None:
    (dropped,) = AnswerEncoder().encode([pairs[0]], template)
    assert isinstance(dropped, Dropped)
    assert dropped.reason == "media"
    assert "use dpo" in dropped.detail
