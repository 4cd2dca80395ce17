"""The pages as a server gives them out: behind the guard, without an open API, without files of this machine."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ft_core.engine import Sampling
from ft_core.errors import DataError, UsageError
from ft_core.media.testing import picture
from ft_core.runs import Run
from ft_ui.chat.answering import BASE, Piece
from ft_ui.chat.collected import RowFiles
from ft_ui.chat.messages import Conversation
from ft_ui.studio.program import Program
from ft_ui.studio.workplace import Workplace
from ft_ui.web.access import Password
from ft_ui.web.serving import guarded, import_gradio, take_address
from ft_ui.words import words_in

pytest.importorskip("gradio")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    # Gradio makes an event loop a page and leaves it to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def collected() -> Iterator[None]:
    """Collect what Gradio left here, lest it warns in the middle of another module's test."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        asyncio.set_event_loop(None)
        gc.collect()


class Silent:
    """An answerer of two voices that says how many parts the last message has."""

    voices = ("default-lora", BASE)
    chats = True
    takes_tools = True
    media: frozenset[Any] = frozenset()

    async def answer(self, messages: Any, *_: Any) -> AsyncIterator[Piece]:
        content = messages[-1].content
        yield Piece("a text" if isinstance(content, str) else f"{len(content)} parts", "stop", 1)


class Seeing(Silent):
    """One that takes images."""

    media = frozenset({"image"})


def studio(root: Path, language: str = "en") -> Any:
    from ft_ui.pages.studio.page import studio_page
    from ft_ui.pages.studio.studio import Studio

    program = Program("ft-ui", (sys.executable, "-m", "ft_ui"), {})
    return studio_page(Studio(Workplace(root.resolve()), program, words_in(language)))


def chat(root: Path, answerer: type[Silent] = Silent) -> Any:
    from ft_ui.pages.chat_page import chat_page
    from ft_ui.pages.panel import Panel

    silent: Any = answerer()
    panel = Panel(lambda: silent, Sampling(), RowFiles(root / "rows"), words_in("en"))
    return chat_page(panel, "tiny")


