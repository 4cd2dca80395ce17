"""Continuations, and scores of given tokens, against plain forward passes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from openai import OpenAI

from ft_core.tokenizer import Tokenizer

TEXTS = ["The quick brown fox", "你好，请问", "def add(a, b):\n    return a + b\n"]


def complete(client: OpenAI, prompt: Any, **settings: Any) -> Any:
    return client.completions.create(
        **{"model": "tiny", "prompt": prompt, "temperature": 0, "max_tokens": 6, **settings}
    )


@torch.inference_mode()
def logprobs_of(model: torch.nn.Module, ids: list[int]) -> torch.Tensor:
    """Log-probabilities of every token in each place, shape (T - 1, vocabulary)."""
    return model(torch.tensor([ids])).logits[0].log_softmax(-1)


def test_texts_and_their_tokens_are_continued_alike(client: OpenAI, tokenizer: Tokenizer) -> None:
    by_text = complete(client, TEXTS)
    by_ids = complete(client, [tokenizer.encode(text) for text in TEXTS])
    assert [choice.text for choice in by_text.choices] == [c.text for c in by_ids.choices]
    assert by_text.usage.prompt_tokens == by_ids.usage.prompt_tokens
    assert by_text.usage.completion_tokens == by_ids.usage.completion_tokens
    for text, choice in zip(TEXTS, by_text.choices, strict=True):
        (alone,) = complete(client, text).choices
        assert (alone.text, alone.finish_reason) == (choice.text, "length")


def test_choices_of_several_prompts_are_in_order(client: OpenAI) -> None:
    answer = complete(client, TEXTS[:2], n=2, temperature=1.0, seed=9)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    alone = complete(client, TEXTS[1], temperature=1.0, seed=10)
    assert answer.choices[3].text == alone.choices[0].text


def test_a_prompt_is_scored_as_evaluations_do(
    client: OpenAI, tokenizer: Tokenizer, model: torch.nn.Module
) -> None:
    """The request of lm-eval's local-completions: every entry of prompt + 1, the last one generated."""
    prompts = [tokenizer.encode(text) for text in TEXTS]
    answer = complete(client, prompts, max_tokens=1, logprobs=1, seed=1234, echo=True)
    for ids, choice in zip(prompts, answer.choices, strict=True):
        scores = choice.logprobs
        assert len(scores.token_logprobs) == len(scores.tokens) == len(ids) + 1
        assert scores.token_logprobs[0] is scores.top_logprobs[0] is None
        expected = logprobs_of(model, ids)
        for place, token in enumerate(ids[1:], 1):
            assert scores.token_logprobs[place] == pytest.approx(
                float(expected[place - 1, token]), abs=1e-4
            )
            likeliest = float(expected[place - 1].max())
            assert max(scores.top_logprobs[place].values()) == pytest.approx(likeliest, abs=1e-4)
        assert scores.token_logprobs[-1] == pytest.approx(float(expected[-1].max()), abs=1e-4)
        assert scores.token_logprobs[-1] == max(scores.top_logprobs[-1].values())


def test_a_token_that_ends_the_text_is_counted(client: OpenAI, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(TEXTS[0])
    end = str(tokenizer.eos_token_id)
    answer = complete(client, ids, max_tokens=1, logprobs=1, echo=True, logit_bias={end: 100})
    (choice,) = answer.choices
    assert (choice.finish_reason, answer.usage.completion_tokens) == ("stop", 1)
    assert len(choice.logprobs.token_logprobs) == len(ids) + 1
    assert choice.text == TEXTS[0]


def test_nothing_is_generated_where_nothing_is_wanted(client: OpenAI) -> None:
    answer = complete(client, TEXTS, max_tokens=0, echo=True, logprobs=2)
    assert [choice.text for choice in answer.choices] == TEXTS
    assert answer.usage.completion_tokens == 0
    for text, choice in zip(TEXTS, answer.choices, strict=True):
        assert choice.finish_reason == "length"
        cut = [*choice.logprobs.text_offset, None]
        pieces = choice.logprobs.tokens
        if not any(piece.startswith("bytes:") for piece in pieces):
            assert [text[a:b] for a, b in pairwise(cut)] == pieces


def test_log_probabilities_of_generated_tokens(
    client: OpenAI, tokenizer: Tokenizer, model: torch.nn.Module
) -> None:
    ids = tokenizer.encode(TEXTS[0])
    (choice,) = complete(client, ids, logprobs=3, max_tokens=5).choices
    scores = choice.logprobs
    answer: list[int] = []
    for place in range(5):
        expected = logprobs_of(model, ids + answer)[-1]
        answer.append(int(expected.argmax()))
        assert scores.token_logprobs[place] == pytest.approx(float(expected.max()), abs=1e-4)
        assert len(scores.top_logprobs[place]) <= 4
    assert choice.text == tokenizer.decode(answer)


def test_a_stream_says_what_the_whole_says(client: OpenAI) -> None:
    asked: dict[str, Any] = {"logprobs": 2, "echo": True}
    whole = complete(client, TEXTS, **asked)
    chunks = list(
        complete(client, TEXTS, **asked, stream=True, stream_options={"include_usage": True})
    )
    for index, choice in enumerate(whole.choices):
        own = [c for chunk in chunks for c in chunk.choices if c.index == index]
        assert "".join(c.text for c in own) == choice.text
        assert own[-1].finish_reason == choice.finish_reason
        assert [x for c in own for x in c.logprobs.tokens] == choice.logprobs.tokens
        assert [x for c in own for x in c.logprobs.text_offset] == choice.logprobs.text_offset
        first, *rest = [x for c in own for x in c.logprobs.token_logprobs]
        assert first is None
        assert rest == pytest.approx(choice.logprobs.token_logprobs[1:], abs=1e-4)
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens


def test_sixteen_tokens_where_nothing_is_said(client: OpenAI) -> None:
    answer = client.completions.create(
        model="tiny", prompt="hello", temperature=0, extra_body={"ignore_eos": True}
    )
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 16


def test_tokens_there_and_back(running: Any, tokenizer: Tokenizer) -> None:
    import httpx

    text = "What is 你好?"
    found = httpx.post(
        f"{running.url}/tokenize", timeout=120, json={"prompt": text, "return_token_strs": True}
    )
    assert found.json()["tokens"] == tokenizer.encode(text)
    assert found.json()["count"] == len(found.json()["token_strs"]) == len(tokenizer.encode(text))
    back = httpx.post(
        f"{running.url}/detokenize", timeout=120, json={"tokens": found.json()["tokens"]}
    )
    assert back.json() == {"prompt": text}

    messages = [{"role": "user", "content": "hello"}]
    rendered = httpx.post(
        f"{running.url}/tokenize", timeout=120, json={"messages": messages}
    ).json()["tokens"]
    want = "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(rendered) == want
    info = httpx.get(f"{running.url}/tokenizer_info", timeout=120).json()
    assert (info["eos_token"], info["vocab_size"]) == ("<|im_end|>", tokenizer.vocab_size)
