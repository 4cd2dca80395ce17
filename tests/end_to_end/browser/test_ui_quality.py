"""Every screen at two widths: nothing sticks out, everything has a name, the keyboard reaches it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from ft_core.runs import Run
from ft_ui.words import words_in

pytestmark = [pytest.mark.accept, pytest.mark.xdist_group("browser")]

SCREENS = ("runs", "new", "live", "data", "talk", "eval", "export", "deploy")
NAMELESS = """[...document.querySelectorAll("button, input, textarea, select")].filter(part =>
    part.offsetParent && part.type !== "file" && !part.innerText?.trim() && !part.title
    && !part.getAttribute("aria-label") && !part.getAttribute("aria-labelledby")
    && ![...(part.labels ?? [])].some(label => label.innerText.trim())
).map(part => part.outerHTML.slice(0, 200))"""
"""What a person who can't see the page would not know the purpose of."""
ALONE = """
import importlib.abc, sys
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in %r:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Missing())
from ft_ui.console import main
sys.exit(main())
"""
OTHERS = ("ft_cli", "ft_data", "ft_train", "ft_align", "ft_quant", "ft_serve", "ft_eval", "torch")


def show(page: Page, screen: str, language: str = "en") -> None:
    """Go to a screen; where its tab has no room it is in the menu of the others."""
    tab = page.locator(f"#screen-{screen}-button:visible")
    if not tab.count():
        page.locator("#screens .overflow-menu > button").first.click()
        name = words_in(language)(f"{screen}.tab")
        tab = page.locator("#screens .overflow-dropdown button").filter(has_text=name)
    tab.first.click()
    expect(page.locator(f"#screen-{screen}")).to_be_visible()


def check(page: Page, width: int) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(NAMELESS) == []


@pytest.mark.parametrize(("width", "dark"), [(1280, True), (390, False)])
@pytest.mark.parametrize("language", ["zh", "en"])
def test_screens_of_the_studio_fit_and_name_their_parts(
    open_page: Callable[..., Page], serve: Any, place: Path, width: int, dark: bool, language: str
) -> None:
    with serve("web-ui", "--lang", language, "--port", 0, cwd=place) as served:
        page = open_page(served.url, width, dark=dark)
        expect(page.locator("#runs-table")).to_be_visible()
        name = {"zh": "ft 工作台", "en": "ft studio"}[language]
        expect(page.get_by_role("heading", name=name)).to_be_visible()
        for screen in SCREENS:
            show(page, screen, language)
            check(page, width)
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        light = sum(map(int, re.findall(r"\d+", background)[:3])) > 3 * 128
        assert light is not dark


@pytest.mark.parametrize("width", [1280, 390])
def test_the_chat_page_fits_and_is_used_with_the_keyboard(
    open_page: Callable[..., Page], serve: Any, place: Path, width: int
) -> None:
    words = ("app-ui", "--model_id_or_path", "tiny-llama", "--port", 0, "--max_new_tokens", 4)
    with serve(*words, "--do_sample", "false", cwd=place) as served:
        page = open_page(served.url, width)
        expect(page.locator("#question textarea")).to_be_focused()
        page.keyboard.type("hello")
        page.keyboard.press("Enter")
        expect(page.locator("#conversation")).to_contain_text("hello")
        expect(page.locator("#conversation .bot").first).not_to_be_empty()
        for _ in range(12):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id") == "undo":
                break
        page.keyboard.press("Enter")
        expect(page.locator("#question textarea")).to_have_value("hello")
        check(page, width)


def test_ft_ui_without_the_other_packages_shows_the_runs_of_a_directory(
    open_page: Callable[..., Page], serve: Any, place: Path
) -> None:
    directory = place / "output" / "tiny" / "v0-1"
    arguments = {"model_type": "tiny", "dataset": ["rows.jsonl"]}
    run = Run.open(directory, command="sft", argv=["sft"], arguments=arguments)
    line = '{"loss": 1.25, "global_step/max_steps": "3/4"}\n'
    (directory / "logging.jsonl").write_text(line, encoding="utf-8")
    run.update(status="done")
    words = ("studio", "--work_dir", place, "--lang", "en", "--port", 0)
    with serve(*words, cwd=place, program=("-c", ALONE % (OTHERS,))) as served:
        page = open_page(served.url)
        expect(page.locator("#runs-table")).to_contain_text("output/tiny/v0-1")
        expect(page.locator("#runs-table")).to_contain_text("3/4")
        expect(page.locator("#screen-new-button")).to_have_count(0)
        show(page, "live")
        expect(page.locator("#live-figures")).to_contain_text("1.25")
