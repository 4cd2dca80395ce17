"""The protocol of what answers: infer, the chat page, evaluation and the server speak to an ``Engine``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, Protocol, runtime_checkable

from ft_core.samples import Medium


class Capability(StrEnum):
    """What an engine can do beyond generating text; ``TOKENS`` is to tell which tokens are behind it."""

    STREAM = "stream"
    BEAMS = "beams"
    SCORE = "score"
    ADAPTERS = "adapters"
    LOGPROBS = "logprobs"
    CONSTRAINTS = "constraints"
    EMBED = "embed"
    MEDIA = "media"
    TOKENS = "tokens"


FinishReason = Literal["stop", "length", "aborted"]
Pooling = Literal["mean", "last"]


@dataclass(frozen=True, slots=True)
class Constraint:
    """What an answer must be.

    Attributes:
        kind: any JSON object, JSON of a schema, or a text that a regular expression matches as a whole.
        text: the schema as JSON, or the expression; empty for any JSON object.
    """

    kind: Literal["json", "json_schema", "regex"]
    text: str = ""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to choose tokens.

    Attributes:
        max_new_tokens: upper bound of generated tokens; ``None`` means up to the model's length.
        temperature: 0 is greedy.
        top_k: 0 means no limit.
        top_p: nucleus mass, in (0, 1].
        repetition_penalty: 1 means none (Keskar et al. 2019).
        frequency_penalty: taken from a token's score for each time the answer has it already.
        presence_penalty: taken from a token's score once the answer has it.
        logit_bias: added to the scores of these tokens.
        num_beams: 1 means no beam search.
        stop: further strings that end the answer; they are not part of it.
        seed: of this request; ``None`` draws one from the engine's own seed.
        logprobs: report each token's log-probability and this many most likely ones; ``None`` reports none.
        constraint: what the answer must be.
        min_p: leave out tokens that have less than this share of the likeliest one's probability; 0 leaves
            out none.
        min_tokens: nothing ends the answer before it has this many tokens.
        stop_token_ids: further tokens that end the answer.
        ignore_eos: tokens that end any answer of the model don't end this one.
        skip_special_tokens: leave special tokens out of the text.
    """

    max_new_tokens: int | None = 2048
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    num_beams: int = 1
    stop: tuple[str, ...] = ()
    seed: int | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    logprobs: int | None = None
    constraint: Constraint | None = None
    min_p: float = 0.0
    min_tokens: int = 0
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    skip_special_tokens: bool = True


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """A rendered prompt as token ids, and how to continue it.

    Attributes:
        token_ids: the prompt.
        sampling: how to choose tokens.
        adapter: name of the adapter that answers; ``None`` takes the model as it was loaded.
        media: what is to be seen or heard in the prompt, whose tokens stand in it already.
    """

    token_ids: Sequence[int]
    sampling: Sampling = field(default_factory=Sampling)
    adapter: str | None = None
    media: tuple[Medium, ...] = ()


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token with its log-probability under the model alone, before penalties and temperature.

    Attributes:
        token_id: the token.
        logprob: natural logarithm.
        top: the most likely tokens in its place with theirs, the likeliest first.
    """

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class GenerationEvent:
    """A piece of an answer. The last event of a request has a ``finish_reason``.

    Attributes:
        text: the text that became final with this event (never half a character).
        token_ids: the tokens behind it; none where the engine lacks ``Capability.TOKENS``.
        finish_reason: ``None`` until the end.
        prompt_tokens, generated_tokens: counts so far.
        cached_tokens: tokens of the prompt that were reused from an earlier request.
        logprobs: of ``token_ids``, where they were asked for.
        stop_reason: the string of ``stop`` or token of ``stop_token_ids`` that ended the answer.
    """

    text: str
    token_ids: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None
    prompt_tokens: int = 0
    generated_tokens: int = 0
    cached_tokens: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()
    stop_reason: str | int | None = None


@dataclass(frozen=True, slots=True)
class TokenScores:
    """Log-probabilities of given tokens, each from its predecessors.

    Attributes:
        logprobs: one for each token; the first is 0 (length T).
        top: the most likely tokens in each place, where they were asked for; the first is empty (length T).
    """

    logprobs: Sequence[float]
    top: Sequence[tuple[tuple[int, float], ...]] = ()


@runtime_checkable
class Engine(Protocol):
    """One loaded model that answers requests."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What it can do beyond generating text."""
        ...

    @property
    def ready(self) -> bool:
        """Whether it answers; false while it loads, recovers from a crash, and for good once it is closed."""
        ...

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names that a request may give as its adapter."""
        ...

    @property
    def scored_tokens(self) -> int | None:
        """Tokens of the longest sequence that ``score`` takes; ``None`` where there is no bound, or none is known."""
        ...

    def generate(self, request: GenerationRequest) -> AsyncIterator[GenerationEvent]:
        """Answer one request; requests that run at the same time share the model."""
        ...

    async def score(
        self, token_ids: Sequence[Sequence[int]], *, top: int = 0, adapter: str | None = None
    ) -> Sequence[TokenScores]:
        """Return the log-probability of every token of every sequence.

        Args:
            token_ids: the sequences.
            top: also return this many most likely tokens in each place.
            adapter: as in a request.
        """
        ...

    async def embed(
        self,
        token_ids: Sequence[Sequence[int]],
        *,
        pooling: Pooling = "mean",
        adapter: str | None = None,
    ) -> Sequence[Sequence[float]]:
        """Return a vector for every sequence: its last hidden states' mean, or the last token's."""
        ...

    async def close(self) -> None:
        """Stop working and free the model."""
        ...