@pytest.fixture(params=[studio, chat], ids=["studio", "chat"])
def page(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return request.param(tmp_path)


@pytest.fixture
def client(page: Any) -> Iterator[Any]:
    from starlette.testclient import TestClient

    address = take_address("127.0.0.1", 0)
    with TestClient(guarded(page, address), base_url=address.url) as opened:  # type: ignore[arg-type]
        yield opened
    address.listening.close()


def test_no_event_of_a_page_is_an_open_endpoint(page: Any) -> None:
    described = page.get_api_info()
    assert described["named_endpoints"] == {} and described["unnamed_endpoints"] == {}


def test_a_page_comes_with_its_headers_and_asks_no_other_host(client: Any) -> None:
    answer = client.get("/")
    assert answer.status_code == 200
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    for place in ("fonts.googleapis", "cdn.", "//huggingface.co/"):
        assert (
            f'src="https://{place}' not in answer.text
            and f'href="https://{place}' not in answer.text
        )


@pytest.mark.parametrize("name", ["/etc/passwd", "run.json", "http://127.0.0.1:1/x"])
def test_files_of_this_machine_are_not_given_out(client: Any, name: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}", encoding="utf-8")
    path = str(tmp_path / name) if name == "run.json" else name
    assert client.get(f"/gradio_api/file={path}").status_code in (403, 404)


def test_ft_ui_alone_shows_the_runs_of_a_directory(tmp_path: Path) -> None:
    from ft_ui.pages.studio.runs import RunsScreen

    directory = tmp_path / "output" / "tiny" / "v0-1"
    arguments = {"model_type": "tiny", "dataset": ["rows.jsonl"]}
    run = Run.open(directory, command="sft", argv=["sft"], arguments=arguments)
    line = '{"loss": 1.25, "global_step/max_steps": "3/4"}\n'
    (directory / "logging.jsonl").write_text(line, encoding="utf-8")
    run.update(status="done")
    screen = next(
        block.fn.__self__
        for block in studio(tmp_path).fns.values()
        if isinstance(getattr(block.fn, "__self__", None), RunsScreen)
    )
    _, rows, *_ = screen.refresh("", None, None)
    assert rows[0][:8] == [
        "done",
        "output/tiny/v0-1",
        "sft",
        "tiny",
        "rows.jsonl",
        "3/4",
        "1.25",
        "",
    ]
    drawn = screen.draw(["output/tiny/v0-1"], "loss", 0.0)
    assert drawn.to_dict("records") == [{"step": 3, "value": 1.25, "run": "output/tiny/v0-1"}]


def test_a_picture_without_points_yet_has_axes_of_numbers() -> None:
    from ft_ui.pages.studio.curves import curve_rows, curves
    from ft_ui.studio.metrics import Progress

    for frame in (curve_rows([], "run"), curves(Progress((), {}), "loss", 0.0)):
        assert [str(kind) for kind in frame.dtypes[:2]] == ["int64", "float64"]


def test_the_studio_speaks_chinese(tmp_path: Path) -> None:
    labels = {
        component["props"].get("label") for component in studio(tmp_path, "zh").config["components"]
    }
    assert {"运行列表", "选中的运行", "实时运行"} <= labels


def test_a_taken_port_is_refused_before_anything_slow() -> None:
    first = take_address("127.0.0.1", 0)
    try:
        with pytest.raises(UsageError, match=f"--port {first.port}"):
            take_address("127.0.0.1", first.port)
    finally:
        first.listening.close()
    assert first.url == f"http://127.0.0.1:{first.port}"


def test_a_page_with_a_password_wants_it_for_every_file(tmp_path: Path) -> None:
    from starlette.testclient import TestClient

    address = take_address("127.0.0.1", 0)
    guard: Any = guarded(chat(tmp_path), address, password=Password("me", "secret"))
    with TestClient(guard, base_url=address.url) as client:
        for path in ("/", "/config", "/theme.css", "/gradio_api/info"):
            assert client.get(path).status_code == 401
            assert client.get(path, auth=("me", "secret")).status_code == 200
    address.listening.close()


def test_tools_of_the_page_are_checked_where_they_are_written() -> None:
    from ft_ui.pages.chat import tools_of

    assert tools_of("  ") == ()
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    assert tools_of(json.dumps([tool])) == (tool,)
    for wrong in ("[", "{}", '[{"type": "function"}]'):
        with pytest.raises((UsageError, DataError)):
            tools_of(wrong)


@contextmanager
def opened(root: Path, *, behind_guard: bool = True) -> Iterator[Any]:
    """Yield a client of a chat page whose model takes images."""
    from starlette.testclient import TestClient

    import_gradio()
    address = take_address("127.0.0.1", 0)
    guard: Any = guarded(chat(root, Seeing), address)
    with TestClient(guard if behind_guard else guard.app, base_url=address.url) as client:
        yield client
    address.listening.close()


@pytest.fixture
def seeing(tmp_path: Path) -> Iterator[Any]:
    with opened(tmp_path) as client:
        yield client


def sent(client: Any, field: str, **values: Any) -> tuple[int, str]:
    """Press Enter in a field with values by ``elem_id``; return the status, and all that was said."""
    config = client.get("/config").json()
    parts = {item["id"]: item for item in config["components"]}
    target = next(i for i, item in parts.items() if item["props"].get("elem_id") == field)
    event = next(d for d in config["dependencies"] if [target, "submit"] in d["targets"])
    data = [
        values.get(str(parts[i]["props"].get("elem_id")).replace("-", "_"), part.get("value"))
        for i in event["inputs"]
        for part in [parts[i]["props"]]
    ]
    body = {"data": data, "fn_index": event["id"], "session_hash": "s", "trigger_id": target}
    joined = client.post("/gradio_api/queue/join", json=body)
    if joined.status_code != 200:
        return joined.status_code, joined.text
    return 200, client.get("/gradio_api/queue/data", params={"session_hash": "s"}).text


def file_of(path: str | Path) -> dict[str, Any]:
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}}


