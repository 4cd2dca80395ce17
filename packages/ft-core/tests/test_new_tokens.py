"""Tokens that a model didn't have: in its tokenizer, in its weights, and in what is saved of both."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from ft_core import Example, Message, UsageError
from ft_core.arguments import ModelArguments, TemplateArguments, VocabularyArguments
from ft_core.models.loading import load_model
from ft_core.models.vocabulary import add_tokens, vocabulary_rows
from ft_core.prepare import Prepared, prepare
from ft_core.templates import choose_template
from ft_core.testing import tiny_model, tiny_tokenizer
from ft_core.tokenizer import Tokenizer
from ft_core.tuners import TUNERS, FullSettings, LoraSettings

OPEN, CLOSE = "<answer>", "</answer>"


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)  # adapters begin with random weights


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    return Tokenizer.from_directory(tiny_tokenizer(tmp_path / "tokenizer"))


def logits(model: torch.nn.Module, ids: list[int]) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits.float()


def learn(model: PreTrainedModel, ids: list[int], steps: int = 30) -> list[float]:
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-2)
    batch = torch.tensor([ids])
    losses = []
    for _ in range(steps):
        loss = model(input_ids=batch, labels=batch, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def plain_peft(base: Path, adapter: Path) -> PeftModel:
    """Load as a person without ft does: a base with as many rows as the adapter's tokenizer has tokens."""
    model = AutoModelForCausalLM.from_pretrained(base)
    model.resize_token_embeddings(len(AutoTokenizer.from_pretrained(adapter)), mean_resizing=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True`")
        return PeftModel.from_pretrained(model, adapter)


def prepared(directory: Path, *tokens: str) -> Prepared:
    return prepare(
        ModelArguments(model_id_or_path=str(directory)),
        TemplateArguments(),
        new_tokens=tokens,
        say=lambda _: None,
    )


# The tokenizer


def test_they_are_matched_in_texts_too_and_special_ones_are_not(tokenizer: Tokenizer) -> None:
    extended = tokenizer.with_tokens([OPEN, CLOSE])
    first = tokenizer.vocab_size
    assert (extended.token_to_id(OPEN), extended.token_to_id(CLOSE)) == (first, first + 1)
    assert tokenizer.token_to_id(OPEN) is None and tokenizer.vocab_size == first
    template = choose_template("chatml", extended, registered=None, prefers_record=False).template
    row = Example(
        (
            Message("user", f"use {OPEN} and <|im_end|>"),
            Message("assistant", f"{OPEN}hello{CLOSE}"),
        )
    )
    ((tokens,),) = template.encode([row])
    ids = list(tokens.input_ids)
    assert ids.count(first) == 2 and ids.count(first + 1) == 1
    assert ids.count(extended.token_to_id("<|im_end|>") or -1) == 2  # those of the format
    learned = [i for i, weight in zip(ids, tokens.loss_weights, strict=True) if weight]
    assert learned[0] == first and learned[-2] == first + 1
    assert extended.decode(learned, skip_special_tokens=True) == f"{OPEN}hello{CLOSE}"


def test_other_texts_keep_their_ids(tokenizer: Tokenizer) -> None:
    extended = tokenizer.with_tokens([OPEN])
    for text in ("hello world", " answer>", "你好 <|im_start|>"):
        assert extended.encode(text) == tokenizer.encode(text)
    assert extended.fingerprint != tokenizer.fingerprint


def test_what_is_saved_is_what_transformers_loads(tokenizer: Tokenizer, tmp_path: Path) -> None:
    extended = tokenizer.with_tokens([OPEN, CLOSE])
    extended.save(tmp_path / "saved")
    text = f"x{OPEN}hello world{CLOSE}"
    assert (
        AutoTokenizer.from_pretrained(tmp_path / "saved").encode(text)
        == extended.encode(text)
        == Tokenizer.from_directory(tmp_path / "saved").encode(text, special=False)
    )


def test_tokens_that_are_there_already(tokenizer: Tokenizer) -> None:
    assert tokenizer.with_tokens(["<|im_end|>", "hello"[:1]]) is tokenizer
    again = tokenizer.with_tokens([OPEN, OPEN, "<|im_end|>"])
    assert again.vocab_size == tokenizer.vocab_size + 1


@pytest.mark.parametrize("text", ["", " ", " <a>", "<a>\n"])
def test_tokens_that_cannot_be(tokenizer: Tokenizer, text: str) -> None:
    with pytest.raises(UsageError, match="--new_special_tokens"):
        tokenizer.with_tokens([text])


def test_the_flag_takes_texts_and_files(tmp_path: Path) -> None:
    file = tmp_path / "tokens.txt"
    file.write_text(f"{CLOSE}\n\n  <tool>\n", encoding="utf-8")
    flag = VocabularyArguments(new_special_tokens=[OPEN, str(file), OPEN])
    assert flag.tokens() == (OPEN, CLOSE, "<tool>")
    for content in (None, "\n"):
        other = tmp_path / f"other-{content is None}.txt"
        if content is not None:
            other.write_text(content, encoding="utf-8")
        with pytest.raises(UsageError, match=other.name):
            VocabularyArguments(new_special_tokens=[str(other)]).tokens()


# The weights


@pytest.mark.parametrize("tied", [False, True])
def test_new_rows_are_the_mean_of_the_known_and_change_nothing_else(
    tied: bool, tmp_path: Path
) -> None:
    directory = tiny_model(tmp_path / "m", tie_word_embeddings=tied)
    before = load_model(directory, dtype=torch.float32)
    rows, ids = vocabulary_rows(before), [5, 6, 7]
    expected = logits(before, ids)
    model = load_model(directory, dtype=torch.float32)
    add_tokens(model, [rows, rows + 1], known=rows)
    assert model.config.vocab_size == vocabulary_rows(model) >= rows + 2
    torch.testing.assert_close(logits(model, ids)[..., :rows], expected)
    mean = before.get_input_embeddings().weight.mean(0)
    torch.testing.assert_close(model.get_input_embeddings().weight[rows], mean)
    torch.testing.assert_close(
        model.get_output_embeddings().weight[rows + 1],
        before.get_output_embeddings().weight.mean(0),
    )
    shared = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert shared == tied


def test_rows_to_spare_are_used_and_padding_is_kept(tmp_path: Path) -> None:
    directory = tiny_model(tmp_path / "m", vocab_size=512)
    model = load_model(directory, dtype=torch.float32)
    known = Tokenizer.from_directory(directory).vocab_size
    add_tokens(model, [known], known=known)
    assert vocabulary_rows(model) == 512
    add_tokens(model, [512], known=known)
    assert vocabulary_rows(model) == 640  # the next multiple of 128


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma", "gemma3_text"])
@pytest.mark.parametrize("sft_type", ["lora", "full"])
def test_they_are_learned_saved_and_answered_with(
    sft_type: str, architecture: str, tmp_path: Path
) -> None:
    directory = tiny_model(tmp_path / "m", architecture)
    ready = prepared(directory, OPEN, CLOSE)
    how = ready.how(ModelArguments(model_id_or_path=str(directory), dtype="fp32"))
    base = ready.load(how, for_training=True)
    old = base.get_input_embeddings().weight.detach().clone()
    tuner = TUNERS.get(sft_type)
    ids = ready.tokenizer.encode(f"a {OPEN}hello{CLOSE} b")
    assert set(ready.new_token_ids) <= set(ids)
    model = tuner.apply(
        base,
        FullSettings()
        if sft_type == "full"
        else LoraSettings(rank=2, dropout=0, new_token_ids=ready.new_token_ids),
    )
    losses = learn(model, ids)
    assert losses[-1] < losses[0] - 0.5
    after = logits(model, ids)
    assert after[0, ids.index(ready.new_token_ids[0]) - 1].argmax() in ready.new_token_ids

    tuner.save(model, tmp_path / "out")
    ready.tokenizer.save(tmp_path / "out")
    if sft_type == "full":
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    else:
        torch.testing.assert_close(logits(plain_peft(directory, tmp_path / "out"), ids), after)
        again = prepare(
            ModelArguments(model_id_or_path=str(directory)),
            TemplateArguments(),
            ckpt_dir=str(tmp_path / "out"),
            say=lambda _: None,
        )
        assert again.tokenizer.fingerprint == ready.tokenizer.fingerprint
        loaded = again.load(how)
        torch.testing.assert_close(logits(loaded, ids), after, rtol=0, atol=1e-5)
        merged = tuner.merge(loaded)
        embedding = merged.get_input_embeddings().weight
        others = [i for i in range(len(embedding)) if i not in ready.new_token_ids]
        assert torch.equal(embedding[others], old[others])
    torch.testing.assert_close(logits(merged, ids), after, rtol=0, atol=1e-4)


def test_a_resumed_run_keeps_its_vocabulary(tmp_path: Path) -> None:
    directory = tiny_model(tmp_path / "m")
    with pytest.raises(UsageError, match=r"--new_special_tokens <answer>.*trained without it"):
        prepare(
            ModelArguments(model_id_or_path=str(directory)),
            TemplateArguments(),
            ckpt_dir=str(directory),
            new_tokens=[OPEN],
            say=lambda _: None,
        )


def test_what_is_a_token_already_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    ready = prepare(
        ModelArguments(model_id_or_path=str(tiny_model(tmp_path))),
        TemplateArguments(),
        new_tokens=["<|im_end|>", OPEN],
        say=said.append,
    )
    assert ready.new_tokens == (OPEN,)
    assert any("<|im_end|> are tokens already" in line for line in said)
