"""``/tokenize``, ``/detokenize`` and ``/tokenizer_info``, for clients without the tokenizer."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ft_core.errors import FtError
from ft_serve.openai.conversation import checked_variables, functions_of, messages_of, render
from ft_serve.openai.documented import StrictRoute, described
from ft_serve.openai.errors import ApiError, from_failure
from ft_serve.openai.front import front_of
from ft_serve.openai.prompts import prompts_of
from ft_serve.openai.protocol.texts import (
    Detokenized,
    DetokenizeRequest,
    Tokenized,
    TokenizeRequest,
    TokenizerInfo,
)
from ft_serve.openai.served import Served
from ft_serve.openai.streaming import attended

router = APIRouter(route_class=StrictRoute)


@router.post("/tokenize", response_model=Tokenized, responses=described())
async def tokenize(body: TokenizeRequest, request: Request) -> Response:
    """Return the token ids of a text, or of a conversation as the model would be fed it."""
    front = front_of(request)
    served = front.card()
    front.tell_extras(body)
    work = front.off_loop(front.answering.deadline(), _tokenize, body, served)
    return await attended(request, work)


def _tokenize(body: TokenizeRequest, served: Served) -> Response:
    served.find(body.model)
    ids = _ids(body, served)
    names = [served.tokenizer.id_to_token(token) or "" for token in ids]
    answer = Tokenized(
        count=len(ids),
        max_model_len=served.max_model_len,
        tokens=ids,
        token_strs=names if body.return_token_strs else None,
    )
    return Response(answer.model_dump_json(), media_type="application/json")


def _ids(body: TokenizeRequest, served: Served) -> list[int]:
    if (body.prompt is None) == (body.messages is None):
        raise ApiError(400, "give either prompt or messages", param="prompt")
    if body.prompt is not None:
        if body.prompt == "":
            return []
        begins = body.add_special_tokens is not False
        (prompt,) = prompts_of(body.prompt, served.tokenizer, most=1, begins=begins)
        return list(prompt.token_ids)
    template = served.template
    reasons = served.reasoning is not None
    try:
        messages = messages_of(body.messages or (), reasons=reasons)
        variables = checked_variables(body.chat_template_kwargs)
        segments = render(template, messages, functions_of(body.tools), variables, continues=False)
        return list(template.encode_segments([segments])[0].input_ids)
    except FtError as error:
        raise from_failure(error, ready=True) from error


@router.post("/detokenize", response_model=Detokenized, responses=described())
async def detokenize(body: DetokenizeRequest, request: Request) -> Response:
    """Return the text of token ids."""
    front = front_of(request)
    served = front.card()
    front.tell_extras(body)
    served.find(body.model)
    work = front.off_loop(front.answering.deadline(), _detokenize, body, served)
    return await attended(request, work)


def _detokenize(body: DetokenizeRequest, served: Served) -> Response:
    text = ""
    if body.tokens:
        (prompt,) = prompts_of(body.tokens, served.tokenizer, most=1, param="tokens")
        text = prompt.text
    return Response(Detokenized(prompt=text).model_dump_json(), media_type="application/json")


@router.get("/tokenizer_info", response_model=TokenizerInfo, responses=described(401, 503))
async def tokenizer_info(request: Request) -> TokenizerInfo:
    """Return the chat template and the special tokens."""
    served = front_of(request).card()
    tokenizer = served.tokenizer
    return TokenizerInfo(
        tokenizer_class="PreTrainedTokenizerFast",
        chat_template=served.template.to_jinja(),
        bos_token=tokenizer.bos_token,
        eos_token=tokenizer.eos_token,
        pad_token=tokenizer.pad_token,
        eos_token_id=tokenizer.eos_token_id,
        vocab_size=tokenizer.vocab_size,
        model_max_length=served.max_model_len,
    )
