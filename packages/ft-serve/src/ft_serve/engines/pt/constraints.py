"""Answers that must be JSON, or match an expression: which tokens may come next, by llguidance."""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ft_core.engine import Constraint
from ft_core.errors import DependencyError, ModelError, UsageError
from ft_core.tokenizer import Tokenizer
from ft_serve.engines.pt.detokenize import Decoder

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

LONGEST_CONSTRAINT = 65_536
"""Characters of a schema or an expression; compiling takes time that grows with them."""


class Matcher:
    """Follows one answer and says which tokens may come next."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    @property
    def complete(self) -> bool:
        """Whether nothing may follow any more."""
        return bool(self._matcher.is_stopped())

    def mask(self, scores: torch.Tensor) -> None:
        """Set the scores, shape (vocabulary), of tokens that may not come next to minus infinity.

        Raises:
            ModelError: the constraint became too complex.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        allowed = torch.from_numpy(np.unpackbits(bits, bitorder="little")).bool()
        known = min(len(allowed), len(scores))
        scores[known:] = -torch.inf
        scores[:known].masked_fill_(~allowed[:known].to(scores.device), -torch.inf)

    def accept(self, token: int) -> None:
        """Take the token that was chosen."""
        self._matcher.consume_token(token)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise ModelError(f"the constraint can't be followed: {self._matcher.get_error()}")


class Grammars:
    """Compiles constraints for one tokenizer.

    Args:
        tokenizer: of the model.
        vocabulary: number of the model's tokens.
        stop_token_ids: tokens that end an answer.
    """

    def __init__(
        self, tokenizer: Decoder, vocabulary: int, stop_token_ids: Collection[int]
    ) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._stop = sorted(stop_token_ids)

    @property
    def available(self) -> bool:
        """Whether the library is installed and knows this kind of tokenizer."""
        return _installed() and isinstance(self._tokenizer, Tokenizer)

    def compile(self, constraint: Constraint) -> Matcher:
        """Return what follows one answer; takes up to a second.

        Raises:
            UsageError: the schema or the expression is wrong, or too large.
            DependencyError: the library is missing.
        """
        if not _installed():
            raise DependencyError(
                f"a constraint of kind {constraint.kind}",
                "llguidance",
                "pip install 'ft-serve[constraints]'",
            )
        from llguidance import LLMatcher

        if len(constraint.text) > LONGEST_CONSTRAINT:
            raise UsageError(
                f"the constraint has {len(constraint.text):,} characters; at most {LONGEST_CONSTRAINT:,} are taken"
            )
        matcher = LLMatcher(self._library, _grammar(constraint), log_level=0)
        if matcher.is_error():
            raise UsageError(f"the constraint ({constraint.kind}) is wrong: {matcher.get_error()}")
        return Matcher(matcher)

    @cached_property
    def _library(self) -> LLTokenizer:
        from llguidance import LLTokenizer

        if not isinstance(self._tokenizer, Tokenizer):
            raise UsageError("constraints need a tokenizer of ft_core.tokenizer")
        with tempfile.TemporaryDirectory() as directory:
            self._tokenizer.save(Path(directory))
            file = Path(directory) / "tokenizer.json"
            if not file.is_file():
                raise UsageError("constraints need a tokenizer that is saved as tokenizer.json")
            content = json.loads(file.read_text(encoding="utf-8"))
        content |= {"padding": None, "truncation": None}
        size = max(self._vocabulary, self._tokenizer.vocab_size)
        return LLTokenizer(json.dumps(content), n_vocab=size, eos_token=self._stop or None)


def _installed() -> bool:
    return importlib.util.find_spec("llguidance") is not None


def _grammar(constraint: Constraint) -> str:
    from llguidance import LLMatcher

    if constraint.kind == "regex":
        return LLMatcher.grammar_from_regex(constraint.text)
    schema: object = {"type": "object"}
    if constraint.kind == "json_schema":
        try:
            schema = json.loads(constraint.text)
        except json.JSONDecodeError as error:
            raise UsageError(f"the constraint's schema is no JSON: {error}") from error
    if not isinstance(schema, dict):
        raise UsageError("the constraint's schema must be a JSON object")
    return LLMatcher.grammar_from_json_schema(schema)
