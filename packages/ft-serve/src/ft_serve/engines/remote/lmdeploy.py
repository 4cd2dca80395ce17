"""LMDeploy's ``/generate``, the one of its routes that takes token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ft_core.engine import Capability, TokenLogprob, TokenScores
from ft_core.errors import ModelError
from ft_serve.engines.remote.dialect import Json, Piece, Wanted, finish_reason, refuse

UNKNOWN = (
    "num_beams",
    "frequency_penalty",
    "presence_penalty",
    "logit_bias",
    "constraint",
    "min_tokens",
)


@dataclass(frozen=True, slots=True)
class LmDeploy:
    """LMDeploy: no adapters, and no seed, so sampled answers differ each time.

    It would end an answer at any token that contains a stop string, so these are looked for on this side.
    """

    name: str = "LMDeploy"
    path: str = "/generate"
    finds_stop_strings: bool = False
    capabilities: frozenset[Capability] = frozenset(
        {Capability.STREAM, Capability.TOKENS, Capability.LOGPROBS}
    )

    def body(self, wanted: Wanted) -> Json:
        """Return the request."""
        sampling = wanted.sampling
        refuse(self.name, sampling, UNKNOWN)
        if sampling.ignore_eos:
            # LMDeploy then ignores every stop token, also those the request names.
            refuse(self.name, sampling, ["stop_token_ids"])
        body: dict[str, Any] = {
            "input_ids": list(wanted.request.token_ids),
            "max_tokens": wanted.max_tokens,
            "stop_token_ids": list(wanted.stop_token_ids),
            "ignore_eos": sampling.ignore_eos,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": 1 if sampling.temperature == 0 else sampling.top_k,
            "min_p": sampling.min_p,
            "repetition_penalty": sampling.repetition_penalty,
            "skip_special_tokens": sampling.skip_special_tokens,
            "stream": True,
        }
        if sampling.logprobs is not None:
            body |= {"return_logprob": True, "top_logprobs_num": sampling.logprobs}
        return body

    def read(self, data: Json) -> Piece | None:
        """Return what an event says."""
        told = data["meta_info"]
        reason = told.get("finish_reason")
        return Piece(
            data.get("text") or "",
            tuple(data.get("output_ids") or ()),
            finish_reason(None if reason is None else reason.get("type")),
            _read_logprobs(told),
        )

    def score_body(self, token_ids: Sequence[int], model: str, top: int) -> Json:
        """Refuse: only one of its two engines can, and which one runs isn't told."""
        raise ModelError("LMDeploy can't score tokens; use --infer_backend pt or vllm")

    def read_scores(self, data: Json, token_ids: Sequence[int], top: int) -> TokenScores:
        """Refuse, as ``score_body`` does."""
        raise ModelError("LMDeploy can't score tokens; use --infer_backend pt or vllm")


def _read_logprobs(told: Json) -> tuple[TokenLogprob, ...]:
    chosen = told.get("output_token_logprobs") or []
    likeliest = told.get("output_top_logprobs") or [[]] * len(chosen)
    return tuple(
        TokenLogprob(token, value, tuple((other, score) for score, other in best))
        for (value, token), best in zip(chosen, likeliest, strict=True)
    )
