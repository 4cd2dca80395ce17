"""What a loaded model can take, and the refusal of requests that it can't."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from transformers import PreTrainedModel

from ft_core.engine import GenerationRequest
from ft_core.errors import UsageError
from ft_core.models.memory import free_memory
from ft_core.models.rope import longest
from ft_serve.engines.pt.batch.cache import ColumnCache
from ft_serve.engines.sampling_values import check_sampling

CPU_MEMORY_SHARE = 0.25
GPU_MEMORY_SHARE = 0.6
LEAST_CACHED_TOKENS = 4096


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
        check_sampling(request.sampling)
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

    def check_length(self, token_ids: Sequence[int], longest: int | None) -> None:
        """Refuse a sequence of more than ``longest`` tokens.

        Raises:
            UsageError: with both lengths.
        """
        if longest is not None and len(token_ids) > longest:
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
    share = GPU_MEMORY_SHARE if model.device.type == "cuda" else CPU_MEMORY_SHARE
    memory = share * free_memory(str(model.device))
    # Buffers are copied when they grow, so only half of the share is for use.
    return max(LEAST_CACHED_TOKENS, int(memory / bytes_per_token / 2))
