"""OpenAI's own client against a tiny model: what it asks and what it must understand."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel, ConfigDict

QUESTION: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
GREEDY: dict[str, Any] = {"model": "tiny", "messages": QUESTION, "temperature": 0}


def test_models_are_listed_and_found(client: OpenAI) -> None:
    (card,) = client.models.list().data
    assert (card.id, card.object) == ("tiny", "model")
    assert client.models.retrieve("tiny") == card
    with pytest.raises(openai.NotFoundError) as error:
        client.models.retrieve("another")
    assert error.value.code == "model_not_found"


def test_an_answer_has_everything(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(**GREEDY, max_tokens=7)
    answer = raw.parse()
    assert raw.headers["content-type"] == "application/json"
    assert answer.id.startswith("chatcmpl-")
    assert (answer.object, answer.model, answer.service_tier) == ("chat.completion", "tiny", None)
    (choice,) = answer.choices
    assert (choice.index, choice.finish_reason, choice.message.role) == (0, "length", "assistant")
    assert choice.message.content
    assert choice.message.refusal is None
    assert choice.message.tool_calls is None
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 7
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 7
    assert "tool_calls" not in raw.http_response.json()["choices"][0]["message"]


def test_a_stream_says_what_the_whole_answer_says(client: OpenAI) -> None:
    whole = client.chat.completions.create(**GREEDY, max_tokens=20)
    stream = client.chat.completions.create(
        **GREEDY, max_tokens=20, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    assert (chunks[0].choices[0].delta.role, chunks[0].choices[0].delta.content) == (
        "assistant",
        "",
    )
    *text, last, counts = chunks
    assert "".join(chunk.choices[0].delta.content or "" for chunk in text) == (
        whole.choices[0].message.content
    )
    assert [chunk.choices[0].finish_reason for chunk in text] == [None] * len(text)
    assert last.choices[0].finish_reason == whole.choices[0].finish_reason
    assert counts.choices == []
    assert whole.usage is not None
    assert counts.usage is not None
    assert counts.usage.total_tokens == whole.usage.total_tokens


def test_the_streaming_helper_gathers_the_answer(client: OpenAI) -> None:
    text = client.chat.completions.create(**GREEDY, max_tokens=30).choices[0].message.content
    assert text
    stop = text[len(text) // 2 :][:2]
    with client.chat.completions.stream(**GREEDY, max_tokens=30, stop=stop) as stream:
        events = [event.type for event in stream]
        gathered = stream.get_final_completion()
    assert "content.done" in events
    assert gathered.choices[0].message.content == text[: text.index(stop)]


def test_several_answers_have_their_own_indices_and_seeds(client: OpenAI) -> None:
    asked: dict[str, Any] = {**GREEDY, "temperature": 1.0, "max_tokens": 10, "seed": 5}
    several = client.chat.completions.create(**asked, n=3)
    texts = [choice.message.content for choice in several.choices]
    assert [choice.index for choice in several.choices] == [0, 1, 2]
    assert len(set(texts)) == 3
    alone = client.chat.completions.create(**{**asked, "seed": 7})
    assert alone.choices[0].message.content == texts[2]
    assert several.usage is not None
    assert several.usage.completion_tokens == 30

    streamed = ["", "", ""]
    for chunk in client.chat.completions.create(**asked, n=3, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert streamed == texts


def test_log_probabilities_come_with_tokens_and_bytes(client: OpenAI) -> None:
    answer = client.chat.completions.create(**GREEDY, max_tokens=8, logprobs=True, top_logprobs=4)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert len(logprobs.content) == 8
    for token in logprobs.content:
        assert len(token.top_logprobs) == 4
        assert token.top_logprobs[0].logprob == token.logprob  # greedy takes the likeliest
    together = b"".join(bytes(token.bytes or []) for token in logprobs.content)
    assert together.decode("utf-8", "replace") == answer.choices[0].message.content

    streamed = []
    for chunk in client.chat.completions.create(
        **GREEDY, max_tokens=8, logprobs=True, top_logprobs=4, stream=True
    ):
        if (found := chunk.choices[0].logprobs) is not None:
            streamed += found.content or []
    assert streamed == logprobs.content


def test_an_answer_is_parsed_into_a_model(client: OpenAI) -> None:
    class Verdict(BaseModel):
        model_config = ConfigDict(extra="forbid")
        ok: bool

    answer = client.chat.completions.parse(**GREEDY, max_tokens=200, response_format=Verdict)
    assert isinstance(answer.choices[0].message.parsed, Verdict)


def test_any_json_object(client: OpenAI) -> None:
    asked = {**GREEDY, "temperature": 1.0, "seed": 3}
    answer = client.chat.completions.create(
        **asked, max_tokens=10, response_format={"type": "json_object"}
    )
    assert (answer.choices[0].message.content or "").startswith("{")


def test_vectors_are_the_same_in_both_encodings(client: OpenAI) -> None:
    texts = ["hello world", "the sea"]
    as_base64 = client.embeddings.create(model="tiny", input=texts)
    as_numbers = client.embeddings.create(model="tiny", input=texts, encoding_format="float")
    assert [item.index for item in as_base64.data] == [0, 1]
    for left, right in zip(as_base64.data, as_numbers.data, strict=True):
        assert left.embedding == pytest.approx(right.embedding, abs=1e-6)
        assert sum(value * value for value in left.embedding) == pytest.approx(1, abs=1e-5)
    assert as_base64.usage.prompt_tokens == as_base64.usage.total_tokens > 0


async def test_asynchronous_clients_stream_side_by_side(running: Any) -> None:
    async with AsyncOpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as client:

        async def streamed(text: str) -> str:
            stream = await client.chat.completions.create(
                model="tiny",
                messages=[{"role": "user", "content": text}],
                temperature=0,
                max_tokens=15,
                stream=True,
            )
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        texts = [f"count to {number}" for number in range(6)]
        alone = [await streamed(text) for text in texts]
        assert await asyncio.gather(*map(streamed, texts)) == alone


def test_stop_strings_end_an_answer_and_are_named(client: OpenAI) -> None:
    whole = client.chat.completions.create(**GREEDY, max_tokens=30).choices[0].message.content
    assert whole
    stop = whole[len(whole) // 2 :][:2]
    raw = client.chat.completions.with_raw_response.create(
        **GREEDY, max_tokens=30, stop=["never in it", stop]
    )
    choice = raw.parse().choices[0]
    assert choice.message.content == whole[: whole.index(stop)]
    assert choice.finish_reason == "stop"
    assert raw.http_response.json()["choices"][0]["stop_reason"] == stop


def test_fields_of_other_servers_work(client: OpenAI) -> None:
    def text(**extra: Any) -> str | None:
        answer = client.chat.completions.create(
            **{**GREEDY, "temperature": 1.0}, max_tokens=12, extra_body={"seed": 1, **extra}
        )
        return answer.choices[0].message.content

    greedy = client.chat.completions.create(**GREEDY, max_tokens=12).choices[0].message.content
    assert text(top_k=1) == text(min_p=1.0) == greedy
    assert text() != greedy
    assert text(some_field_of_a_later_version={"a": [1]}) == text()


def test_an_answer_can_be_continued(client: OpenAI) -> None:
    whole = client.chat.completions.create(**GREEDY, max_tokens=10).choices[0].message.content
    assert whole
    begun = whole[:4]
    rest = client.chat.completions.create(
        model="tiny",
        messages=[*QUESTION, {"role": "assistant", "content": begun}],
        temperature=0,
        max_tokens=8,
        extra_body={"continue_final_message": True, "add_generation_prompt": False},
    )
    assert rest.choices[0].message.content
