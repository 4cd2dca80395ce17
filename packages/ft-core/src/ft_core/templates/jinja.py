"""The tokenizer's own Jinja chat template."""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ft_core.agents import AgentFormat, with_tools
from ft_core.agents.functions import nested
from ft_core.errors import ModelError
from ft_core.examples import Example, Message
from ft_core.samples import Tokens
from ft_core.templates.conversation import (
    answer_parts,
    answer_weight,
    fail,
    given_segments,
    located,
    require_text,
    text_segments,
    up_to_last_answer,
)
from ft_core.templates.encoding import SegmentEncoder, encode_rows
from ft_core.templates.field_jinja import expression, literal
from ft_core.templates.jinja_environment import ChatTemplate
from ft_core.templates.jinja_habits import Habits
from ft_core.templates.jinja_layout import Conversation
from ft_core.templates.jinja_tools import ToolHabits
from ft_core.templates.template import Segment
from ft_core.tokenizer import Tokenizer

# Part of the fingerprint; goes up whenever the same template would give other tokens.
_VERSION = 3


class JinjaTemplate:
    """A Jinja chat template bound to a tokenizer.

    What serving feeds the model is the template's rendering of the messages with its generation prompt;
    an answer is what the template puts after exactly that when the answer is added, up to the special
    token that ends it. Both are read off real renderings of the row. Where an earlier answer stands in
    the newest prompt just as it was trained, one sample holds all answers; where the template rewrites
    earlier turns (it drops their reasoning, say), each rewritten answer gets a sample of its own.

    Args:
        tokenizer: what it encodes with.
        source: Jinja text; ``None`` takes the tokenizer's own.
        system: the system message of rows without their own; ``None`` leaves it to the template, ``""``
            uses none, also not the template's built-in one.
        agent: writes out tools, calls and results where the template has no form of its own for them;
            ``None`` refuses such rows.
        variables: further variables for the template, such as ``{"enable_thinking": False}``.
        today: the date that templates with a date in them see.

    Raises:
        ModelError: there is no chat template, it is no valid Jinja, or it can't render a question.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        source: str | None = None,
        *,
        system: str | None = None,
        agent: AgentFormat | None = None,
        variables: Mapping[str, Any] | None = None,
        today: datetime.date | None = None,
    ) -> None:
        own = tokenizer.chat_template if source is None else source
        if own is None:
            raise ModelError(
                f"the tokenizer in {tokenizer.directory} has no chat template; give a registered --template_type"
            )
        self._tokenizer = tokenizer
        self._source = own
        self._tool_source = tokenizer.chat_templates.get("tool_use") if source is None else None
        self._system = system
        self._agent = agent
        self._variables = dict(variables or {})
        self._today = datetime.date.today() if today is None else today
        self._encoder = SegmentEncoder(tokenizer)
        self._main = self._compile(own)
        self._with_tools = (
            self._main if self._tool_source is None else self._compile(self._tool_source)
        )
        self._habits = Habits.probe(self._main, self._encoder.special)
        self._tool_habits = self._habits.tools
        if self._with_tools is not self._main:
            self._with_tools.takes_parts = self._main.takes_parts
            self._tool_habits = ToolHabits.probe(self._with_tools)
        self._given = (tokenizer, source, system, agent, variables, self._today)

    def __reduce__(self) -> tuple[Any, ...]:
        # Compiled Jinja can't travel to another process; what it was made of can.
        return _rebuild, self._given

    @property
    def name(self) -> str:
        """Always ``"jinja"``."""
        return "jinja"

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer it encodes with."""
        return self._tokenizer

    @property
    def date(self) -> datetime.date | None:
        """The date it writes into conversations; ``None`` if it shows none."""
        return self._today if "strftime_now" in f"{self._source}{self._tool_source}" else None

    def ignored(self, variables: Mapping[str, Any]) -> list[str]:
        """Return the names of variables that the template never reads."""
        text = f"{self._source}{self._tool_source or ''}"
        return [name for name in variables if not re.search(rf"\b{re.escape(name)}\b", text)]

    @property
    def fingerprint(self) -> str:
        """Changes whenever the same rows would give other tokens."""
        sources = f"{self._source}\0{self._tool_source}"
        facts = [
            _VERSION,
            sources,
            self._system,
            None if self._agent is None else self._agent.name,
            self._variables,
            str(self.date),
            self._tokenizer.fingerprint,
        ]
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[
            :32
        ]

    @property
    def tools_prompt(self) -> str | None:
        """The agent format it writes tools in; ``None`` if it has a form of its own."""
        return None if self._tool_habits.all or self._agent is None else self._agent.name

    @property
    def stop_token_ids(self) -> frozenset[int]:
        """Tokens that end an answer: the template's and the tokenizer's own."""
        return self._habits.end_ids | frozenset(self._tokenizer.eos_token_ids)

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Always empty: an answer without an ending token of the template's is ended by EOS."""
        return ()

    @property
    def multi_turn(self) -> bool:
        """Chat templates take conversations of any length."""
        return True

    def render(self, example: Example) -> list[list[Segment]]:
        """Render a row for training, up to its last answer.

        Raises:
            DataError: the template refuses the row, or renders its answers in a way that the prompt for
                them doesn't lead to.
        """
        if example.input_ids is not None:
            return [given_segments(example, self._tokenizer)]
        if example.text is not None:
            return [text_segments(example.text, self._tokenizer, bos=self._tokenizer.adds_bos)]
        require_text(example.messages, example)
        messages = up_to_last_answer(example)
        with located(example.source):
            variables = example.chat_template_kwargs
            return self._conversation(messages, example.tools, variables).samples()

    def render_prompt(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] = (),
        variables: Mapping[str, Any] | None = None,
    ) -> list[Segment]:
        """Render what the model is fed to get the next answer.

        Raises:
            DataError: the template refuses the messages, or they don't end with a question.
        """
        require_text(messages)
        if not messages or messages[-1].role in ("assistant", "system"):
            fail(
                "a prompt ends with a user's or tool's message; add the question",
                rule="no_question",
            )
        return self._conversation(messages, tools, variables or {}).prompt()

    def encode(self, examples: Sequence[Example]) -> list[list[Tokens]]:
        """Tokenize rows in one batch; per row one ``Tokens`` per rendered sample, not truncated."""
        return encode_rows(self, examples)

    def encode_segments(self, rendered: Sequence[Sequence[Segment]]) -> list[Tokens]:
        """Tokenize rendered segments in one batch."""
        return self._encoder.encode(rendered)

    def encode_prompt(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] = (),
        variables: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """Return the ids of ``render_prompt``."""
        rendered = self.render_prompt(messages, tools, variables)
        return list(self.encode_segments([rendered])[0].input_ids)

    def to_jinja(self) -> str:
        """Return the template, with the default system message and the variables of this run in it."""
        system = self._default_system()
        told = "".join(
            f"{{%- if {name} is not defined %}}{{%- set {name} = {expression(value)} %}}{{%- endif %}}"
            for name, value in self._variables.items()
        )
        if system is None:
            return told + "{{ '' }}" + self._source if told else self._source
        # The empty expression keeps Jinja from swallowing a line break at the template's beginning.
        return (
            f"{told}"
            "{%- if not messages or messages[0]['role'] != 'system' %}"
            f"{{%- set messages = [{{'role': 'system', 'content': {literal(system)}}}] + (messages | list) %}}"
            "{%- endif %}{{ '' }}" + self._source
        )

    def _compile(self, source: str) -> ChatTemplate:
        variables = {**self._tokenizer.named_tokens, **self._variables}
        return ChatTemplate(source, today=self._today, variables=variables)

    def _default_system(self) -> str | None:
        """The system message to add to rows without one; ``None`` adds none."""
        if self._system == "":
            return "" if self._habits.has_default_system else None
        return self._system

    def _conversation(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]],
        variables: Mapping[str, Any],
    ) -> Conversation:
        written = not self._tool_habits.suffice(messages, tools=bool(tools))
        if written:
            messages, tools = self._written_out(messages, tools), ()
        placed = self._with_system(messages)
        results = "tool" if self._tool_habits.results else "user"
        return Conversation(
            self._with_tools if tools else self._main,
            self._habits,
            self._encoder.special,
            messages=[_plain(message, results if written else "tool") for message in placed],
            weights=[answer_weight(message) for message in placed],
            parts=[answer_parts(message) for message in placed],
            speakers=[message.role for message in placed],
            tools=[nested(tool) for tool in tools],
            variables=variables,
            eos=self._tokenizer.eos_token,
        )

    def _written_out(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]
    ) -> Sequence[Message]:
        """Return the messages with tools, calls and results as text, since the template has no form for them."""
        if self._agent is None:
            fail(
                "the row has tools or tool calls and the tokenizer's chat template has no form for them; "
                "give --tools_prompt",
                rule="tools",
            )
        example = Example(messages=tuple(messages), tools=tuple(tools))
        no_system = self._habits.refuses_system or not self._habits.takes_system
        return with_tools(
            example,
            self._agent,
            default_system=self._default_system(),
            in_question=no_system,
            as_turns=True,
        ).messages

    def _with_system(self, messages: Sequence[Message]) -> list[Message]:
        """Return the messages as the template gets them: with the run's system message, if it has one."""
        own = bool(messages) and messages[0].role == "system"
        system = messages[0].text if own else self._default_system()
        if system == "" and not self._habits.has_default_system:
            system = None
        if system and not self._habits.takes_system:
            origin = "the row has" if own else "--system gives"
            fail(
                f"{origin} a system message and the tokenizer's chat template leaves it out; leave it out too or choose another template_type",
                rule="no_system",
            )
        rest = list(messages[1:] if own else messages)
        return rest if system is None else [Message("system", system), *rest]


def _plain(message: Message, results: str) -> dict[str, Any]:
    """Return a message as chat templates expect it, a result as one of the role ``results``."""
    plain = {key: value for key, value in message.to_json().items() if key != "weight"}
    role = results if message.role == "tool" else message.role
    return {**plain, "role": role, "content": message.text}


def _rebuild(
    tokenizer: Tokenizer,
    source: str | None,
    system: str | None,
    agent: AgentFormat | None,
    variables: Mapping[str, Any] | None,
    today: datetime.date | None,
) -> JinjaTemplate:
    return JinjaTemplate(
        tokenizer, source, system=system, agent=agent, variables=variables, today=today
    )
