"""What a request may ask for beyond its length, against definitions and plain forward passes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from ft_core.engine import Capability, Constraint, GenerationRequest, Sampling
from ft_core.errors import DependencyError, UsageError
from ft_core.testing import tiny_model
from ft_core.tokenizer import Tokenizer
from ft_serve import PtEngine, choices
from ft_serve.testing import collect, complete

END = 2
PROMPT = list(range(20, 60))
GREEDY = Sampling(max_new_tokens=24)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"), "llama")


@pytest.fixture(scope="module")
def model(directory: Path) -> PreTrainedModel:
    loaded = AutoModelForCausalLM.from_pretrained(directory)
    with torch.no_grad():
        for weight in loaded.parameters():
            if weight.dim() > 1:
                weight.mul_(6)
    return loaded.eval()


@pytest.fixture
async def engine(model: PreTrainedModel, directory: Path) -> AsyncIterator[PtEngine]:
    engine = PtEngine(model, Tokenizer.from_directory(directory), stop_token_ids=[END])
    yield engine
    await engine.close()


async def tokens(engine: PtEngine, sampling: Sampling, prompt: list[int] = PROMPT) -> list[int]:
    events = await collect(engine, GenerationRequest(prompt, sampling))
    return [token for event in events for token in event.token_ids]


@torch.inference_mode()
def by_definition(model: PreTrainedModel, sampling: Sampling) -> list[int]:
    """Greedy answers with OpenAI's penalties, one whole forward pass a token."""
    answer: list[int] = []
    while len(answer) < (sampling.max_new_tokens or 0) and END not in answer:
        scores = model(torch.tensor([PROMPT + answer])).logits[0, -1].clone()
        for token, count in Counter(answer).items():
            scores[token] -= count * sampling.frequency_penalty + sampling.presence_penalty
        for token, bias in sampling.logit_bias.items():
            scores[token] += bias
        answer.append(int(scores.argmax()))
    return answer


@pytest.mark.parametrize(
    "change",
    [{"frequency_penalty": 3.0}, {"presence_penalty": 9.0}, {"logit_bias": {77: 6.0, 33: -8.0}}],
    ids=str,
)
async def test_penalties_and_biases_are_what_they_are_defined_as(
    engine: PtEngine, model: PreTrainedModel, change: dict[str, Any]
) -> None:
    sampling = replace(GREEDY, **change)
    got, plain = await asyncio.gather(tokens(engine, sampling), tokens(engine, GREEDY))
    assert got == by_definition(model, sampling)
    assert plain == by_definition(model, GREEDY)


async def test_a_bias_can_force_a_token(engine: PtEngine) -> None:
    got = await tokens(engine, replace(GREEDY, max_new_tokens=5, logit_bias={77: 1e6}))
    assert got == [77] * 5


async def test_logprobs_are_the_models_own_whatever_penalties_do(
    engine: PtEngine, model: PreTrainedModel
) -> None:
    sampling = replace(GREEDY, max_new_tokens=4, logprobs=2, logit_bias={77: 1e6})
    events = await collect(engine, GenerationRequest(PROMPT, sampling))
    reported = [item for event in events for item in event.logprobs]
    with torch.inference_mode():
        table = model(torch.tensor([PROMPT + [77] * 4])).logits[0].log_softmax(-1)
    for place, item in enumerate(reported, len(PROMPT) - 1):
        best = table[place].topk(2)
        assert item.token_id == 77
        assert item.logprob == pytest.approx(table[place, 77].item(), abs=1e-3)
        assert [token for token, _ in item.top] == best.indices.tolist()
        assert [value for _, value in item.top] == pytest.approx(best.values.tolist(), abs=1e-3)
    assert len(reported) == 4


