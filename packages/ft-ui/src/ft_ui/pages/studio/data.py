"""The screen of rows: what a model would learn of them, token by token, and what is wrong with them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Any

import gradio as gr
import pandas as pd

from ft_core.errors import UsageError
from ft_ui.chat.shown import harmless
from ft_ui.pages.panel import QUICK
from ft_ui.pages.studio.studio import Studio, telling
from ft_ui.studio.jobs import run_now
from ft_ui.studio.workplace import ROW_FILES

SLOW: dict[str, Any] = {"show_progress": "minimal", "api_visibility": "private"}


class DataScreen:
    """The screen; building it puts it on the page.

    Args:
        studio: what the screens share.
        page: the page that is being built.
    """

    def __init__(self, studio: Studio, page: gr.Blocks) -> None:
        self.studio, words = studio, studio.words
        gr.Markdown(words("data.info"))
        with gr.Row():
            self.file = gr.Dropdown(
                studio.workplace.files(),
                value=None,
                allow_custom_value=True,
                label=words("data.file"),
                info=words("data.file_info"),
                elem_id="data-file",
                scale=2,
            )
            self.model = gr.Textbox(
                "smollm2-135m-instruct",
                label=words("data.model"),
                info=words("data.model_info"),
                elem_id="data-model",
            )
            self.upload = gr.UploadButton(
                words("data.upload"),
                file_types=list(ROW_FILES),
                elem_id="data-upload",
                min_width=120,
            )
        with gr.Row():
            self.preview = gr.Button(
                words("data.preview"), variant="primary", elem_id="data-preview", min_width=120
            )
            self.check = gr.Button(words("data.check"), elem_id="data-check", min_width=120)
        self.tokens = gr.HighlightedText(
            label=words("data.tokens"),
            show_legend=True,
            combine_adjacent=True,
            color_map={words("data.trained"): "green", words("data.special"): "blue"},
            elem_id="data-tokens",
        )
        self.report = gr.Markdown("", elem_id="data-report")
        self.histogram = gr.BarPlot(
            x="up to", y="rows", label=words("data.histogram"), height=220, elem_id="data-histogram"
        )
        page.load(self.files, None, self.file, **QUICK)
        self.upload.upload(telling(self.take), [self.upload], self.file, **QUICK)
        self.preview.click(telling(self.show), [self.file, self.model], self.tokens, **SLOW)
        self.check.click(
            telling(self.look), [self.file, self.model], [self.report, self.histogram], **SLOW
        )

    def files(self) -> gr.Dropdown:
        """Return the files there are now."""
        return gr.Dropdown(choices=self.studio.workplace.files())

    def take(self, uploaded: str) -> gr.Dropdown:
        """Keep an uploaded file."""
        name = self.studio.workplace.take_upload(uploaded)
        return gr.Dropdown(choices=self.studio.workplace.files(), value=name)

    def show(self, file: str | None, model: str) -> list[tuple[str, str | None]]:
        """Return the tokens of a few rows: trained, special or neither."""
        words = [
            "preview",
            *self._model(model),
            "--dataset",
            self._rows(file),
            "--limit",
            "5",
            "--json",
        ]
        printed = run_now(self.studio.program, words, self.studio.workplace.root)
        shown: list[tuple[str, str | None]] = []
        for line in printed.splitlines():
            row = json.loads(line)
            shown += [*self._colours(row["tokens"], row["loss_weights"]), ("\n\n", None)]
        return shown

    def _colours(
        self, tokens: Sequence[str], weights: Sequence[float]
    ) -> list[tuple[str, str | None]]:
        trained, special = self.studio.words("data.trained"), self.studio.words("data.special")
        return [
            (token, trained if weight else special if token.startswith("<|") else None)
            for token, weight in zip(tokens, weights, strict=True)
        ]

    def look(self, file: str | None, model: str) -> list[Any]:
        """Return what is worth a look in the rows, and how long they are."""
        words = ["data", "check", self._rows(file), "--json"]
        if directory := self._tokenizer(model):
            words += ["--tokenizer", directory]
        printed = run_now(self.studio.program, words, self.studio.workplace.root)
        report = json.loads(printed)
        lengths = report.get("tokens") or report["characters"]
        bins = [{"up to": str(item["up_to"]), "rows": item["rows"]} for item in lengths["bins"]]
        frame = pd.DataFrame(bins, columns=["up to", "rows"]).astype({"rows": "int64"})
        return [self._summary(report), frame]

    def _summary(self, report: dict[str, Any]) -> str:
        say = self.studio.words
        lines = [say("data.count", rows=report["rows"])]
        for source in report["sources"]:
            lines.append(
                f"- `{harmless(source['source'])}`: {source['format']} ({harmless(source['reason'])}), "
                f"{source['used']}/{source['read']}"
            )
            lines += [f"  - {count} × {rule}" for rule, count in source["dropped"].items()]
        unit = "tokens" if report.get("tokens") else "characters"
        lengths = report[unit]
        key = "data.tokens_length" if unit == "tokens" else "data.characters"
        sizes = {name: lengths[name] for name in ("least", "middle", "most")}
        lines.append(say(key, **sizes))
        lines += [f"- ⚠ {harmless(_finding(item))}" for item in report["findings"]]
        if not report["findings"]:
            lines.append(say("data.nothing"))
        return "\n".join(lines)

    def _rows(self, file: str | None) -> str:
        if not file:
            raise UsageError(self.studio.words("data.choose"))
        self.studio.workplace.refuse_outside(file)
        return file

    def _model(self, model: str) -> list[str]:
        from ft_core.models.registry import find_by_name

        words = shlex.split(model)
        if len(words) != 1 or words[0].startswith("-"):
            raise UsageError(self.studio.words("data.model_info"))
        self.studio.workplace.refuse_outside(words[0])
        known = find_by_name(words[0]) is not None
        return ["--model_type" if known else "--model_id_or_path", words[0]]

    def _tokenizer(self, model: str) -> str | None:
        flag, name = self._model(model)
        if flag == "--model_id_or_path":
            return name if self.studio.workplace.inside(name).is_dir() else None
        from ft_core.hub import fetch
        from ft_core.models.resolution import resolve_model

        return str(fetch(resolve_model(name, None), weights=False, report=_quiet))


def _finding(item: Any) -> str:
    if not isinstance(item, dict):
        return str(item)
    return ", ".join(
        f"{key}: {value}" for key, value in item.items() if not isinstance(value, list | dict)
    )


def _quiet(text: str) -> None:
    """Progress of fetching a tokenizer shows nowhere on the page."""
