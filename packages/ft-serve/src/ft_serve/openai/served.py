"""The model behind the server, and the names it answers to."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from ft_core.agents import AgentFormat
from ft_core.engine import Capability, Engine, Sampling
from ft_core.templates.template import Template
from ft_core.tokenizer import Tokenizer
from ft_serve.openai.errors import ApiError, unsupported
from ft_serve.openai.media import MediaRules
from ft_serve.openai.protocol.server import ModelCard
from ft_serve.openai.reading import agent_of
from ft_serve.openai.reasoning import ReasoningForm


@dataclass(frozen=True, slots=True)
class Served:
    """A loaded model.

    Attributes:
        engine: answers.
        template: the chat format.
        name: of the model without any adapter.
        sampling: what requests get that don't say otherwise.
        root: what the model was made of, without directories of this machine.
        aliases: further names of the model itself.
        adapters: name → what it was made of, as in ``root``.
        default_adapter: answers requests that name no model; ``None`` is the model itself.
        max_model_len: tokens of prompt and answer together; ``None`` where there is no bound.
        completion_tokens: longest answer of ``/v1/completions`` that doesn't say otherwise.
        engine_name: for people.
        created: seconds since 1970.
        media: what requests may bring; ``None`` where the model takes texts only.
        reasoning: how the chat format marks reasoning; ``None`` if it knows none.
        agent: how the chat format's model writes calls.
    """

    engine: Engine
    template: Template
    name: str
    sampling: Sampling = field(default_factory=Sampling)
    root: str | None = None
    aliases: frozenset[str] = frozenset()
    adapters: Mapping[str, str] = field(default_factory=dict)
    default_adapter: str | None = None
    max_model_len: int | None = None
    completion_tokens: int = 16
    engine_name: str = "pt"
    created: int = field(default_factory=lambda: int(time.time()))
    media: MediaRules | None = None
    reasoning: ReasoningForm | None = field(init=False)
    agent: AgentFormat = field(init=False)

    def __post_init__(self) -> None:
        # Once for all requests: both read the format written as Jinja.
        object.__setattr__(self, "reasoning", ReasoningForm.of(self.template))
        object.__setattr__(self, "agent", agent_of(self.template))

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        return self.template.tokenizer

    def find(self, model: str | None) -> tuple[str, str | None]:
        """Return the name and the engine's adapter that a request's ``model`` means.

        Raises:
            ApiError: nothing here has that name.
        """
        if not model:
            return self.default_adapter or self.name, self.default_adapter
        if model == self.name or model in self.aliases:
            return self.name, None
        if model in self.engine.adapters:
            return model, model
        known = ", ".join((self.name, *self.engine.adapters))
        raise ApiError(
            404,
            f"there is no model {_shown(model)} here; there are {known}",
            code="model_not_found",
            param="model",
        )

    def cards(self) -> list[ModelCard]:
        """Return a card of the model and of each adapter, the one that answers by default first."""
        base = ModelCard(
            id=self.name,
            created=self.created,
            root=self.root or self.name,
            max_model_len=self.max_model_len,
        )
        cards = [base]
        for name in self.engine.adapters:
            root = self.adapters.get(name, name)
            card = base.model_copy(update={"id": name, "root": root, "parent": self.name})
            cards.insert(0 if name == self.default_adapter else len(cards), card)
        return cards

    def require(self, capability: Capability, asked: str, param: str) -> None:
        """Refuse what the engine can't do.

        Raises:
            ApiError: with what was asked for, and the remedy where there is one.
        """
        if capability in self.engine.capabilities:
            return
        remedy = ""
        if capability is Capability.CONSTRAINTS:
            remedy = (
                "; on the server, pip install 'ft-serve[constraints]' brings it to ft's own engine"
            )
        raise unsupported(
            f"{asked} is not supported by the engine behind this server{remedy}", param=param
        )


def _shown(text: str, most: int = 100) -> str:
    return repr(text if len(text) <= most else f"{text[:most]}…")
