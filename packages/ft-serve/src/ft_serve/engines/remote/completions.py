"""The completions of OpenAI's API as vLLM, ft's own server and others have it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ft_core.engine import Capability, Constraint, TokenLogprob, TokenScores
from ft_core.errors import ModelError
from ft_serve.engines.remote.dialect import Json, Piece, Wanted, finish_reason, refuse

TOKEN_MARK = "token_id:"
"""How vLLM writes a token where the API has its text."""

PLAIN = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "min_tokens": 0}
"""Fields that OpenAI's own API lacks, with the values that change nothing."""


@dataclass(frozen=True, slots=True)
class Vllm:
    """VLLM's own words in ``/v1/completions``: token ids both ways, scores of the prompt, constraints.

    With adapters it doesn't score: asked for log-probabilities of a prompt, vLLM 0.32 on a CPU stops with
    all that is under way ("einsum(): subscript b has size …").
    """

    name: str = "vLLM"
    path: str = "/v1/completions"
    finds_stop_strings: bool = True
    capabilities: frozenset[Capability] = frozenset(
        {
            Capability.STREAM,
            Capability.TOKENS,
            Capability.SCORE,
            Capability.LOGPROBS,
            Capability.CONSTRAINTS,
        }
    )

    def body(self, wanted: Wanted) -> Json:
        """Return the request; nothing of the server's own defaults is left in it."""
        sampling = wanted.sampling
        refuse(self.name, sampling, ["num_beams"])
        body = {
            **_openai_body(wanted),
            **{name: getattr(sampling, name) for name in PLAIN},
            # The tokens that end an answer are the template's, whatever the server believes.
            "ignore_eos": True,
            "stop_token_ids": list(wanted.stop_token_ids),
            "skip_special_tokens": sampling.skip_special_tokens,
            "return_token_ids": True,
        }
        if sampling.logprobs is not None:
            body["return_tokens_as_token_ids"] = True
        if sampling.constraint is not None:
            body["structured_outputs"] = structured(sampling.constraint)
        return body

    def read(self, data: Json) -> Piece | None:
        """Return what an event says."""
        return _read(data)

    @classmethod
    def beside_adapters(cls) -> Vllm:
        """Return the dialect of a vLLM that was started with adapters."""
        return cls(capabilities=cls().capabilities - {Capability.SCORE})

    def score_body(self, token_ids: Sequence[int], model: str, top: int) -> Json:
        """Ask for one token more, which vLLM needs to look at a prompt at all.

        Raises:
            ModelError: it has adapters.
        """
        if Capability.SCORE not in self.capabilities:
            raise ModelError(
                "vLLM can't score tokens while it has adapters; use --infer_backend pt"
            )
        return {
            "model": model,
            "prompt": list(token_ids),
            "max_tokens": 1,
            "temperature": 0,
            "prompt_logprobs": top,
        }

    def read_scores(self, data: Json, token_ids: Sequence[int], top: int) -> TokenScores:
        """Return what stands under ``prompt_logprobs``."""
        entries = data["choices"][0]["prompt_logprobs"]
        logprobs = [0.0]
        likeliest: list[tuple[tuple[int, float], ...]] = [()]
        for token, entry in zip(token_ids[1:], entries[1:], strict=True):
            found = {int(name): float(item["logprob"]) for name, item in entry.items()}
            logprobs.append(found[token])
            likeliest.append(_likeliest(found, top))
        return TokenScores(logprobs, likeliest if top else ())


@dataclass(frozen=True, slots=True)
class OpenAi:
    """Any other server: OpenAI's own fields, and further ones only where they change something.

    Answers come back as text, and how many tokens they had at the end.
    """

    name: str = "the server"
    path: str = "/v1/completions"
    finds_stop_strings: bool = True
    capabilities: frozenset[Capability] = frozenset({Capability.STREAM})

    def body(self, wanted: Wanted) -> Json:
        """Return the request."""
        sampling = wanted.sampling
        refuse(self.name, sampling, ["num_beams", "constraint", "logprobs"])
        further = {
            name: getattr(sampling, name)
            for name, plain in PLAIN.items()
            if getattr(sampling, name) != plain
        }
        if sampling.stop_token_ids:
            further["stop_token_ids"] = list(sampling.stop_token_ids)
        if sampling.ignore_eos:
            further["ignore_eos"] = True
        if not sampling.skip_special_tokens:
            further["skip_special_tokens"] = False
        return {**_openai_body(wanted), **further, "stream_options": {"include_usage": True}}

    def read(self, data: Json) -> Piece | None:
        """Return what an event says."""
        piece = _read(data)
        usage = data.get("usage")
        if usage is None:
            return piece
        return replace(piece or Piece(), generated_tokens=usage["completion_tokens"])

    def score_body(self, token_ids: Sequence[int], model: str, top: int) -> Json:
        """Refuse: texts of tokens would come back where tokens are wanted."""
        raise ModelError(f"{self.name} at this address can't score tokens")

    def read_scores(self, data: Json, token_ids: Sequence[int], top: int) -> TokenScores:
        """Refuse, as ``score_body`` does."""
        raise ModelError(f"{self.name} at this address can't score tokens")


def _openai_body(wanted: Wanted) -> dict[str, Any]:
    sampling = wanted.sampling
    body: dict[str, Any] = {
        "model": wanted.model,
        "prompt": list(wanted.request.token_ids),
        "max_tokens": wanted.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
        "stream": True,
    }
    optional = {
        "seed": sampling.seed,
        "logprobs": sampling.logprobs,
        "stop": list(sampling.stop) or None,
        "logit_bias": {str(token): bias for token, bias in sampling.logit_bias.items()} or None,
    }
    return body | {name: value for name, value in optional.items() if value is not None}


def structured(constraint: Constraint) -> Json:
    """Return what an answer has to be like, in vLLM's words."""
    if constraint.kind == "regex":
        return {"regex": constraint.text}
    if constraint.kind == "json":
        return {"json_object": True}
    return {"json": json.loads(constraint.text)}


def _read(data: Json) -> Piece | None:
    if not data.get("choices"):
        return None
    choice = data["choices"][0]
    return Piece(
        choice.get("text") or "",
        tuple(choice.get("token_ids") or ()),
        finish_reason(choice.get("finish_reason")),
        _read_logprobs(choice.get("logprobs")),
        choice.get("stop_reason"),
    )


def _read_logprobs(found: Json | None) -> tuple[TokenLogprob, ...]:
    if found is None:
        return ()
    likeliest = found.get("top_logprobs") or [{}] * len(found["tokens"])
    return tuple(
        TokenLogprob(_token(name), float(value), _best(best))
        for name, value, best in zip(
            found["tokens"], found["token_logprobs"], likeliest, strict=True
        )
    )


def _token(name: str) -> int:
    return int(name.removeprefix(TOKEN_MARK))


def _best(entry: Json | None) -> tuple[tuple[int, float], ...]:
    found = {_token(name): float(value) for name, value in (entry or {}).items()}
    return _likeliest(found, len(found))


def _likeliest(found: dict[int, float], top: int) -> tuple[tuple[int, float], ...]:
    ordered = sorted(found.items(), key=lambda item: item[1], reverse=True)
    return tuple(ordered[:top])
