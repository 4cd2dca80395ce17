"""Which model and template a command works with, and how the weights are loaded."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any, ClassVar, Literal

from ft_core.command.group import ArgumentGroup, flag


class ModelArguments(ArgumentGroup):
    """The model: a registered name, a hub id or a directory."""

    title: ClassVar[str] = "model"

    model_type: str | None = None
    """Registered name or id of the model (`ft list models`); gives its template and LoRA targets."""

    model_id_or_path: str | None = flag(None, aliases=("model",))
    """Hub id or local directory of the model; with model_type it replaces the registered id."""

    model_revision: str | None = None
    """Revision on the hub; none takes the registered one. Has no effect on a local directory."""

    check_model_is_latest: bool = flag(True, aliases=("check_model",))
    """Ask the hub for a newer version than the cached one; without a network the cached one is used and that is said."""

    local_repo_path: str | None = None
    """Clone of the git repository whose code loads the model, for the few that need one; they name it."""

    trust_remote_code: bool = False
    """Run the Python code that a model's repository brings, with all your rights; read it first."""

    dtype: Literal["AUTO", "bf16", "fp16", "fp32"] = flag("AUTO", aliases=("torch_dtype",))
    """Data type of the loaded weights. AUTO takes the registered one, else what this machine computes fast."""

    use_flash_attn: bool | None = None
    """Use flash attention; none uses it where it is installed and the model supports it."""

    seed: int = 42
    """Seed of all random choices."""

    custom_register_path: str | None = None
    """A .py file that registers models, templates or datasets when it is imported."""


class VocabularyArguments(ArgumentGroup):
    """Tokens that the model doesn't have yet."""

    title: ClassVar[str] = "model"

    new_special_tokens: list[str] = flag([])
    """Tokens to add and to train, such as <answer> </answer>, or a .txt file with one a line; they are matched as a whole also in rows' texts."""

    def tokens(self) -> tuple[str, ...]:
        """Return the texts of the tokens, those of files too.

        Raises:
            UsageError: a file can't be read or is empty.
        """
        from ft_core.errors import UsageError

        found: list[str] = []
        for value in self.new_special_tokens:
            if not value.endswith(".txt"):
                found.append(value)
                continue
            try:
                lines = Path(value).expanduser().read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(f"--new_special_tokens {value}: can't be read: {error}") from error
            tokens = [line.strip() for line in lines if line.strip()]
            if not tokens:
                raise UsageError(f"--new_special_tokens {value}: the file is empty")
            found += tokens
        return tuple(dict.fromkeys(found))


class TemplateArguments(ArgumentGroup):
    """The chat format and what is put into it."""

    title: ClassVar[str] = "template"

    template_type: str = flag("AUTO", aliases=("template",))
    """Chat format (`ft list templates`); AUTO takes the model's, jinja the tokenizer's own."""

    system: str | None = None
    """System message of rows that have none of their own; none takes the template's, '' uses none."""

    tools_prompt: Literal[
        "react_en", "react_zh", "toolbench", "hermes", "llama3", "mistral", "glm4", "deepseek"
    ] = "react_en"
    """How tools and calls are written out, in templates that have no form of their own for them."""

    enable_thinking: bool | None = None
    """Have models that can reason do so, or not; none leaves it to the chat format."""

    chat_template_kwargs: dict[str, Any] | None = None
    """Further variables of the chat template; a row's own chat_template_kwargs go before them."""

    template_date: str | None = None
    """Date (YYYY-MM-DD) in formats that show one; none takes today's. A checkpoint keeps its own."""

    max_length: int = 2048
    """Longest row in tokens; -1 sets no limit."""

    truncation_strategy: Literal["delete", "truncation_left", "right", "split"] = "delete"
    """What happens to longer rows: they are dropped, lose their first or (right) last tokens, or (split, texts only) become several. Not given, pt splits."""

    @property
    def variables(self) -> dict[str, Any]:
        """What the chat template is told."""
        given = {} if self.enable_thinking is None else {"enable_thinking": self.enable_thinking}
        return {**given, **(self.chat_template_kwargs or {})}

    @property
    def date(self) -> datetime.date | None:
        """The date that was asked for."""
        return (
            None if self.template_date is None else datetime.date.fromisoformat(self.template_date)
        )

    def check(self, given: frozenset[str]) -> None:
        """Refuse a max_length that no row can satisfy, a date that is none, and contradictions."""
        from ft_core.errors import UsageError

        try:
            _ = self.date
        except ValueError as error:
            raise UsageError(
                f"--template_date {self.template_date}: {error}; write it as 2026-03-31"
            ) from error
        if self.enable_thinking is not None and "enable_thinking" in (
            self.chat_template_kwargs or {}
        ):
            raise UsageError(
                "--enable_thinking and --chat_template_kwargs both say enable_thinking; give one of them"
            )
        if self.max_length != -1 and self.max_length < 2:
            raise UsageError(
                f"--max_length {self.max_length}: a row needs at least 2 tokens; give a larger number, or -1 for no limit"
            )
