"""Chat formats described by a record."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from ft_core.agents import AgentFormat, with_tools
from ft_core.errors import UsageError
from ft_core.examples import Example, Message, Role, Source
from ft_core.samples import Tokens
from ft_core.templates.conversation import (
    bos_segment,
    fail,
    given_segments,
    located,
    require_text,
    text_segments,
    up_to_last_answer,
)
from ft_core.templates.encoding import SegmentEncoder, encode_rows
from ft_core.templates.field_jinja import FieldForms
from ft_core.templates.field_layout import FieldConversation, Frame, Link
from ft_core.templates.pieces import (
    Content,
    Ids,
    Pieces,
    bind,
    join,
    plain_text,
    split_ending,
    without_start,
)
from ft_core.templates.record import Elements, TemplateRecord
from ft_core.templates.rounds import Round, split_rounds
from ft_core.templates.template import Segment, SegmentKind
from ft_core.templates.thinking import Thinking
from ft_core.tokenizer import Tokenizer

# Part of the fingerprint; goes up whenever the same record would give other tokens.
_VERSION = 2

_VARIABLES = frozenset({"enable_thinking"})


class FieldTemplate:
    """A record bound to a tokenizer.

    Every answer is trained up to and including its end: the suffix up to its first special token. Between
    rounds it is the part of the separator that the suffix begins with; a format whose rounds would not
    end gets the suffix's end there too, and one whose next question begins with the ending token (GLM)
    lets the answer end with that very token.

    Args:
        name: the record's name.
        record: the format.
        tokenizer: what it encodes with.
        system: the system message of rows without their own; ``None`` takes the record's, ``""`` none.
        agent: writes out tools, calls and results; ``None`` refuses rows with tools.
        variables: ``enable_thinking`` says whether the model is to reason; by default it is.
        today: the date in formats that show one; ``None`` takes the machine's.

    Raises:
        ModelError: the format needs a token the tokenizer doesn't have.
        UsageError: ``system`` is given and the format has no place for it, or a variable is unknown.
    """

    def __init__(
        self,
        name: str,
        record: TemplateRecord,
        tokenizer: Tokenizer,
        *,
        system: str | None = None,
        agent: AgentFormat | None = None,
        variables: Mapping[str, Any] | None = None,
        today: datetime.date | None = None,
    ) -> None:
        if system and not record.takes_system:
            raise UsageError(
                f"--system: template {name!r} has no place for a system message; leave it out or choose another template_type"
            )
        if unknown := sorted(set(variables or {}) - _VARIABLES):
            raise UsageError(
                f"--chat_template_kwargs: template {name!r} knows {', '.join(sorted(_VARIABLES))}, not {', '.join(unknown)}; leave it out or choose --template_type jinja"
            )
        self._date = (today or datetime.date.today()) if record.shows_date else None
        if self._date is not None:
            record = record.on(self._date)
        self._name = name
        self._record = record
        self._variables = dict(variables or {})
        self._tokenizer = tokenizer
        self._system = record.default_system if system is None else system
        self._agent = agent
        self._encoder = SegmentEncoder(tokenizer)
        self._frame = self._bind_frame()

    @property
    def name(self) -> str:
        """The record's name."""
        return self._name

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer it encodes with."""
        return self._tokenizer

    @property
    def record(self) -> TemplateRecord:
        """The format."""
        return self._record

    @property
    def date(self) -> datetime.date | None:
        """The date it writes into conversations; ``None`` if it shows none."""
        return self._date

    def ignored(self, variables: Mapping[str, Any]) -> list[str]:
        """Return the names of variables that change nothing in this format."""
        thinking = self._frame.thinking
        switches = thinking is not None and thinking.off is not None
        return [name for name in variables if name not in _VARIABLES or not switches]

    @property
    def fingerprint(self) -> str:
        """Changes whenever the same rows would give other tokens."""
        agent = None if self._agent is None else self._agent.name
        facts = [
            *(_VERSION, self._record.to_json(), self._system, agent, self._variables),
            self._tokenizer.fingerprint,
        ]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]

    @property
    def tools_prompt(self) -> str | None:
        """The agent format it writes tools in; ``None`` if it refuses them."""
        return None if self._agent is None else self._agent.name

    @property
    def stop_token_ids(self) -> frozenset[int]:
        """Tokens that end an answer: the format's and the tokenizer's own."""
        ends = (self._stop_id(text) for text in self._stop_texts())
        return frozenset(
            (*self._tokenizer.eos_token_ids, *(end for end in ends if end is not None))
        )

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Texts that end an answer and are no single token."""
        return tuple(text for text in self._stop_texts() if text and self._stop_id(text) is None)

    @property
    def multi_turn(self) -> bool:
        """Whether there is a separator between rounds."""
        return self._record.chat_sep is not None

    def render(self, example: Example) -> list[list[Segment]]:
        """Render a row for training, up to its last answer.

        A format that puts the system message into the newest question gives one sample per answer.

        Raises:
            DataError: the row doesn't fit the format; the message says what to do.
        """
        if example.input_ids is not None:
            return [given_segments(example, self._tokenizer)]
        if example.text is not None:
            bos = self._tokenizer.adds_bos or self._record.prefix[:1] == (("bos_token_id",),)
            return [text_segments(example.text, self._tokenizer, bos=bos)]
        require_text(example.messages, example)
        thinks = self._thinks(example.chat_template_kwargs, example.source)
        example = self._written_out(example)
        system, rounds = self._rounds(up_to_last_answer(example), example.source)
        if self._frame.thinking is not None and not thinks:
            self._refuse_reasoning(rounds, self._frame.thinking, example.source)
        return self._conversation(system, rounds, thinks).samples()

    def render_prompt(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] = (),
        variables: Mapping[str, Any] | None = None,
    ) -> list[Segment]:
        """Render what the model is fed to get the next answer.

        Raises:
            DataError: the messages don't end with a question, or don't fit the format.
        """
        require_text(messages)
        thinks = self._thinks(variables or {}, None)
        asked = bool(messages) and messages[-1].role in ("user", "tool")
        written = self._written_out(Example(messages=tuple(messages), tools=tuple(tools)))
        system, rounds = self._rounds(written.messages, None)
        if not rounds or not asked:
            fail(
                "a prompt ends with a user's or tool's message; add the question",
                rule="no_question",
            )
        # Where results continue the assistant's own text, the prompt ends within its answer.
        opened = rounds[-1].answer is not None
        return self._conversation(system, rounds, thinks).prompt(opened=opened)

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
        """Return the format as a Jinja chat template."""
        bos = (self._tokenizer.bos_token or "",) if self._adds_bos() else ()
        record = self._record
        forms = FieldForms(
            prefix=join((*bos, *self._frame.prefix)),
            system_prefix=join((*bos, *self._frame.system_prefix)) if record.takes_system else None,
            default_system=self._system or "",
            prompt=self._frame.prompts["user", False],
            system_prompt=self._frame.prompts.get(("user", True)),
            tool_prompt=self._frame.prompts["tool", False],
            separator=plain_text(self._bind(record.chat_sep or ())),
            before_user=self._written_between("user"),
            before_tool=self._written_between("tool"),
            last=plain_text((*self._frame.end, *self._frame.tail)),
            answer_prefix=record.answer_prefix,
            single_round=record.chat_sep is None,
            thinking=self._frame.thinking,
            thinks=self._thinks({}, None),
        )
        return forms.to_jinja()

    def _bind(self, elements: Elements) -> Pieces:
        return bind(elements, self._tokenizer, self._name)

    def _bind_frame(self) -> Frame:
        record = self._record
        end, tail = split_ending(self._bind(record.suffix), self._tokenizer, record.stop_words)
        prompts = self._bind_prompts()
        return Frame(
            prefix=self._bind(_without_system(record.prefix)),
            system_prefix=self._bind(record.system_prefix or record.prefix),
            prompts=prompts,
            links={key: self._link(prompt, end) for key, prompt in prompts.items()},
            end=end,
            tail=tail,
            answer_prefix=record.answer_prefix,
            system_in_prompt=record.system_in_prompt,
            bos=bos_segment(self._tokenizer) if self._adds_bos() else None,
            thinking=Thinking.of(record),
            special=self._encoder.special,
        )

    def _bind_prompts(self) -> dict[tuple[Role, bool], Pieces]:
        """Bind the prompts by the question's role and whether the system message goes into it."""
        record = self._record
        tool = record.prompt if record.tool_prompt is None else record.tool_prompt
        prompts: dict[tuple[Role, bool], Pieces] = {
            ("user", False): self._bind(_without_system(record.prompt)),
            ("tool", False): self._bind(_without_system(tool)),
        }
        if record.system_in_prompt:
            prompts["user", True] = self._bind(record.prompt)
        return prompts

    def _link(self, prompt: Pieces, end: Pieces) -> Link:
        follow = join((*self._bind(self._record.chat_sep or ()), *prompt))
        if (rest := without_start(follow, end)) is not None:
            return Link(end, rest)
        for word in self._record.stop_words:
            if (rest := without_start(follow, (word,))) is not None:
                return Link((word,), rest)
        return Link(end, follow)

    def _written_between(self, role: Role) -> str:
        """The text between an answer and the prompt of the next question."""
        link, prompt = self._frame.links[role, False], self._frame.prompts[role, False]
        separator = self._bind(self._record.chat_sep or ())
        inserted = link.prompt == join((*separator, *prompt))
        return plain_text((*link.end, *separator)) if inserted else plain_text(separator)

    def _stop_texts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((plain_text(self._frame.end), *self._record.stop_words)))

    def _stop_id(self, text: str) -> int | None:
        if (
            text == plain_text(self._frame.end)
            and self._frame.end
            and isinstance(last := self._frame.end[-1], Ids)
        ):
            return last.ids[-1]
        pieces = self._encoder.special.split(text)
        return pieces[-1] if pieces and isinstance(pieces[-1], int) else None

    def _adds_bos(self) -> bool:
        return self._record.auto_add_bos and self._tokenizer.adds_bos

    def _rounds(
        self, messages: Sequence[Message], source: Source | None
    ) -> tuple[Content, list[Round]]:
        rest = list(messages)
        system: Content = self._system or ""
        if rest and rest[0].role == "system":
            system = rest.pop(0).content
            if system and not self._record.takes_system:
                fail(
                    f"the row has a system message and template {self._name!r} has no place for it; choose another template_type or leave it out",
                    rule="no_system",
                    source=source,
                )
        rounds = split_rounds(rest, source)
        if any(message.tool_calls for message in rest):
            self._refuse_tools(source)
        if len(rounds) > 1 and self._record.chat_sep is None:
            fail(
                f"the row has {len(rounds)} rounds and template {self._name!r} takes one; choose a chat template or split the row",
                rule="single_round",
                source=source,
            )
        return system, rounds

    def _written_out(self, example: Example) -> Example:
        """Return the row with tools, calls and results as text."""
        uses_tools = example.tools or any(
            message.tool_calls or message.role == "tool" for message in example.messages
        )
        if not uses_tools or self._agent is None:
            if example.tools:
                self._refuse_tools(example.source)
            return example
        with located(example.source):
            return with_tools(example, self._agent, default_system=self._system)

    def _refuse_tools(self, source: Source | None) -> NoReturn:
        fail(
            f"the row has tools or tool calls and template {self._name!r} has no form for them; --template_type jinja renders them where the tokenizer's chat template does",
            rule="tools",
            source=source,
        )

    def _conversation(
        self, system: Content, rounds: Sequence[Round], thinks: bool
    ) -> FieldConversation:
        kind: SegmentKind = "format" if system == self._record.default_system else "content"
        return FieldConversation(self._frame, system, kind, rounds, thinks=thinks)

    def _thinks(self, given: Mapping[str, Any], source: Source | None) -> bool:
        """Whether the model is to reason: as the row or request says, else the run."""
        if unknown := sorted(set(given) - _VARIABLES):
            fail(
                f"template {self._name!r} knows {', '.join(sorted(_VARIABLES))}, not {', '.join(unknown)}; leave it out or choose --template_type jinja",
                rule="template_variable",
                source=source,
                field="chat_template_kwargs",
            )
        value = {**self._variables, **given}.get("enable_thinking")
        thinking = self._frame.thinking
        return value is None or bool(value) or (thinking is not None and thinking.off is None)

    def _refuse_reasoning(
        self, rounds: Sequence[Round], thinking: Thinking, source: Source | None
    ) -> None:
        for item in rounds:
            if item.answer is not None and thinking.split(item.answer.text).reasoning:
                fail(
                    "an answer holds reasoning, and enable_thinking is false; take the reasoning out or leave enable_thinking out",
                    rule="reasoning",
                    source=source,
                )


def _without_system(elements: Elements) -> Elements:
    return tuple(item for item in elements if not (isinstance(item, str) and "{{SYSTEM}}" in item))
