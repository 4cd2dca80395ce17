"""ft's own engine: continuous batching on one loaded transformers model, on CPU and GPU."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel

from ft_core.engine import (
    Capability,
    GenerationEvent,
    GenerationRequest,
    Pooling,
    Sampling,
    TokenScores,
)
from ft_core.errors import ModelError, UsageError
from ft_core.media import MediaProcessor
from ft_serve.engines.pt.adapters import RowAdapters, attach_adapters
from ft_serve.engines.pt.answer import Answer, Limits
from ft_serve.engines.pt.batch.attention import attend_by_rows
from ft_serve.engines.pt.batch.cache import can_batch
from ft_serve.engines.pt.constraints import Grammars
from ft_serve.engines.pt.detokenize import Decoder
from ft_serve.engines.pt.embedding import embed_sequences
from ft_serve.engines.pt.limits import ModelLimits, default_cached_tokens
from ft_serve.engines.pt.packed import pack_linears
from ft_serve.engines.pt.scheduler import Budget
from ft_serve.engines.pt.scoring import score_sequences
from ft_serve.engines.pt.teams import end_team
from ft_serve.engines.pt.worker import Worker


class PtEngine:
    """Answers requests with a model that is loaded already (``ft_core.engine.Engine``).

    Requests that run at the same time share forward passes; each gets the tokens it would get alone.
    A request with beams or media, and every request of a model whose rows can't share a cache (Mamba, hybrids,
    rotations that depend on the longest row), runs alone through transformers' ``generate``, while the
    batch goes on between its tokens. After a crash the engine fails what was under way and goes on.

    Args:
        model: a causal language model on its device; put into evaluation mode.
        tokenizer: turns tokens into text.
        stop_token_ids: tokens that end an answer, as the template gives them.
        adapters: name and checkpoint of adapters that requests can ask for, all on the same weights.
        loaded_adapter: name for the adapter that the model was loaded with; requests without a name then
            get the base, as they do with ``adapters``. ``None`` answers with the model as it is.
        max_rows: requests that generate at the same time.
        max_cached_tokens: rows times longest row in the cache; by default what a share of the free
            memory holds.
        prefill_tokens: prompt tokens of one forward pass; running answers wait for one such pass at most
            between two of their tokens.
        reused_tokens: tokens of earlier requests that are kept for prompts that begin alike; 0 keeps none.
        seed: of requests that bring none.
        media: the processor of a model that sees or hears; without it requests with media are refused.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Decoder,
        *,
        stop_token_ids: Collection[int],
        adapters: Mapping[str, str | Path] | None = None,
        loaded_adapter: str | None = None,
        max_rows: int = 32,
        max_cached_tokens: int | None = None,
        prefill_tokens: int = 512,
        reused_tokens: int = 8192,
        seed: int = 42,
        media: MediaProcessor | None = None,
    ) -> None:
        for name, value in (("max_rows", max_rows), ("prefill_tokens", prefill_tokens)):
            if value < 1:
                raise UsageError(f"{name} {value}: give at least 1")
        model.eval()
        self._tokenizer, self._media = tokenizer, media
        self._stop_token_ids = frozenset(stop_token_ids)
        self._limits = ModelLimits.of(model)
        self._seeds = random.Random(seed)
        self._grammars = Grammars(tokenizer, self._limits.vocabulary, stop_token_ids)
        rows = RowAdapters(model)
        if adapters or loaded_adapter is not None:
            rows = attach_adapters(model, adapters or {}, loaded=loaded_adapter)
        self._attention = attend_by_rows(rows.model)
        self._packed = pack_linears(rows.model)
        budget = None
        if can_batch(rows.model):
            cached = max_cached_tokens or default_cached_tokens(rows.model)
            budget = Budget(max_rows, cached, prefill_tokens, min(reused_tokens, cached // 4))
        end_team()
        self._running: tuple[RowAdapters, Worker] | None = (rows, Worker(rows, budget))

    @property
    def capabilities(self) -> frozenset[Capability]:
        """All of them, as far as adapters were given and what follows constraints is installed."""
        absent = set() if self.adapters else {Capability.ADAPTERS}
        if not self._grammars.available:
            absent.add(Capability.CONSTRAINTS)
        if self._media is None:
            absent.add(Capability.MEDIA)
        return frozenset(Capability) - absent

    @property
    def ready(self) -> bool:
        """Whether it answers: not while it recovers from a crash, nor once it is closed."""
        return self._running is not None and self._running[1].ready

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names that a request may give as its adapter."""
        return () if self._running is None else self._running[0].names

    @property
    def scored_tokens(self) -> int | None:
        """The model's length and one more, since a sequence's last token is not read."""
        return None if self._limits.positions is None else self._limits.positions + 1

    async def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationEvent]:
        """Answer one request. Closing the iterator early frees its place in the batch.

        An answer is as long as ``max_new_tokens`` and the model's length allow.

        Raises:
            UsageError: the request can't be answered by this model as it is.
            ModelError: the model failed on it, or the engine has stopped.
        """
        adapters, worker = self._open()
        adapters.check(request.adapter)
        limits = Limits(
            self._stop_token_ids_of(request.sampling), self._limits.max_new_tokens(request)
        )
        seed = request.sampling.seed
        if seed is None:
            seed = self._seeds.getrandbits(63)
        constraint, matcher = request.sampling.constraint, None
        if constraint is not None:
            matcher = await asyncio.to_thread(self._grammars.compile, constraint)
        features = await asyncio.to_thread(self._features, request) if request.media else None
        answer = Answer(request, limits, seed, self._tokenizer, matcher, features)
        worker.submit(answer)
        try:
            while True:
                event = await answer.receive()
                yield event
                if event.finish_reason is not None:
                    return
        finally:
            if not answer.finished:
                worker.cancel(answer)

    def _features(self, request: GenerationRequest) -> Mapping[str, torch.Tensor]:
        if self._media is None:
            raise UsageError("this model takes texts only; leave images, videos and audios out")
        from ft_core.media.batches import prompt_features

        features: Mapping[str, torch.Tensor] = prompt_features(
            self._media, request.token_ids, request.media
        )
        return features

    async def score(
        self, token_ids: Sequence[Sequence[int]], *, top: int = 0, adapter: str | None = None
    ) -> Sequence[TokenScores]:
        """Return the log-probability of every token of every sequence, the first token's being 0.

        Raises:
            UsageError: a sequence is empty, longer than the model allows, or holds an unknown id.
            ModelError: the model failed, or the engine has stopped.
        """
        if not 0 <= top <= self._limits.vocabulary:
            raise UsageError(f"top {top}: give 0 to {self._limits.vocabulary}")
        adapters, worker = self._open_for(token_ids, adapter, self.scored_tokens)
        work = score_sequences(adapters, token_ids, top=top, adapter=adapter)
        scores: Sequence[TokenScores] = await asyncio.wrap_future(worker.call(work))
        return scores

    async def embed(
        self,
        token_ids: Sequence[Sequence[int]],
        *,
        pooling: Pooling = "mean",
        adapter: str | None = None,
    ) -> Sequence[Sequence[float]]:
        """Return a vector for every sequence: its last hidden states' mean, or the last token's.

        Raises:
            UsageError: a sequence is empty, longer than the model allows, or holds an unknown id.
            ModelError: the model failed, or the engine has stopped.
        """
        adapters, worker = self._open_for(token_ids, adapter, self._limits.positions)
        work = embed_sequences(adapters, token_ids, pooling=pooling, adapter=adapter)
        vectors: Sequence[Sequence[float]] = await asyncio.wrap_future(worker.call(work))
        return vectors

    async def close(self) -> None:
        """Fail what is under way, stop the thread and let go of the model."""
        running, self._running = self._running, None
        if running is not None:
            adapters, worker = running
            await asyncio.to_thread(worker.close)
            self._packed.undo()
            adapters.model.set_attn_implementation(self._attention)

    @property
    def active(self) -> int:
        """Requests that are waiting or being answered."""
        return 0 if self._running is None else self._running[1].active

    def _stop_token_ids_of(self, sampling: Sampling) -> frozenset[int]:
        own = frozenset[int]() if sampling.ignore_eos else self._stop_token_ids
        return own.union(sampling.stop_token_ids)

    def _open_for(
        self, token_ids: Sequence[Sequence[int]], adapter: str | None, longest: int | None
    ) -> tuple[RowAdapters, Worker]:
        adapters, worker = self._open()
        adapters.check(adapter)
        for sequence in token_ids:
            self._limits.check_ids(sequence)
            self._limits.check_length(sequence, longest)
        return adapters, worker

    def _open(self) -> tuple[RowAdapters, Worker]:
        if self._running is None:
            raise ModelError("the engine was closed; make another one")
        return self._running
