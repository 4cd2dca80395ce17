"""Images and audios in requests: answered as infer answers them, refused with 400 where they can't be used."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from openai import BadRequestError, OpenAI
from PIL import Image

from ft_core.engine import Sampling
from ft_core.examples import Example, Message
from ft_core.media import MediaProcessor, MediaTemplate, encode_question
from ft_core.media.testing import picture, tiny_multimodal, tone
from ft_core.models.loading import load_model
from ft_core.templates import JinjaTemplate
from ft_core.tokenizer import Tokenizer
from ft_serve import PtEngine
from ft_serve.openai.app import make_app
from ft_serve.openai.front import Front
from ft_serve.openai.media import MediaRules, MediaServingArguments
from ft_serve.openai.served import Served
from ft_serve.openai.server import Address, Server


def data_uri(path: Path, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def image_part(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


class Seeing:
    """A tiny model of a family behind a server, and what its own template makes of a conversation."""

    def __init__(self, directory: Path, family: str, rules: MediaRules) -> None:
        tiny_multimodal(directory, family)
        self.processor = MediaProcessor(directory, rules.limits)
        tokenizer = Tokenizer.from_directory(directory)
        self.template = MediaTemplate(JinjaTemplate(tokenizer), self.processor)
        self.model = load_model(directory, dtype=torch.float32)
        engine = PtEngine(self.model, tokenizer, stop_token_ids=[], media=self.processor)
        self.served = Served(engine, self.template, "tiny", Sampling(max_new_tokens=6), media=rules)

    def expected(self, *parts: dict[str, Any]) -> str:
        """What transformers' own greedy search says."""
        example = Example(messages=(Message("user", tuple(parts)),))
        question = encode_question(self.template, example)
        ids = torch.tensor([list(question.input_ids)])
        features = self.processor.process(question.media).features
        types = self.processor.token_types([question.input_ids])
        output = self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=6,
            do_sample=False,
            eos_token_id=None,
            **features,
            **types,
        )
        tokenizer = self.template.tokenizer
        return tokenizer.decode(
            [int(t) for t in output[0, ids.shape[1] :]], skip_special_tokens=True
        )


@pytest.fixture(scope="module")
def sees(tmp_path_factory: pytest.TempPathFactory) -> Seeing:
    rules = MediaServingArguments(max_media=2, max_media_pixels=10_000).rules()
    return Seeing(tmp_path_factory.mktemp("sees"), "qwen2_vl", rules)


@contextmanager
def client_of(model: Seeing) -> Iterator[OpenAI]:
    front = Front()
    front.serve(model.served)
    address = Address(port=0)
    listening = address.listen()
    server = Server(make_app(front), front, address, listening, lambda _text: None)
    server.start()
    try:
        with OpenAI(base_url=address.url(listening), api_key="none", max_retries=0) as client:
            yield client
    finally:
        server.stop()


@pytest.fixture(scope="module")
def client(sees: Seeing) -> Iterator[OpenAI]:
    with client_of(sees) as client:
        yield client


def ask(client: OpenAI, *content: Any) -> str:
    answer = client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": list(content)}], temperature=0
    )
    return str(answer.choices[0].message.content)


def test_an_image_is_answered_as_transformers_answers_it(
    client: OpenAI, sees: Seeing, tmp_path: Path
) -> None:
    for colour in ("red", "blue"):
        url = data_uri(picture(tmp_path / f"{colour}.png", colour))
        answer = ask(client, image_part(url), {"type": "text", "text": "What is it?"})
        text = {"type": "text", "text": "What is it?"}
        assert answer == sees.expected({"type": "image", "image": url}, text)


def test_marks_in_texts_of_requests_are_texts(client: OpenAI, sees: Seeing, tmp_path: Path) -> None:
    url = data_uri(picture(tmp_path / "red.png"))
    asked = "Is <image> a tag, and <|image_pad|>?"
    answer = ask(client, image_part(url), {"type": "text", "text": asked})
    parts = {"type": "image", "image": url}, {"type": "text", "text": asked, "literal": True}
    assert answer == sees.expected(*parts)
    assert ask(client, {"type": "text", "text": asked}) is not None


def png(size: tuple[int, int], **options: Any) -> str:
    stream = io.BytesIO()
    Image.new("RGB", size).save(stream, options.pop("format", "PNG"), **options)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (image_part("https://example.org/a.png"), "fetches no addresses"),
        (image_part("http://127.0.0.1/a.png"), "fetches no addresses"),
        (image_part("/etc/passwd"), "files are not read"),
        (image_part("file:///etc/passwd"), "files are not read"),
        (image_part("../../etc/passwd"), "files are not read"),
        (image_part("data:image/png;base64,AAAA"), "is no image"),
        (image_part("data:image/png;base64,@@@@"), "is no base64"),
        (image_part("data:image/png;base64,"), "is empty"),
        (image_part(png((1, 1))), "1 x 1 pixels"),
        (image_part(png((200, 100))), "200 x 100 pixels, more than 10,000"),
        (image_part(png((9, 9), format="GIF", save_all=True,
                        append_images=[Image.new("RGB", (9, 9), "red")])), "2 pictures"),
        ({"type": "image_url"}, "brings no image"),
        ({"type": "file", "file": {"file_id": "x"}}, "is not taken"),
        ({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}, "takes text"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_a_bad_request(
    client: OpenAI, part: dict[str, Any], words: str
) -> None:
    with pytest.raises(BadRequestError, match=words) as caught:
        ask(client, part, {"type": "text", "text": "What is it?"})
    assert caught.value.param == "messages"
    assert "0x" not in str(caught.value)
    assert "/tmp" not in str(caught.value)


def test_a_request_brings_so_many_media_and_no_more(client: OpenAI, tmp_path: Path) -> None:
    part = image_part(data_uri(picture(tmp_path / "a.png")))
    assert ask(client, part, part, {"type": "text", "text": "Alike?"}) is not None
    with pytest.raises(BadRequestError, match="brings 3 images, videos and audios; at most 2"):
        ask(client, part, part, part)


def test_only_named_hosts_are_asked(sees: Seeing) -> None:
    rules = MediaServingArguments(media_hosts=["example.org"]).rules()
    assert rules.limits.remote is not None
    assert rules.limits.remote.hosts == ("example.org",)
    part = rules.part(image_part("https://example.org/a.png"), "messages[0].content[0]")
    assert part == {"type": "image", "image": "https://example.org/a.png"}
    assert not rules.limits.files


def test_an_audio_is_answered_as_transformers_answers_it(tmp_path: Path) -> None:
    model = Seeing(tmp_path / "model", "qwen2_audio", MediaServingArguments().rules())
    wave = base64.b64encode(tone(tmp_path / "a.wav", seconds=0.6).read_bytes()).decode()
    text = {"type": "text", "text": "What is it?"}
    with client_of(model) as client:
        part = {"type": "input_audio", "input_audio": {"data": wave, "format": "wav"}}
        answer = ask(client, part, text)
    expected = model.expected({"type": "audio", "audio": f"data:audio/wav;base64,{wave}"}, text)
    assert answer == expected
