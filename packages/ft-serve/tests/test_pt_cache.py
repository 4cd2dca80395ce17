"""Rows that join and leave one cache, against a cache of each row's own."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from ft_core.testing import VOCABULARY_SIZE, tiny_model
from ft_serve.engines.pt.adapters import RowAdapters
from ft_serve.engines.pt.batch import Prefill, Rows, can_batch
from ft_serve.engines.pt.batch.cache import ColumnCache
from ft_serve.engines.pt.batch.prefixes import LEAST_SHARED, PrefixStore


@pytest.fixture(scope="module", params=["llama", "gemma3_text"])
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> PreTrainedModel:
    directory = tiny_model(tmp_path_factory.mktemp("model"), request.param)
    return AutoModelForCausalLM.from_pretrained(directory).eval()


def _prefill(model: PreTrainedModel, prompts: list[list[int]], chunk: int = 64) -> Prefill:
    return Prefill(RowAdapters(model), prompts, [None] * len(prompts), chunk)


def _logits(model: PreTrainedModel, tokens: list[int]) -> torch.Tensor:
    return model(torch.tensor([tokens]), use_cache=False).logits[0, -1]


@torch.inference_mode()
def test_logits_stay_right_while_rows_come_and_go(model: PreTrainedModel) -> None:
    source = random.Random(3)
    rows = Rows(RowAdapters(model))
    texts: list[list[int]] = []
    for round_ in range(60):
        if round_ % 3 == 0:
            news = [
                [source.randrange(VOCABULARY_SIZE) for _ in range(source.randrange(1, 40))]
                for _ in range(source.randrange(1, 4))
            ]
            prefill = _prefill(model, news, 64 if len(news) > 1 else 7)
            while (logits := prefill.advance()) is None:
                pass
            for index, tokens in enumerate(news):
                torch.testing.assert_close(
                    logits[index], _logits(model, tokens), atol=1e-4, rtol=1e-4
                )
                rows.admit(prefill, index, None)
                texts.append(tokens)
        if not texts:
            continue
        fed = [source.randrange(VOCABULARY_SIZE) for _ in texts]
        logits = rows.step(fed)
        for index, tokens in enumerate(texts):
            tokens.append(fed[index])
            torch.testing.assert_close(logits[index], _logits(model, tokens), atol=1e-4, rtol=1e-4)
        while texts and source.random() < 0.6:
            gone = source.randrange(len(texts))
            rows.remove(gone)
            texts[gone] = texts[-1]
            texts.pop()
        assert len(rows) == len(texts)
        assert rows.columns == max((len(tokens) for tokens in texts), default=0)


@torch.inference_mode()
def test_columns_outside_a_rows_own_hold_zeros(model: PreTrainedModel) -> None:
    caches = {}
    for length in (30, 5):
        prefill = _prefill(model, [[9] * length])
        prefill.advance()
        caches[length] = prefill.cache
    cache = ColumnCache(model.config)
    cache.admit(caches[30], 0)
    cache.admit(caches[5], 0)
    cache.remove(0)
    cache.admit(caches[5], 0)
    for layer in cache.layers:
        used = layer.keys[:2, :, cache.base : cache.end]
        assert used.any()
        assert layer.keys.count_nonzero() == used.count_nonzero()


@torch.inference_mode()
def test_a_step_that_fails_leaves_the_cache_as_it_was(model: PreTrainedModel) -> None:
    rows = Rows(RowAdapters(model))
    prefill = _prefill(model, [[5, 6, 7]])
    prefill.advance()
    rows.admit(prefill, 0, None)

    def fail(*_: object) -> None:
        raise RuntimeError("half way")

    handle = model.model.norm.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="half way"):
        rows.step([11])
    handle.remove()
    torch.testing.assert_close(
        rows.step([8])[0], _logits(model, [5, 6, 7, 8]), atol=1e-4, rtol=1e-4
    )


@torch.inference_mode()
def test_prompts_that_begin_alike_run_from_where_they_differ(model: PreTrainedModel) -> None:
    source = random.Random(4)
    known = [source.randrange(3, VOCABULARY_SIZE) for _ in range(60)]
    store = PrefixStore(500)
    first = _prefill(model, [known])
    first.advance()
    store.keep(first.cache, 0, known, None)
    prompts = [[*known[:50], 7, 8], [*known, 9, 10, 11], known]
    prefixes = [store.find(prompt, None) for prompt in prompts]
    assert [prefix and prefix.length for prefix in prefixes] == [50, 60, 59]
    prefill = Prefill(RowAdapters(model), prompts, [None] * 3, 512, prefixes)
    assert min(prefill.known) > 40
    logits = prefill.advance()
    assert logits is not None
    for row, prompt in enumerate(prompts):
        torch.testing.assert_close(logits[row], _logits(model, prompt), atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_kept_beginnings_belong_to_their_adapter_and_the_oldest_are_forgotten(
    model: PreTrainedModel,
) -> None:
    store = PrefixStore(100)
    texts = [[token] * 40 for token in (5, 6, 7)]
    for text in texts:
        prefill = _prefill(model, [text])
        prefill.advance()
        store.keep(prefill.cache, 0, text, "mine")
    assert store.tokens == 80
    assert store.find(texts[0], "mine") is None
    assert store.find(texts[2], None) is None
    found = store.find(texts[2], "mine")
    assert found is not None and found.length == 39
    assert store.find(texts[2][: LEAST_SHARED - 1], "mine") is None


@pytest.mark.parametrize(
    "settings",
    [
        {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}},
        {
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "short_factor": [1.0] * 4,
                "long_factor": [2.0] * 4,
                "factor": 2.0,
                "original_max_position_embeddings": 256,
            }
        },
    ],
    ids=["dynamic", "longrope"],
)
def test_a_rotation_that_depends_on_the_longest_row_is_not_batched(
    settings: dict[str, object], tmp_path: Path
) -> None:
    directory = tiny_model(tmp_path, "llama", **settings)
    assert not can_batch(AutoModelForCausalLM.from_pretrained(directory))
