"""What a loaded model can take, and the refusal of requests that it can't."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import torch
from transformers import PreTrainedModel

from ft_core.engine import GenerationRequest, Sampling
from ft_core.errors import UsageError
from ft_core.models.rope import longest
from ft_serve.engines.pt.batch.cache import ColumnCache

CPU_MEMORY_SHARE = 0.25
GPU_MEMORY_SHARE = 0.6
LEAST_CACHED_TOKENS = 4096
MOST_LOGPROBS = 100


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """Bounds of a model.

    Attributes:
        vocabulary: rows of its embedding; ids are below this.
        positions: tokens of prompt and answer together; ``None`` where the model sets no bound.
    """

    vocabulary: int
    positions: int | None

    @classmethod
    def of(cls, model: PreTrainedModel) -> ModelLimits:
        """Read the bounds of a loaded model."""
        config = model.config.get_text_config()
        return cls(model.get_input_embeddings().weight.shape[0], longest(config))

    def max_new_tokens(self, request: GenerationRequest) -> int:
        """Check a request and return how many tokens it may generate.

        Raises:
            UsageError: the prompt is empty, holds an unknown id or leaves no room for an answer, or a
                sampling value makes no sense.
        """
        self.check_ids(request.token_ids)
        _check_sampling(request.sampling)
        if request.sampling.stop_token_ids:
            self.check_ids(request.sampling.stop_token_ids)
        for token, bias in request.sampling.logit_bias.items():
            self.check_ids([token])
            if not isfinite(bias):
                raise UsageError(f"logit_bias {bias} of token {token}: give a finite number")
        wanted = request.sampling.max_new_tokens
        if self.positions is None:
            if wanted is None:
                raise UsageError(
                    "max_new_tokens None: this model sets no length of its own; give a number"
                )
            return wanted
        room = self.positions - len(request.token_ids)
        if room < 1:
            raise UsageError(
                f"the prompt has {len(request.token_ids)} tokens and the model takes {self.positions} "
                "with the answer; shorten the prompt, or clear the history"
            )
        return room if wanted is None else min(room, wanted)

    def check_ids(self, token_ids: Sequence[int]) -> None:
        """Refuse an empty sequence or ids outside the vocabulary.

        Raises:
            UsageError: naming the id.
        """
        if not token_ids:
            raise UsageError("the prompt has no tokens; give at least one")
        for token in (min(token_ids), max(token_ids)):
            if not 0 <= token < self.vocabulary:
                raise UsageError(
                    f"token id {token} is not in the model's vocabulary of {self.vocabulary}; "
                    "encode the prompt with this model's own tokenizer"
                )

    def check_length(self, token_ids: Sequence[int]) -> None:
        """Refuse a sequence that is longer than the model allows.

        Raises:
            UsageError: with both lengths.
        """
        if self.positions is not None and len(token_ids) > self.positions:
            raise UsageError(
                f"a text of {len(token_ids)} tokens: this model takes {self.positions}; shorten it"
            )


def default_cached_tokens(model: PreTrainedModel) -> int:
    """Return how many tokens' keys and values fit into a fair share of the memory that is free."""
    config = model.config.get_text_config()
    layers = len(ColumnCache(config).layers)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    bytes_per_token = 2 * layers * heads * size * model.dtype.itemsize
    if model.device.type == "cuda":
        memory = GPU_MEMORY_SHARE * torch.cuda.mem_get_info(model.device)[0]
    else:
        memory = CPU_MEMORY_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    # Buffers are copied when they grow, so only half of the share is for use.
    return max(LEAST_CACHED_TOKENS, int(memory / bytes_per_token / 2))


def _check_sampling(sampling: Sampling) -> None:
    wrong = {
        "max_new_tokens": sampling.max_new_tokens is not None and sampling.max_new_tokens < 1,
        "temperature": not 0 <= sampling.temperature < float("inf"),
        "top_k": sampling.top_k < 0,
        "top_p": not 0 < sampling.top_p <= 1,
        "repetition_penalty": not 0 < sampling.repetition_penalty < float("inf"),
        "num_beams": sampling.num_beams < 1,
        "frequency_penalty": not isfinite(sampling.frequency_penalty),
        "presence_penalty": not isfinite(sampling.presence_penalty),
        "min_p": not 0 <= sampling.min_p <= 1,
        "min_tokens": sampling.min_tokens < 0,
        "logprobs": sampling.logprobs is not None and not 0 <= sampling.logprobs <= MOST_LOGPROBS,
    }
    allowed = {
        "max_new_tokens": "at least 1",
        "temperature": "0 (greedy) or more",
        "top_k": "0 (no limit) or more",
        "top_p": "above 0, at most 1",
        "repetition_penalty": "above 0 (1 changes nothing)",
        "num_beams": "at least 1",
        "frequency_penalty": "that is finite (0 changes nothing)",
        "presence_penalty": "that is finite (0 changes nothing)",
        "min_p": "from 0 (leaves out nothing) to 1",
        "min_tokens": "0 or more",
        "logprobs": f"from 0 to {MOST_LOGPROBS}",
    }
    for name, is_wrong in wrong.items():
        if is_wrong:
            raise UsageError(f"{name} {getattr(sampling, name)}: give a value {allowed[name]}")
    if sampling.num_beams > 1 and (unknown := _not_with_beams(sampling)):
        raise UsageError(
            f"num_beams {sampling.num_beams} can't be used with {', '.join(unknown)}; leave it at 1"
        )


def _not_with_beams(sampling: Sampling) -> list[str]:
    given = {
        "frequency_penalty": sampling.frequency_penalty != 0,
        "presence_penalty": sampling.presence_penalty != 0,
        "logit_bias": bool(sampling.logit_bias),
        "logprobs": sampling.logprobs is not None,
        "constraint": sampling.constraint is not None,
        "min_p": sampling.min_p != 0,
        "min_tokens": sampling.min_tokens != 0,
    }
    return [name for name, is_given in given.items() if is_given]
