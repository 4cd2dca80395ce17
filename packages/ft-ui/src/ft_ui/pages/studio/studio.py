"""What the screens of the studio share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, TypeVar

import gradio as gr

from ft_core.errors import FtError
from ft_ui.pages.panel import to_person
from ft_ui.studio.forms import Form, form_of
from ft_ui.studio.jobs import Jobs
from ft_ui.studio.program import Program
from ft_ui.studio.workplace import Workplace
from ft_ui.words import Words

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Studio:
    """What the screens work with.

    Attributes:
        workplace: the directory.
        program: the commands.
        words: of the page.
        timers: of the screens, by name; only that of the screen in view ticks.
    """

    workplace: Workplace
    program: Program
    words: Words
    timers: dict[str, gr.Timer] = field(default_factory=dict)
    forms: dict[str, Form] = field(default_factory=dict)

    @property
    def jobs(self) -> Jobs:
        """What was started here."""
        return Jobs(self.workplace, self.program)

    def form(self, command: str) -> Form:
        """Return the form of a command."""
        if command not in self.forms:
            self.forms[command] = form_of(self.program.command(command))
        return self.forms[command]

    def timer(self, screen: str, seconds: float = 2.0) -> gr.Timer:
        """Put a timer on the page that ticks while the screen is in view."""
        self.timers[screen] = gr.Timer(seconds, active=False)
        return self.timers[screen]


def telling(function: F) -> F:
    """Show what an event's function raises on purpose as a message on the page."""

    @wraps(function)
    def told(*values: Any) -> Any:
        try:
            return function(*values)
        except FtError as error:
            raise to_person(error) from None

    return told  # type: ignore[return-value]


def offered(names: Sequence[Any], chosen: Any) -> gr.Dropdown:
    """Return a list with other names to choose from.

    What is chosen is left alone where it can stay: a person may have chosen something else by the time
    this arrives. ``names`` are values, or pairs of label and value.
    """
    values = [name[1] if isinstance(name, tuple) else name for name in names]
    if chosen is not None and chosen in values:
        return gr.Dropdown(choices=list(names))
    return gr.Dropdown(choices=list(names), value=next(iter(values), None))
