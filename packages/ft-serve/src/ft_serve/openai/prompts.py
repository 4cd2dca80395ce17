"""Texts and token ids of requests that have no conversation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from ft_core.tokenizer import Tokenizer
from ft_serve.openai.errors import ApiError
from ft_serve.openai.protocol.completions import Prompts


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text as the model is fed it.

    Attributes:
        token_ids: its tokens.
        text: the text; of given token ids, what they say.
    """

    token_ids: Sequence[int]
    text: str


def prompts_of(
    given: Prompts, tokenizer: Tokenizer, *, most: int, begins: bool = True, param: str = "prompt"
) -> list[Prompt]:
    """Return what a request gives, tokenized; token ids are taken as they are.

    Args:
        given: a text, several, the token ids of one, or of several.
        tokenizer: of the model.
        most: how many are taken.
        begins: put the token that begins texts in front of texts, where the tokenizer has one.
        param: the field they are in.

    Raises:
        ApiError: they are too many, empty, or hold ids that the model doesn't know.
    """
    several = _several(given)
    if len(several) > most:
        raise ApiError(
            400, f"{param} has {len(several):,} entries; at most {most:,} are taken", param=param
        )
    opening = [cast(int, tokenizer.bos_token_id)] if begins and tokenizer.adds_bos else []
    prompts = []
    for item in several:
        if isinstance(item, str):
            prompt = Prompt([*opening, *tokenizer.encode(item)], item)
        else:
            _check(item, tokenizer, param)
            prompt = Prompt(item, tokenizer.decode(item))
        if not prompt.token_ids:
            raise ApiError(400, f"{param} is empty; give at least one token", param=param)
        prompts.append(prompt)
    return prompts


def _several(given: Prompts) -> list[str | list[int]]:
    if isinstance(given, str):
        return [given]
    if isinstance(given[0], int):
        return [given]
    return cast("list[str | list[int]]", given)


def _check(ids: Sequence[int], tokenizer: Tokenizer, param: str) -> None:
    largest = max(ids)
    if largest >= tokenizer.vocab_size:
        raise ApiError(
            400,
            f"{param}: there is no token {largest}; the model's vocabulary has {tokenizer.vocab_size:,}",
            param=param,
        )
