"""``ft app-ui`` in a real browser: streaming, stopping, retrying, editing, votes, rows, hostile text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from ft_core.media.testing import picture as draw

pytestmark = [pytest.mark.accept, pytest.mark.xdist_group("browser")]


def ask(page: Page, text: str) -> None:
    page.locator("#question textarea").fill(text)
    page.locator("#question textarea").press("Enter")


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_a_person_chats_stops_retries_votes_and_saves(
    open_page: Callable[..., Page], serve: Any, place: Path
) -> None:
    words = ("app-ui", "--model_id_or_path", "tiny-llama", "--port", 0)
    # Greedy answers of random weights seldom end by themselves: the limit makes them long.
    words = (*words, "--max_new_tokens", 400, "--do_sample", "false")
    with serve(*words, cwd=place) as served:
        page = open_page(served.url)
        said = page.locator("#conversation")

        ask(page, "hello there")
        expect(said).to_contain_text("hello there")
        expect(page.locator("#question textarea")).to_have_value("")
        expect(said.locator(".bot")).not_to_have_text("")
        page.locator("#stop").click()
        expect(said).to_contain_text(re.compile(r"stopped|cut at the token limit"))

        page.locator("#retry").click()
        expect(page.locator("#answers")).to_be_visible()
        expect(page.locator("#answers input[type=radio]")).to_have_count(2)

        page.locator("#undo").click()
        expect(page.locator("#question textarea")).to_have_value("hello there")
        expect(said).to_contain_text("Nothing has been said yet.")

        page.locator("#save").click()
        expect(page.get_by_text("no complete answer to learn from")).to_be_visible()


def test_answers_of_an_adapter_and_its_base_are_compared_and_voted_on(
    open_page: Callable[..., Page], serve: Any, place: Path, tuned: Path
) -> None:
    words = ("app-ui", "--ckpt_dir", tuned, "--port", 0, "--max_new_tokens", 24)
    with serve(*words, "--do_sample", "false", cwd=place) as served:
        page = open_page(served.url)
        ask(page, "say balo")
        expect(page.locator("#conversation .bot").first).to_contain_text("d")
        page.locator("#save").click()
        expect(page.locator("#note textarea, #note input")).to_have_value(
            re.compile("conversations.jsonl")
        )
        saved = rows(place / "chat_rows" / "conversations.jsonl")
        assert saved[0]["messages"][0]["content"] == "say balo"
        assert saved[0]["messages"][1]["content"].endswith("d")

        page.get_by_role("tab", name="Side by side").click()
        page.locator("#arena-question textarea").fill("say balo")
        page.locator("#arena-question textarea").press("Enter")
        expect(page.locator("#left .bot").first).to_contain_text("d")
        expect(page.locator("#right .bot")).not_to_have_text(re.compile("^…?$"))
        expect(page.locator("#right")).to_contain_text("cut at the token limit")
        page.locator("#left-better").click()
        expect(page.locator("#arena-note textarea, #arena-note input")).to_have_value(
            re.compile("preferences.jsonl")
        )
        (vote,) = rows(place / "chat_rows" / "preferences.jsonl")
        assert vote["messages"][-1]["content"].endswith("d")
        assert vote["rejected"] != vote["messages"][-1:]


def test_a_picture_is_asked_about(
    open_page: Callable[..., Page], serve: Any, tmp_path: Path, names_colours: Path
) -> None:
    colours = {
        colour: draw(tmp_path / f"{colour}.png", colour, (70, 45)) for colour in ("blue", "red")
    }
    words = ("app-ui", "--ckpt_dir", names_colours, "--port", 0, "--do_sample", "false")
    with serve(*words, "--max_new_tokens", 12, cwd=tmp_path) as served:
        page = open_page(served.url)
        said = page.locator("#conversation")
        for number, (colour, file) in enumerate(colours.items()):
            page.locator("#media input[type=file]").set_input_files(file)
            expect(page.locator("#media")).to_contain_text(colour)
            ask(page, "What is it?")
            expect(said.locator(".bot").last).to_contain_text(f"It is {colour}.")
            expect(said.locator("img[src*='/file=']")).to_have_count(1)
            expect(said.get_by_role("button", name="Share")).to_have_count(0)  # sends it to a hub
            expect(page.locator("#media")).not_to_contain_text(colour)  # it went with the question
            if number == 0:
                page.locator("#save").click()
                page.locator("#clear").click()
                expect(said).to_contain_text("Nothing has been said yet.")
        (row,) = rows(tmp_path / "chat_rows" / "conversations.jsonl")
        kept = tmp_path / "chat_rows" / row["images"][0]
        assert kept.read_bytes() == colours["blue"].read_bytes()


def test_what_people_and_models_write_is_never_html(
    open_page: Callable[..., Page], serve: Any, place: Path
) -> None:
    hostile = "<img src=http://example.org/a.png onerror=document.title='owned'> ![x](http://example.org/b.png)"
    words = ("app-ui", "--model_id_or_path", "tiny-llama", "--port", 0, "--max_new_tokens", 2)
    with serve(*words, cwd=place) as served:
        page = open_page(served.url)
        ask(page, hostile)
        expect(page.locator("#conversation")).to_contain_text("<img src=http://example.org/a.png")
        assert page.locator("#conversation .message img").count() == 0
        assert page.title() != "owned"
        assert httpx.get(served.url, headers={"host": "attacker.example"}).status_code == 421
        forged = {"origin": "http://attacker.example"}
        assert httpx.post(f"{served.url}/gradio_api/queue/join", headers=forged).status_code == 403


def test_a_password_is_asked_for_when_one_is_set(
    open_page: Callable[..., Page], serve: Any, place: Path
) -> None:
    words = ("app-ui", "--model_id_or_path", "tiny-llama", "--port", 0, "--auth", "me:secret")
    with serve(*words, cwd=place) as served:
        assert httpx.get(served.url).status_code == 401
        assert httpx.get(served.url, auth=("me", "wrong")).status_code == 401
        assert httpx.get(served.url, auth=("me", "secret")).status_code == 200