async def test_scores_of_a_prompt_come_with_the_likeliest_tokens(
    engine: PtEngine, model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ft_serve.engines.pt.scoring.SOFTMAX_TOKENS", 7)
    scores = (await engine.score([PROMPT, PROMPT[:5]], top=3))[0]
    with torch.inference_mode():
        table = model(torch.tensor([PROMPT])).logits[0].log_softmax(-1)
    assert len(scores.top) == len(PROMPT)
    assert scores.top[0] == ()
    for place in range(1, len(PROMPT)):
        best = table[place - 1].topk(3)
        assert [token for token, _ in scores.top[place]] == best.indices.tolist()


async def test_vectors_are_means_and_last_states(engine: PtEngine, model: PreTrainedModel) -> None:
    texts = [PROMPT, [5], list(range(60, 90))]
    means, lasts = await asyncio.gather(engine.embed(texts), engine.embed(texts, pooling="last"))
    for text, mean, last in zip(texts, means, lasts, strict=True):
        with torch.inference_mode():
            states = model(torch.tensor([text]), output_hidden_states=True).hidden_states[-1][0]
        assert mean == pytest.approx(states.mean(0).tolist(), abs=1e-4)
        assert last == pytest.approx(states[-1].tolist(), abs=1e-4)


async def test_each_of_n_answers_can_be_had_alone(engine: PtEngine) -> None:
    sampling = replace(GREEDY, temperature=1.0, seed=11)
    wanted = choices(GenerationRequest(PROMPT, sampling), 4)
    together = await asyncio.gather(*(collect(engine, request) for request in wanted))
    answers = [[t for event in events for t in event.token_ids] for events in together]
    alone = [await tokens(engine, replace(sampling, seed=11 + index)) for index in range(4)]
    assert answers == alone
    assert len({tuple(answer) for answer in answers}) == 4
    with pytest.raises(UsageError, match="n 0"):
        choices(wanted[0], 0)


async def test_equal_prompts_and_equal_beginnings_run_through_the_model_once(
    engine: PtEngine, model: PreTrainedModel
) -> None:
    columns: list[int] = []
    handle = model.register_forward_pre_hook(
        lambda _, args, kwargs: columns.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    short = replace(GREEDY, max_new_tokens=1)
    first = await collect(engine, GenerationRequest(PROMPT, short))
    longer = [*PROMPT, *first[-1].token_ids, 7, 8, 9]
    second = await collect(engine, GenerationRequest(longer, short))
    handle.remove()
    assert columns == [len(PROMPT), len(longer) - len(PROMPT)]
    assert (first[-1].cached_tokens, second[-1].cached_tokens) == (0, len(PROMPT))
    assert second[-1].token_ids[-1] == int(model(torch.tensor([longer])).logits[0, -1].argmax())


@pytest.mark.parametrize(("stop", "want"), [("cab", "ab"), ("bca", "a"), ("cax", None)])
async def test_stop_strings_are_found_wherever_tokens_divide_them(
    engine: PtEngine, directory: Path, stop: str, want: str | None
) -> None:
    pytest.importorskip("llguidance")
    tokenizer = Tokenizer.from_directory(directory)
    whole = replace(GREEDY, constraint=Constraint("regex", "abcab(cab){3}"))
    got = await tokens(engine, whole)
    pieces = [tokenizer.decode([token], skip_special_tokens=True) for token in got]
    assert not any("cab" in piece or "bca" in piece for piece in pieces)
    text = await complete(engine, PROMPT, replace(whole, stop=(stop,)))
    assert text == ("".join(pieces) if want is None else want)


async def test_a_constraint_without_its_library_says_what_brings_it(
    engine: PtEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ft_serve.engines.pt.constraints._installed", lambda: False)
    assert Capability.CONSTRAINTS not in engine.capabilities
    with pytest.raises(DependencyError, match=r"ft-serve\[constraints\]"):
        await complete(engine, PROMPT, replace(GREEDY, constraint=Constraint("json")))


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"logprobs": 101}, "logprobs 101"),
        ({"frequency_penalty": float("nan")}, "frequency_penalty nan"),
        ({"presence_penalty": float("inf")}, "presence_penalty inf"),
        ({"logit_bias": {10_000: 1.0}}, "token id 10000"),
        ({"logit_bias": {5: float("nan")}}, "logit_bias nan of token 5"),
        ({"num_beams": 2, "logprobs": 1}, "num_beams 2 can't be used with logprobs"),
    ],
    ids=str,
)
async def test_what_makes_no_sense_is_refused(
    engine: PtEngine, change: dict[str, Any], part: str
) -> None:
    with pytest.raises(UsageError, match=part):
        await complete(engine, PROMPT, replace(GREEDY, **change))


async def test_wrong_constraints_are_refused(engine: PtEngine) -> None:
    pytest.importorskip("llguidance")
    for constraint, part in (
        (Constraint("json_schema", "["), "no JSON:"),
        (Constraint("json_schema", "[]"), "must be a JSON object"),
        (Constraint("json_schema", '{"type": 5}'), "is wrong"),
        (Constraint("regex", "(("), "regex"),
        (Constraint("regex", "a" * 70_000), "70,000 characters"),
    ):
        with pytest.raises(UsageError, match=part):
            await complete(engine, PROMPT, replace(GREEDY, constraint=constraint))


ENDS_AT_ONCE = replace(GREEDY, logit_bias={END: 100.0})


async def test_what_ends_an_answer_can_be_put_off(engine: PtEngine) -> None:
    assert await tokens(engine, ENDS_AT_ONCE) == [END]
    ignoring = await tokens(engine, replace(ENDS_AT_ONCE, ignore_eos=True, max_new_tokens=5))
    assert ignoring == [END] * 5
    later = await tokens(engine, replace(ENDS_AT_ONCE, min_tokens=3))
    assert len(later) == 4
    assert later[3] == END
    assert END not in later[:3]


async def test_further_stop_tokens_end_an_answer_and_are_named(engine: PtEngine) -> None:
    whole = await tokens(engine, GREEDY)
    third = whole[2]
    request = GenerationRequest(PROMPT, replace(GREEDY, stop_token_ids=(third,)))
    events = await collect(engine, request)
    got = [token for event in events for token in event.token_ids]
    assert got == whole[: whole.index(third) + 1]
    assert (events[-1].finish_reason, events[-1].stop_reason) == ("stop", third)

    by_eos = await collect(engine, GenerationRequest(PROMPT, ENDS_AT_ONCE))
    assert by_eos[-1].stop_reason is None


async def test_the_stop_string_that_ended_an_answer_is_named(engine: PtEngine) -> None:
    whole = await complete(engine, PROMPT, GREEDY)
    stop = whole[4:7]
    request = GenerationRequest(PROMPT, replace(GREEDY, stop=("never in it", stop)))
    assert (await collect(engine, request))[-1].stop_reason == stop

    late = replace(GREEDY, stop=(stop,), min_tokens=GREEDY.max_new_tokens or 0)
    assert await complete(engine, PROMPT, late) == whole


async def test_special_tokens_can_stay_in_the_text(engine: PtEngine) -> None:
    shown = replace(ENDS_AT_ONCE, ignore_eos=True, max_new_tokens=2, skip_special_tokens=False)
    assert await complete(engine, PROMPT, shown) == "<|im_end|>" * 2
    assert await complete(engine, PROMPT, replace(shown, skip_special_tokens=True)) == ""
