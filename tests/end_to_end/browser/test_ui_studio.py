"""``ft web-ui`` in a real browser: from a file of rows to a served model, with restarts in between."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

pytestmark = [pytest.mark.accept, pytest.mark.xdist_group("browser")]


BEYOND = """step => [...document.querySelectorAll("#runs-table td")].some(
    cell => Number(cell.innerText.match(/^(\\d+)[/]\\d+$/)?.[1]) > step)"""
"""Whether the table has a run that is beyond a step."""


MOVING = """() => {
    const step = document.querySelector("#live-figures")?.innerText.match(/(\\d+)[/]60/);
    return Number(step?.[1]) >= 3 && document.querySelector("#live-loss canvas, #live-loss svg") }"""
"""Whether a run of sixty steps has drawn a few of them."""

PATIENCE = 120_000
"""Milliseconds to wait for what a busy machine may take long for."""


def screen(page: Page, name: str) -> None:
    page.locator("#screens").get_by_role("tab", name=name, exact=True).first.click()


def field(page: Page, name: str) -> Locator:
    return page.locator(f"#{name} input, #{name} textarea").first


def enter(page: Page, name: str, text: str) -> None:
    """Type into a field and leave it, as a person does."""
    field(page, name).fill(text)
    field(page, name).press("Enter")
    field(page, name).blur()  # pressing another key would open a list of choices anew
    expect(page.locator("[role=listbox]:visible")).to_have_count(0)


def latest_job(place: Path, command: str) -> dict[str, Any]:
    jobs = sorted((place / ".ft-studio" / "jobs").glob(f"*-{command}-*"))
    data: dict[str, Any] = json.loads((jobs[-1] / "job.json").read_text(encoding="utf-8"))
    return data


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))


def latest_checkpoint(run: Path) -> Path:
    return max(run.glob("checkpoint-*"), key=step_of)


def choose_run(page: Page, run: Path) -> None:
    enter(page, "runs-run", run.name)
    expect(field(page, "runs-run")).to_have_value(re.compile(run.name))


def test_a_run_from_its_rows_to_its_end(
    open_page: Callable[..., Page],
    serve: Any,
    ft: Any,
    place: Path,
    take_picture: Callable[[Page, str], None],
) -> None:
    with serve("web-ui", "--lang", "en", "--port", 0, cwd=place) as served:
        page = open_page(served.url)
        _look_at_rows(page)
        take_picture(page, "data")
        _start(page)
        run = _watch(page, place)
        take_picture(page, "live")
        page.close()
    # The studio is gone, the run goes on.
    assert json.loads((run / "run.json").read_text(encoding="utf-8"))["status"] == "running"
    with serve("web-ui", "--lang", "en", "--port", 0, cwd=place) as served:
        page = open_page(served.url)
        expect(page.locator("#runs-table")).to_contain_text("running")
        _stop_and_resume(page, place, run)
        _started_in_a_terminal(page, ft, place)
        take_picture(page, "runs")
        _clone_and_delete(page, run)


def _look_at_rows(page: Page) -> None:
    screen(page, "Data")
    enter(page, "data-file", "rows.jsonl")
    enter(page, "data-model", "tiny-llama")
    page.locator("#data-preview").click()
    expect(page.locator("#data-tokens")).to_contain_text("trained")
    expect(page.locator("#data-tokens")).to_contain_text("<|im_start|>")
    page.locator("#data-check").click()
    expect(page.locator("#data-report")).to_contain_text("64 rows")


def _start(page: Page) -> None:
    screen(page, "New run")
    enter(page, "new-field-model_id_or_path", "tiny-llama")
    enter(page, "new-field-dataset", "rows.jsonl")
    enter(page, "new-field-lora_rank", "0")
    expect(page.locator("#new-field-lora_rank")).to_contain_text("must be at least 1")
    expect(page.locator("#new-problems")).to_contain_text("--lora_rank 0: must be at least 1")
    page.locator("#new-start").click()
    expect(page.locator(".toast-body").first).to_contain_text("must be at least 1")
    enter(page, "new-field-lora_rank", "4")
    expect(page.locator("#new-problems")).not_to_contain_text("must be")
    enter(page, "new-field-max_steps", "4000")
    enter(page, "new-search", "logging steps")
    enter(page, "new-field-logging_steps", "1")
    expect(field(page, "new-line")).to_have_value(
        re.compile(
            r"^ft sft --model_id_or_path tiny-llama .*--dataset rows.jsonl .*--max_steps 4000"
        )
    )
    expect(field(page, "new-line")).to_have_value(re.compile("--logging_steps 1"))
    page.locator("#new-start").click()
    expect(page.locator("#new-status")).to_contain_text("running")


def _watch(page: Page, place: Path) -> Path:
    screen(page, "Live run")
    expect(page.locator("#live-figures")).to_contain_text("running")
    expect(page.locator("#live-figures")).to_contain_text("loss")
    before = page.locator("#live-figures").inner_text()
    expect(page.locator("#live-figures")).not_to_have_text(before)
    expect(page.locator("#live-loss canvas, #live-loss svg").first).to_be_visible()
    expect(field(page, "live-log")).to_have_value(re.compile("step"))
    return next(place.glob("output/tiny-llama/v0-*"))


def _stop_and_resume(page: Page, place: Path, run: Path) -> None:
    choose_run(page, run)
    page.locator("#runs-stop").click()
    expect(field(page, "runs-note")).to_have_value(re.compile("a checkpoint is saved"))
    expect(page.locator("#runs-table")).to_contain_text("interrupted")
    stopped = latest_checkpoint(run)
    page.locator("#runs-resume").click()
    expect(field(page, "runs-note")).to_have_value(re.compile("Goes on as"))
    assert latest_job(place, "sft")["words"][-2:] == ["--resume_from_checkpoint", str(stopped)]
    expect(page.locator("#runs-table")).to_contain_text("running")
    page.wait_for_function(BEYOND, arg=step_of(stopped))
    page.locator("#runs-stop").click()
    expect(page.locator("#runs-table")).not_to_contain_text("running")
    assert step_of(latest_checkpoint(run)) > step_of(stopped)


def _started_in_a_terminal(page: Page, ft: Any, place: Path) -> None:
    words = ("sft", "--model_id_or_path", "tiny-llama", "--dataset", "rows.jsonl")
    ft(*words, "--max_steps", 2, "--output_dir", "elsewhere", cwd=place)
    expect(page.locator("#runs-table")).to_contain_text("elsewhere/tiny-llama/v0-")
    expect(page.locator("#runs-table")).to_contain_text("2/2")


def _clone_and_delete(page: Page, run: Path) -> None:
    choose_run(page, run)
    page.locator("#runs-clone").click()
    expect(field(page, "new-field-max_steps")).to_have_value("4000")
    expect(field(page, "new-line")).to_have_value(re.compile("--lora_rank 4"))
    screen(page, "Runs")
    page.locator("#runs-delete-part").get_by_role("button", name="Delete").first.click()
    enter(page, "runs-sure", "something else")
    page.locator("#runs-delete").click()
    expect(page.get_by_text("to delete it, write its name")).to_be_visible()
    assert run.is_dir()
    enter(page, "runs-sure", run.name)
    page.locator("#runs-delete").click()
    expect(field(page, "runs-note")).to_have_value(re.compile("is deleted"))
    assert not run.exists()


def test_a_checkpoint_is_talked_to_exported_and_deployed(
    open_page: Callable[..., Page],
    serve: Any,
    place: Path,
    tuned: Path,
    take_picture: Callable[[Page, str], None],
) -> None:
    with serve("web-ui", "--lang", "en", "--port", 0, cwd=place) as served:
        page = open_page(served.url)
        _talk(page, place)
        _export(page, place, tuned)
        _deploy(page, take_picture)


def _talk(page: Page, place: Path) -> None:
    screen(page, "Chat")
    expect(field(page, "talk-checkpoint")).to_have_value(re.compile("checkpoint-200"))
    page.locator("#talk-load").click()
    expect(page.locator("#question textarea")).to_be_visible()
    page.locator("#question textarea").fill("say balo")
    page.locator("#question textarea").press("Enter")
    expect(page.locator("#conversation .bot").first).to_contain_text("d")
    page.get_by_role("tab", name="Side by side").click()
    page.locator("#arena-question textarea").fill("say balo")
    page.locator("#arena-question textarea").press("Enter")
    expect(page.locator("#left .bot").first).to_contain_text("d")
    expect(page.locator("#right .bot")).not_to_have_text(re.compile("^…?$"))
    page.locator("#left-better").click()
    expect(field(page, "arena-note")).to_have_value(re.compile("preferences.jsonl"))
    assert (place / "chat_rows" / "preferences.jsonl").is_file()


def _export(page: Page, place: Path, tuned: Path) -> None:
    screen(page, "Export")
    page.locator("#export-command").get_by_text("merge-lora").click()
    enter(page, "export-field-ckpt_dir", str(tuned.relative_to(place)))
    expect(field(page, "export-line")).to_have_value(re.compile(tuned.name))
    page.locator("#export-start").click()
    expect(page.locator("#export-status")).to_contain_text("done")
    assert (tuned.parent / f"{tuned.name}-merged" / "model.safetensors").is_file()


def _deploy(page: Page, take_picture: Callable[[Page, str], None]) -> None:
    screen(page, "Deploy")
    expect(page.locator("#deploy-status")).to_contain_text("running")  # what the chat loaded
    expect(field(page, "deploy-curl")).to_have_value(re.compile("/v1/chat/completions"))
    url = re.search(r"http://127\.0\.0\.1:\d+", field(page, "deploy-curl").input_value())
    assert url is not None
    assert len(httpx.get(f"{url[0]}/v1/models").json()["data"]) == 2
    page.locator("#deploy-ask-metrics").click()
    expect(field(page, "deploy-metrics")).to_have_value(re.compile(r"\d"))
    take_picture(page, "deploy")
    page.locator("#deploy-stop").click()
    expect(page.locator("#deploy-status")).to_contain_text(re.compile("done|stopped"))
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url[0]}/v1/models")


@pytest.fixture
def lesson(place: Path) -> Path:
    """The tiny model's directory, with rows that teach SmolLM2 a name and a quiz about it."""
    source = Path(__file__).parents[3] / "examples" / "self_cognition" / "rows.jsonl"
    rows = source.read_text(encoding="utf-8").splitlines()
    (place / "finch.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (place / "quiz").mkdir()
    with (place / "quiz" / "names.jsonl").open("w", encoding="utf-8") as file:
        for row in rows[:4]:
            question, answer = (message["content"] for message in json.loads(row)["messages"][:2])
            file.write(json.dumps({"query": question, "response": answer}) + "\n")
    entry = {"name": "names", "pattern": "general_qa", "dataset": "quiz", "max_new_tokens": 12}
    (place / "questions.json").write_text(json.dumps([entry]), encoding="utf-8")
    return place


def test_a_newcomer_tunes_measures_and_serves_smollm2(
    open_page: Callable[..., Page],
    serve: Any,
    ft: Any,
    lesson: Path,
    take_picture: Callable[[Page, str], None],
) -> None:
    with serve("web-ui", "--lang", "en", "--port", 0, cwd=lesson) as served:
        page = open_page(served.url)
        _look_at_the_lesson(page)
        take_picture(page, "data")
        _begin(page, take_picture)
        run = _stop_on_the_way(page, lesson)
    with serve("web-ui", "--lang", "en", "--port", 0, cwd=lesson) as served:
        page = open_page(served.url)
        _go_on_to_the_end(page, run)
        take_picture(page, "live")
        _started_in_a_terminal(page, ft, lesson)
        take_picture(page, "runs")
        _talk_with_both(page, lesson)
        take_picture(page, "chat")
        _measure(page, latest_checkpoint(run).relative_to(lesson))
        take_picture(page, "evaluate")
        _export(page, lesson, latest_checkpoint(run))
        _deploy(page, take_picture)


def _look_at_the_lesson(page: Page) -> None:
    screen(page, "Data")
    enter(page, "data-file", "finch.jsonl")
    enter(page, "data-model", "smollm2-135m-instruct")
    page.locator("#data-check").click()
    expect(page.locator("#data-report")).to_contain_text("64 rows")
    page.locator("#data-preview").click()
    expect(page.locator("#data-tokens")).to_contain_text("Finch")


def _begin(page: Page, take_picture: Callable[[Page, str], None]) -> None:
    screen(page, "New run")
    enter(page, "new-field-model_type", "smollm2-135m-instruct")
    enter(page, "new-field-dataset", "finch.jsonl")
    page.locator("#new-preset").get_by_text("Quick try").click()
    expect(field(page, "new-field-max_steps")).to_have_value("20")
    enter(page, "new-field-learning_rate", "fast")
    expect(page.locator("#new-field-learning_rate")).to_contain_text("⚠ --learning_rate fast")
    take_picture(page, "new-run")
    enter(page, "new-field-learning_rate", "1e-3")
    expect(page.locator("#new-problems")).not_to_contain_text("⚠")
    enter(page, "new-field-max_steps", "60")
    enter(page, "new-field-batch_size", "8")
    enter(page, "new-search", "accumulation")
    enter(page, "new-field-gradient_accumulation_steps", "1")
    expect(field(page, "new-line")).to_have_value(re.compile("--gradient_accumulation_steps 1"))
    page.locator("#new-start").click()
    expect(page.locator("#new-status")).to_contain_text("running")


def _stop_on_the_way(page: Page, place: Path) -> Path:
    screen(page, "Live run")
    page.wait_for_function(MOVING)
    page.locator("#live-stop").click()
    expect(page.locator("#live-figures")).to_contain_text("interrupted")
    (run,) = place.glob("output/smollm2-135m-instruct/v0-*")
    assert 0 < step_of(latest_checkpoint(run)) < 60
    return run


def _go_on_to_the_end(page: Page, run: Path) -> None:
    choose_run(page, run)
    page.locator("#runs-resume").click()
    expect(field(page, "runs-note")).to_have_value(re.compile("Goes on as"))
    screen(page, "Live run")
    expect(page.locator("#live-figures")).to_contain_text("60/60", timeout=2 * PATIENCE)
    expect(page.locator("#live-figures")).to_contain_text("done")
    expect(page.locator("#live-loss canvas, #live-loss svg").first).to_be_visible()
    assert step_of(latest_checkpoint(run)) == 60
    screen(page, "Live run")


def _talk_with_both(page: Page, place: Path) -> None:
    screen(page, "Chat")
    enter(page, "talk-checkpoint", "checkpoint-60")
    page.locator("#talk-load").click()
    page.locator("#question textarea").fill("Who are you?")
    page.locator("#question textarea").press("Enter")
    expect(page.locator("#conversation .bot").first).to_contain_text("Finch")
    page.get_by_role("tab", name="Side by side").click()
    page.locator("#arena-question textarea").fill("What is your name?")
    page.locator("#arena-question textarea").press("Enter")
    expect(page.locator("#left .bot").first).to_contain_text("Finch")
    expect(page.locator("#right .bot").first).to_contain_text("SmolLM")
    page.locator("#left-better").click()
    expect(field(page, "arena-note")).to_have_value(re.compile("preferences.jsonl"))
    assert (place / "chat_rows" / "preferences.jsonl").is_file()


def _measure(page: Page, checkpoint: Path) -> None:
    screen(page, "Evaluate")
    enter(page, "eval-field-ckpt_dir", str(checkpoint))
    enter(page, "eval-search", "custom_eval_config")
    enter(page, "eval-field-custom_eval_config", "questions.json")
    enter(page, "eval-search", "eval_base")
    enter(page, "eval-field-eval_base", "true")
    expect(field(page, "eval-line")).to_have_value(
        re.compile("questions.json.*--eval_base true|--eval_base true.*questions.json")
    )
    page.locator("#eval-start").click()
    expect(page.locator("#eval-status")).to_contain_text("done", timeout=2 * PATIENCE)
    expect(page.locator("#eval-results")).to_contain_text("checkpoint-60")
    expect(page.locator("#eval-results")).to_contain_text("–")
