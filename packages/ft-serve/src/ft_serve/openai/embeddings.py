"""``POST /v1/embeddings``."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Sequence

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ft_core.engine import Capability
from ft_core.errors import FtError
from ft_serve.openai.documented import StrictRoute, described
from ft_serve.openai.errors import ApiError, from_failure
from ft_serve.openai.front import Front, front_of
from ft_serve.openai.prompts import prompts_of
from ft_serve.openai.protocol.texts import Embedding, EmbeddingList, EmbeddingRequest
from ft_serve.openai.protocol.usage import Usage
from ft_serve.openai.served import Served
from ft_serve.openai.streaming import attended

router = APIRouter(route_class=StrictRoute)

EMBEDDED_TOGETHER = 8


@router.post("/v1/embeddings", response_model=EmbeddingList, responses=described())
async def embeddings(body: EmbeddingRequest, request: Request) -> Response:
    """Return the mean of each text's last hidden states, of length 1."""
    return await attended(request, _answer(front_of(request), body))


async def _answer(front: Front, body: EmbeddingRequest) -> Response:
    served = front.open()
    front.tell_extras(body)
    served.require(Capability.EMBED, "embeddings", "input")
    if body.dimensions is not None:
        raise ApiError(
            400,
            "dimensions: this model's vectors can't be shortened; leave it out",
            param="dimensions",
        )
    model, adapter = served.find(body.model)
    deadline = front.answering.deadline()
    prompts = await front.off_loop(
        deadline, prompts_of, body.input, served.tokenizer, most=front.limits.prompts, param="input"
    )
    ids = [prompt.token_ids for prompt in prompts]
    vectors = await front.answering.within(deadline, _embed(front, served, ids, adapter))
    encoded = body.encoding_format == "base64"
    answer = EmbeddingList(
        data=[
            Embedding(index=index, embedding=_base64(vector) if encoded else vector)
            for index, vector in enumerate(vectors)
        ],
        model=model,
        usage=Usage.of(sum(map(len, ids)), 0),
    )
    return Response(answer.model_dump_json(), media_type="application/json")


async def _embed(
    front: Front, served: Served, ids: Sequence[Sequence[int]], adapter: str | None
) -> list[list[float]]:
    vectors: list[list[float]] = []
    try:
        with front.answering.counted(ids):
            for begin in range(0, len(ids), EMBEDDED_TOGETHER):
                some = ids[begin : begin + EMBEDDED_TOGETHER]
                vectors += map(_unit, await served.engine.embed(some, adapter=adapter))
    except FtError as error:
        raise from_failure(error, ready=served.engine.ready) from error
    return vectors


def _unit(vector: Sequence[float]) -> list[float]:
    length = math.sqrt(sum(value * value for value in vector))
    return [value / length for value in vector] if length else list(vector)


def _base64(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")
