"""A command's form: presets and first fields, all others by searching, and the command to copy or start."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from ft_core.errors import FtError, UsageError
from ft_ui.chat.shown import harmless
from ft_ui.pages.studio.studio import Studio, telling
from ft_ui.studio.forms import Field, Form, command_line
from ft_ui.studio.presets import first_of, presets_of
from ft_ui.studio.run_list import checkpoints_in

ORDERED: dict[str, Any] = {
    "show_progress": "hidden",
    "api_visibility": "private",
    "concurrency_limit": 1,
    "concurrency_id": "form",
}
"""Events of a form one after the other: each sees what the one before it entered."""

MOST_FOUND = 12


class CommandForm:
    """The form of one of several commands; building it puts it on the page.

    Args:
        studio: what the screens share.
        page: the page that is being built.
        commands: those to choose from; at least one of them is installed.
        screen: names the parts of this form on the page.
    """

    def __init__(
        self, studio: Studio, page: gr.Blocks, commands: Sequence[str], screen: str
    ) -> None:
        self.studio, self.words, self.screen = studio, studio.words, screen
        words = studio.words
        self.commands = [name for name in commands if studio.program.has(name)]
        first = self.commands[0]
        self.values = gr.State({})
        self.redraw = gr.State(0)
        self.command = gr.Radio(
            self.commands,
            value=first,
            label=words("form.command"),
            visible=len(self.commands) > 1,
            elem_id=f"{screen}-command",
        )
        self.preset = gr.Radio(
            self._presets(first), label=words("form.preset"), elem_id=f"{screen}-preset"
        )
        self.search = gr.Textbox(
            label=words("form.search"),
            info=words("form.search_info", count=len(self.form(first).fields)),
            elem_id=f"{screen}-search",
        )
        self.fields = gr.Column()
        with gr.Row():
            self.start = gr.Button(
                words("form.start"), variant="primary", elem_id=f"{screen}-start", min_width=120
            )
            self.estimate = gr.Button(
                words("form.dry_run"), elem_id=f"{screen}-dry-run", min_width=120,
                visible=self.form(first).command.dry_run,
            )  # fmt: skip
            self.reset = gr.Button(words("form.reset"), elem_id=f"{screen}-reset", min_width=120)
        self.problems = gr.Markdown("", elem_id=f"{screen}-problems")
        self.line = gr.Textbox(
            label=words("form.line"), lines=2, max_lines=8, interactive=False, buttons=["copy"],
            elem_id=f"{screen}-line",
        )  # fmt: skip
        with gr.Accordion(words("form.yaml"), open=False):
            self.yaml = gr.Textbox(
                label=words("form.yaml"), lines=4, max_lines=20, interactive=False, buttons=["copy"],
                elem_id=f"{screen}-yaml",
            )  # fmt: skip
        self.review = [self.problems, self.line, self.yaml]
        self._connect(page)

    def form(self, command: str) -> Form:
        """Return the form of a command."""
        return self.studio.form(command)

    def _connect(self, page: gr.Blocks) -> None:
        page.load(self._review, [self.command, self.values], self.review, **ORDERED)
        self.command.change(
            self._other_command,
            [self.command],
            [self.values, self.redraw, self.preset, self.search, self.estimate, *self.review],
            **ORDERED,
        )
        self.preset.input(
            self._take_preset,
            [self.command, self.values, self.preset],
            [self.values, self.redraw, *self.review],
            **ORDERED,
        )
        self.reset.click(
            self._other_command,
            [self.command],
            [self.values, self.redraw, self.preset, self.search, self.estimate, *self.review],
            **ORDERED,
        )
        with self.fields:
            gr.render(
                inputs=[self.command, self.values, self.search],
                triggers=[page.load, self.redraw.change, self.search.change],
                show_progress="hidden",
            )(self._draw)

    def on_start(self, outputs: Sequence[Any], then: Callable[[str], list[Any]]) -> None:
        """Start the command when its button is pressed.

        Args:
            outputs: what ``then`` gives values for.
            then: is given the job's name.
        """

        @telling
        def started(command: str, values: dict[str, str]) -> list[Any]:
            return then(self._started(command, values))

        @telling
        def estimated(command: str, values: dict[str, str]) -> list[Any]:
            return then(self._started(command, values, "--dry_run"))

        self.start.click(started, [self.command, self.values], list(outputs), **ORDERED)
        self.estimate.click(estimated, [self.command, self.values], list(outputs), **ORDERED)

    def _started(self, command: str, values: dict[str, str], *more: str) -> str:
        form = self.form(command)
        if found := form.problems(values, self.studio.workplace):
            raise UsageError("\n".join(found))
        return self.studio.jobs.start([*form.words(values), *more]).name

    def fill(self, command: str, values: dict[str, str]) -> list[Any]:
        """Return new values for ``filled``: another command's form with these values."""
        return [command, values, _another(), *self._review(command, values)]

    @property
    def filled(self) -> list[Any]:
        """What ``fill`` gives values for."""
        return [self.command, self.values, self.redraw, *self.review]

    def _presets(self, command: str) -> list[tuple[str, str]]:
        known = frozenset(self.form(command).fields)
        return [(self.words(f"preset.{name}"), name) for name in presets_of(command, known)]

    def _other_command(self, command: str) -> list[Any]:
        form = self.form(command)
        count = len(form.fields)
        return [
            {},
            _another(),
            gr.Radio(
                choices=self._presets(command), value=None, visible=bool(self._presets(command))
            ),
            gr.Textbox(value="", info=self.words("form.search_info", count=count)),
            gr.Button(visible=form.command.dry_run),
            *self._review(command, {}),
        ]

    def _take_preset(self, command: str, values: dict[str, str], preset: str) -> list[Any]:
        presets = presets_of(command, frozenset(self.form(command).fields))
        others = {name for settings in presets.values() for name in settings}
        kept = {name: text for name, text in values.items() if name not in others}
        values = {**kept, **presets[preset]}
        return [values, _another(), *self._review(command, values)]

    def _review(self, command: str, values: dict[str, str]) -> list[Any]:
        form = self.form(command)
        problems = form.problems(values, self.studio.workplace) if values else []
        shown = "\n".join(f"- ⚠ {harmless(item)}" for item in problems)
        try:
            words = form.words(values)
        except FtError as error:
            return [f"- ⚠ {harmless(str(error))}", gr.skip(), gr.skip()]
        return [shown, command_line(self.studio.program.name, words), form.yaml(values)]

    def _draw(self, command: str, values: dict[str, str], search: str) -> None:
        form = self.form(command)
        first = first_of(command, frozenset(form.fields))
        found = [field.name for field in form.found(search or "")][:MOST_FOUND]
        entered = [name for name in form.given(values) if name not in first]
        sections = [
            ("form.found", found),
            ("form.first", [name for name in first if name not in found]),
            ("form.entered", [name for name in entered if name not in found]),
        ]
        for title, names in sections:
            if not names:
                continue
            if title != "form.first":
                gr.Markdown(f"#### {self.words(title)}")
            with gr.Row(equal_height=False):
                for name in names:
                    self._draw_field(form, form.fields[name], values.get(name, ""))

    def _draw_field(self, form: Form, field: Field, text: str) -> None:
        component = self._component(field, text)
        name = field.name

        def entered(command: str, values: dict[str, str], value: Any) -> list[Any]:
            text = "" if value is None else str(value).strip()
            kept = {key: item for key, item in values.items() if key != name}
            values = {**kept, name: text} if text else kept
            problem = form.problem_of(name, text, self.studio.workplace)
            help_text = f"⚠ {harmless(problem)}" if problem else self._help(field)
            return [values, component.__class__(info=help_text), *self._review(command, values)]

        inputs = [self.command, self.values, component]
        outputs = [self.values, component, *self.review]
        events = (
            [component.blur, component.submit]
            if isinstance(component, gr.Textbox)
            else [component.change]
        )
        gr.on(events, entered, inputs, outputs, trigger_mode="always_last", **ORDERED)

    def _component(self, field: Field, text: str) -> Any:
        where = {
            "label": field.name,
            "info": self._help(field),
            "elem_id": f"{self.screen}-field-{field.name}",
            "min_width": 240,
            "key": f"{self.screen}-{field.name}",
            "interactive": True,
        }
        if field.kind in ("choice", "switch"):
            return gr.Dropdown(field.choices, value=text or field.default_text or "none", **where)
        if choices := self._suggested(field):
            return gr.Dropdown(
                choices, value=text or field.default_text or None, allow_custom_value=True, **where
            )
        return gr.Textbox(
            text, placeholder=field.default_text, lines=2 if field.kind == "long" else 1, **where
        )

    def _help(self, field: Field) -> str:
        help_text = self.words.flag_help(field.name, field.flag.help)
        default = field.default_text or self.words("form.none")
        return f"{help_text} ({self.words('form.default')}: {default})"

    def _suggested(self, field: Field) -> list[str]:
        workplace = self.studio.workplace
        if field.name in ("dataset", "val_dataset", "eval_dataset"):
            return [shlex.quote(name) for name in workplace.files()]
        if field.name in ("ckpt_dir", "resume_from_checkpoint"):
            return checkpoints_in(workplace)
        if field.name == "model_type":
            from ft_core.models.registry import MODELS

            return sorted(MODELS)
        return []


_versions = iter(range(1, 2**62))


def _another() -> int:
    """Return a number that a form has not had, so that it is drawn again."""
    return next(_versions)
