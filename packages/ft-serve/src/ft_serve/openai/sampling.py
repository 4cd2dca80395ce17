"""From a request's fields to how the engine chooses tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from ft_core.engine import Capability, Constraint, Sampling
from ft_serve.openai.errors import ApiError
from ft_serve.openai.limits import MOST_STOPS, Limits
from ft_serve.openai.protocol.sampling import SamplingFields
from ft_serve.openai.served import Served

T = TypeVar("T")


def sampling_of(
    body: SamplingFields,
    served: Served,
    *,
    max_new_tokens: int | None,
    logprobs: int | None = None,
    stop: Sequence[str] = (),
    constraint: Constraint | None = None,
    skip_special_tokens: bool = True,
) -> Sampling:
    """Return the sampling of a request; what it doesn't say is as the server was started with.

    Args:
        body: the request.
        served: the model, with its defaults.
        max_new_tokens: longest answer.
        logprobs: how many of the likeliest tokens are told with each token's log-probability.
        stop: strings that end the answer beside the request's own.
        constraint: what the answer must be.
        skip_special_tokens: where the request doesn't say.

    Raises:
        ApiError: a field can't be used, or the engine can't do it.
    """
    if logprobs is not None:
        served.require(Capability.LOGPROBS, "logprobs", "logprobs")
    if constraint is not None:
        served.require(Capability.CONSTRAINTS, "an answer of a given form", "response_format")
    own = served.sampling
    top_k = own.top_k if body.top_k is None else max(body.top_k, 0)
    return Sampling(
        max_new_tokens=max_new_tokens,
        temperature=_given(body.temperature, own.temperature),
        top_k=top_k,
        top_p=_given(body.top_p, own.top_p),
        min_p=_given(body.min_p, own.min_p),
        repetition_penalty=_given(body.repetition_penalty, own.repetition_penalty),
        frequency_penalty=_given(body.frequency_penalty, own.frequency_penalty),
        presence_penalty=_given(body.presence_penalty, own.presence_penalty),
        num_beams=own.num_beams,
        logit_bias=_biases(body),
        stop=(*stop, *body.stops),
        stop_token_ids=tuple(body.stop_token_ids or ()),
        ignore_eos=bool(body.ignore_eos),
        min_tokens=body.min_tokens or 0,
        seed=None if body.seed is None else body.seed % 2**63,
        logprobs=logprobs,
        constraint=constraint,
        skip_special_tokens=_given(body.skip_special_tokens, skip_special_tokens),
    )


def check_counts(body: SamplingFields, limits: Limits) -> int:
    """Return how many answers each prompt gets.

    Raises:
        ApiError: more than this server gives, or too many stop strings.
    """
    if len(body.stops) > MOST_STOPS:
        raise ApiError(
            400, f"stop has {len(body.stops)} strings; at most {MOST_STOPS} are taken", param="stop"
        )
    if body.stream_options is not None and not body.stream:
        raise ApiError(400, "stream_options needs stream to be true", param="stream_options")
    n = body.n or 1
    if n > limits.choices:
        raise ApiError(
            400, f"n is {n}; this server gives at most {limits.choices} answers", param="n"
        )
    return n


def room_for(
    served: Served, prompt_tokens: int, asked: int | None, default: int | None
) -> int | None:
    """Return the longest answer that a prompt leaves room for.

    Args:
        served: the model.
        prompt_tokens: of the prompt.
        asked: what the request asks for.
        default: where it doesn't.

    Raises:
        ApiError: the prompt, or prompt and answer, are longer than the model takes.
    """
    longest = served.max_model_len
    if longest is None:
        return default if asked is None else asked
    room = longest - prompt_tokens
    if room < 1 or (asked or 0) > room:
        answer = f" and max_tokens asks for {asked:,}" if asked else ""
        raise ApiError(
            400,
            f"this model takes {longest:,} tokens, answer included; the prompt has {prompt_tokens:,}{answer}; "
            "shorten one of them",
            code="context_length_exceeded",
            param="messages" if asked is None else "max_tokens",
        )
    if asked is not None:
        return asked
    return room if default is None else min(default, room)


def _given(value: T | None, default: T) -> T:
    return default if value is None else value


def _biases(body: SamplingFields) -> dict[int, float]:
    try:
        return {int(token): bias for token, bias in (body.logit_bias or {}).items()}
    except ValueError:
        raise ApiError(
            400, 'logit_bias takes token ids as names, such as {"42": -100}', param="logit_bias"
        ) from None
