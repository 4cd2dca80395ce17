"""Rows to prompts: what the model is asked, as serving would feed it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ft_align.continuations import Continuations
from ft_align.lengths import Fitted, Lengths
from ft_core.errors import DataError
from ft_core.examples import Example, Message
from ft_core.samples import Tokens
from ft_core.templates.template import Template


@dataclass(frozen=True, slots=True)
class Prompt:
    """What an answer is made to.

    Attributes:
        text: as the chat format writes it.
        ids: its tokens, without those that were cut away.
        question: the conversation as a person reads it.
        answer: the row's own answer; empty where it has none.
        cut: how many tokens were cut off it.
    """

    text: str
    ids: tuple[int, ...]
    question: str
    answer: str
    cut: int = 0

    def row(self) -> dict[str, Any]:
        """Return the columns that reward functions get."""
        return {"prompt": self.text, "question": self.question, "answer": self.answer}


def prompts_of(
    examples: Sequence[Example], template: Template, *, max_prompt_length: int
) -> list[Prompt]:
    """Render and tokenize the prompts of rows.

    A row that ends with an answer is asked what comes before it.

    Args:
        examples: rows, with or without answers.
        template: the chat format.
        max_prompt_length: of longer prompts the end is kept, and the special tokens at the head; -1 sets no limit.

    Raises:
        DataError: a row has nothing to ask, or media; the message names it.
    """
    special = frozenset(token.id for token in template.tokenizer.special_tokens)
    lengths = Lengths(-1, "delete", max_prompt_length)
    rendered = []
    for example in examples:
        _check(example)
        rendered.append(
            template.render_prompt(
                example.prompt, example.tools, example.chat_template_kwargs or None
            )
        )
    found = []
    encoded = template.encode_segments(rendered)
    for example, segments, tokens in zip(examples, rendered, encoded, strict=True):
        ids = tokens.input_ids
        whole = Continuations(len(ids), (Tokens(ids, [0.0] * len(ids)),))
        fitted = lengths.fit(whole, special)
        assert isinstance(fitted, Fitted)  # answers have no limit here
        found.append(
            Prompt(
                "".join(segment.text for segment in segments),
                tuple(fitted.continuations.answers[0].input_ids),
                "\n\n".join(_shown(example.prompt)),
                example.answer or "",
                fitted.cut,
            )
        )
    return found


def ids_by_text(prompts: Iterable[Prompt]) -> Mapping[str, tuple[int, ...]]:
    """Return the tokens of each prompt by its text, by which TRL's trainers know it."""
    return {prompt.text: prompt.ids for prompt in prompts}


def _shown(messages: Iterable[Message]) -> Iterable[str]:
    return (f"{message.role}: {message.text}" for message in messages)


def _check(example: Example) -> None:
    if not example.prompt:
        problem, field = "has nothing to ask: its messages are empty but for an answer", "messages"
    elif example.images or example.videos or example.audios:
        problem, field = "has media, and answers about them can't be rewarded yet", "images"
    else:
        return
    source = example.source
    raise DataError(
        f"{problem}; leave the row out",
        path=None if source is None else source.path,
        line=None if source is None else source.line,
        field=field,
        rule="no_prompt",
    )
