"""Prompts with images, videos and audios for vLLM: token ids and files, through its tokens-in endpoint.

A server has it when it was started with ``--enable-scale-out``. It puts a model's own tokens in place of each mark, as
ft does; an answer to other tokens than ft's is refused.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from ft_core.errors import ModelError
from ft_core.media import MediaProcessor
from ft_core.samples import Medium
from ft_serve.engines.remote.completions import PLAIN, structured
from ft_serve.engines.remote.dialect import Json, Piece, Wanted, finish_reason, refuse

PATH = "/inference/v1/generate"

_SAME = ("frequency_penalty", "presence_penalty")


@dataclass(frozen=True, slots=True)
class VllmMedia:
    """How vLLM is asked about what is seen and heard.

    Attributes:
        processor: of the model.
    """

    processor: MediaProcessor

    def body(self, wanted: Wanted) -> Json:
        """Return the request.

        Raises:
            DataError: a medium can't be used.
            UsageError: vLLM has no word for something that is asked.
        """
        sampling = wanted.sampling
        refuse("vLLM, asked about images, videos and audios,", sampling, ["num_beams", "logprobs"])
        given: dict[str, Any] = {
            **{name: getattr(sampling, name) for name in PLAIN},
            **{name: getattr(sampling, name) for name in _SAME if getattr(sampling, name)},
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": wanted.max_tokens,
            "ignore_eos": True,
            "stop_token_ids": list(wanted.stop_token_ids),
            "skip_special_tokens": sampling.skip_special_tokens,
        }
        if sampling.seed is not None:
            given["seed"] = sampling.seed
        if sampling.stop:
            given["stop"] = list(sampling.stop)
        if sampling.logit_bias:
            given["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias.items()}
        if sampling.constraint is not None:
            given["structured_outputs"] = structured(sampling.constraint)
        media = sorted(wanted.request.media, key=lambda item: item.start)
        return {
            "model": wanted.model,
            "token_ids": self._marked(wanted.request.token_ids, media),
            "content_parts": [self._part(item) for item in media],
            "sampling_params": given,
            "output_mode": "text",
            "return_token_ids": True,
            "stream": True,
        }

    def read(self, data: Json, wanted: Wanted) -> Piece | None:
        """Return what an event says.

        Raises:
            ModelError: vLLM read other tokens than ft's.
        """
        prompt = data.get("prompt_token_ids")
        if prompt is not None and list(prompt) != list(wanted.request.token_ids):
            raise ModelError(
                f"vLLM makes a prompt of {len(prompt)} tokens where ft makes one of "
                f"{len(wanted.request.token_ids)}: it writes the media of this model another way; use "
                "--infer_backend pt"
            )
        if not data.get("choices"):
            return None
        choice = data["choices"][0]
        return Piece(
            choice.get("text") or "",
            tuple(choice.get("token_ids") or ()),
            finish_reason(choice.get("finish_reason")),
            stop_reason=choice.get("stop_reason"),
        )

    def _marked(self, token_ids: Sequence[int], media: Sequence[Medium]) -> list[int]:
        """Return a prompt with a mark in place of the tokens of each medium."""
        ids: list[int] = []
        position = 0
        for item in media:
            ids += token_ids[position : item.start]
            ids.append(self._mark(item.kind))
            position = item.end
        return [*ids, *token_ids[position:]]

    def _mark(self, kind: str) -> int:
        tokenizer = self.processor.library.tokenizer
        return cast(int, tokenizer.convert_tokens_to_ids(self.processor.placeholder(kind)))

    def _part(self, item: Medium) -> Json:
        """Return a medium as ft reads it: an image in its size, an audio at the rate of the model."""
        kind, content = self.processor.as_file(item.kind, item.source)
        data = base64.b64encode(content).decode("ascii")
        return {"type": f"{item.kind}_url", "url": f"data:{kind};base64,{data}"}