def upload(client: Any, file: Path) -> str:
    sent = {"files": (file.name, file.read_bytes(), "image/png")}
    return str(client.post("/gradio_api/upload", files=sent).json()[0])


@pytest.mark.parametrize("tab", ["", "arena-"])
def test_an_uploaded_picture_goes_with_the_question(seeing: Any, tmp_path: Path, tab: str) -> None:
    place = upload(seeing, picture(tmp_path / "red.png"))
    field = f"{tab.replace('-', '_')}media"
    question = {f"{tab.replace('-', '_')}question": "What is it?"}
    status, said = sent(seeing, f"{tab}question", **question, **{field: [file_of(place)]})
    assert status == 200 and "2 parts" in said and "red.png" in said
    shown = seeing.get(f"/gradio_api/file={place}")
    assert shown.content == (tmp_path / "red.png").read_bytes()


@pytest.mark.parametrize("behind_guard", [True, False], ids=["guard", "gradio"])
@pytest.mark.parametrize("field", ["media", "question"])
def test_no_request_has_another_file_read(tmp_path: Path, field: str, behind_guard: bool) -> None:
    secret = file_of(picture(tmp_path / "secret.png"))
    values = {"question": "What is it?", field: [secret] if field == "media" else secret}
    with opened(tmp_path, behind_guard=behind_guard) as client:
        status, said = sent(client, "question", **values)
    assert status == (403 if behind_guard else 200)
    assert "uploaded" in said or '"success":false' in said
    assert "parts" not in said and "a text" not in said


def test_a_file_the_model_does_not_take_is_explained(seeing: Any, tmp_path: Path) -> None:
    file = tmp_path / "tone.wav"
    file.write_bytes(b"RIFF")
    _, said = sent(seeing, "question", question="?", media=[file_of(upload(seeing, file))])
    assert "parts" not in said and '"success":false' in said


@pytest.mark.parametrize(("answerer", "seen"), [(Silent, False), (Seeing, True)])
def test_the_field_for_files_is_seen_where_the_model_takes_some(
    tmp_path: Path, answerer: type[Silent], seen: bool
) -> None:
    parts = {c["props"].get("elem_id"): c for c in chat(tmp_path, answerer).config["components"]}
    for field in ("media", "arena-media"):
        assert parts[field]["props"]["visible"] is seen


def test_only_uploaded_files_are_attached(tmp_path: Path) -> None:
    from ft_ui.pages.panel import Panel
    from ft_ui.web.uploads import upload_folder

    seeing: Any = Seeing()
    panel = Panel(lambda: seeing, Sampling(), RowFiles(tmp_path), words_in("en"))
    here = str(upload_folder() / "0a" / "a.webp")
    assert [(item.kind, item.path) for item in panel.attached([here])] == [("image", here)]
    assert panel.attached(None) == ()
    with pytest.raises(UsageError, match=r"secret\.png wasn't uploaded here"):
        panel.attached([str(tmp_path / "secret.png")])


async def test_side_by_side_gives_a_question_back_that_nobody_could_answer(tmp_path: Path) -> None:
    import gradio as gr

    from ft_ui.pages.arena import ArenaTab

    class Failing(Seeing):
        async def answer(self, messages: Any, *_: Any) -> AsyncIterator[Piece]:
            raise DataError("red.png: is no image")
            yield Piece("")

    tab = next(
        block.fn.__self__
        for block in chat(tmp_path, Failing).fns.values()
        if isinstance(getattr(block.fn, "__self__", None), ArenaTab)
    )
    said = Conversation().ask("Hello").append("Hi").finish()
    views = []
    request: Any = SimpleNamespace(session_hash="s")
    with pytest.raises(gr.Error, match="is no image"):
        async for view in tab.ask(said, "And?", None, *Silent.voices, 0, 1, 50, 8, 1, "", request):
            views.append(view)
    conversation, left, right, question, *_ = views[-1]
    assert conversation == said and question == "And?" and left == right
    assert conversation.ask("And now?").streaming  # the next one can be asked
