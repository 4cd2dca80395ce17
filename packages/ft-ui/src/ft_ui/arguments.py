"""Arguments of the commands of the interface."""

from __future__ import annotations

from typing import ClassVar, Literal

from ft_core.command import ArgumentGroup, flag
from ft_core.errors import UsageError


class ExportArguments(ArgumentGroup):
    """Rows from saved conversations."""

    title: ClassVar[str] = "export"

    conversations: list[str] = flag([])
    """Files of saved conversations."""

    output: str | None = None
    """The .jsonl file to write; an existing one is replaced."""

    rows: Literal["conversation", "preference"] = "conversation"
    """conversation writes each one as a row to fine-tune on, preference a row for each vote."""


class ServingArguments(ArgumentGroup):
    """Where a page is served, and to whom."""

    title: ClassVar[str] = "page"

    host: str = "127.0.0.1"
    """Address to serve on; the default is reached from this machine only, any other one needs a password."""

    share: bool = False
    """Also give the page an address on the internet by Gradio's tunnel, which is downloaded; it needs a password."""

    auth: str | None = flag(None, env="FT_UI_AUTH", secret=True)
    """user:password to sign in with. Where one is needed and none is given, it is generated and printed."""


class ChatPageArguments(ServingArguments):
    """The chat page."""

    title: ClassVar[str] = "page"

    port: int = flag(7860, ge=0, le=65535)
    """Port to serve on; 0 takes a free one."""

    rows_dir: str = "chat_rows"
    """Directory that saved conversations and votes are added to, as rows to train on."""


class StudioArguments(ServingArguments):
    """The studio."""

    title: ClassVar[str] = "page"

    port: int | None = flag(None, ge=0, le=65535)
    """Port to serve on; none takes the first free one from 7860 on."""

    lang: Literal["zh", "en"] = "zh"
    """Language of the page."""

    work_dir: str = "."
    """Directory whose runs are shown and whose files the page may use; nothing outside of it is read or written."""

    def check(self, given: frozenset[str]) -> None:
        """Refuse a directory that isn't there."""
        from pathlib import Path

        if not Path(self.work_dir).expanduser().is_dir():
            raise UsageError(
                f"--work_dir {self.work_dir}: no such directory; give the one your files and runs are in"
            )
