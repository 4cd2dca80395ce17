"""Images for a real vLLM: token ids and files go there, and the tokens of transformers come back."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ft_core.engine import Capability, GenerationRequest, Sampling
from ft_core.errors import ModelError, UsageError
from ft_core.examples import Example, Message
from ft_core.media import MediaProcessor, MediaTemplate, encode_question
from ft_core.media.testing import picture, tiny_multimodal
from ft_core.models.loading import load_model
from ft_core.samples import Tokens
from ft_core.templates import JinjaTemplate
from ft_core.tokenizer import Tokenizer
from ft_serve.arguments import VllmArguments
from ft_serve.engines.child.process import ChildServer
from ft_serve.engines.child.vllm import Model, vllm_launch
from ft_serve.engines.remote.completions import Vllm
from ft_serve.engines.remote.engine import RemoteEngine, Served
from ft_serve.engines.remote.media import VllmMedia

PYTHON = os.environ.get("FT_VLLM_PYTHON")

pytestmark = [
    pytest.mark.accept,
    pytest.mark.skipif(PYTHON is None, reason="needs vLLM: make test-vllm"),
]

KEY = "secret"
NEW = 8
# The smallest heads that vLLM's attention has.
TEXT = {
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
}


def with_torchvision(site: Path) -> dict[str, str]:
    """Let vLLM find torchvision, which its models that see import, where it lies apart from a torch for CPUs."""
    apart = Path(sys.prefix) / "torchvision"
    if not apart.is_dir():
        return {}
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import torch\n"
        "library = torch.library.Library('torchvision', 'DEF')\n"
        "for name in ('nms', 'qnms'):\n"
        "    library.define(name + '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')\n",
        encoding="utf-8",
    )
    return {"PYTHONPATH": f"{site}{os.pathsep}{apart}"}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tiny_multimodal(tmp_path_factory.mktemp("qwen2_vl") / "model", "qwen2_vl", text=TEXT)
    # vLLM wants the part for videos, which ft's tiny models have where torchvision is installed.
    video = {"video_processor_type": "Qwen2VLVideoProcessor", "patch_size": 14}
    (made / "video_preprocessor_config.json").write_text(json.dumps(video), encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def template(directory: Path) -> MediaTemplate:
    processor = MediaProcessor(directory)
    return MediaTemplate(JinjaTemplate(Tokenizer.from_directory(directory)), processor)


@pytest.fixture(scope="module")
def server(directory: Path) -> Iterator[ChildServer]:
    launch = vllm_launch(
        str(PYTHON),
        Model(directory, "tiny", "float32", {}, sees=True),
        VllmArguments(max_model_len=256, max_num_seqs=8, enforce_eager=True),
        key=KEY,
        log=directory.parent / "server.log",
        environment={"VLLM_CPU_KVCACHE_SPACE": "1", **with_torchvision(directory.parent / "site")},
    )
    server = ChildServer(launch)
    try:
        server.wait_ready()
        yield server
    finally:
        server.close()


@pytest.fixture
def engine(server: ChildServer, template: MediaTemplate) -> RemoteEngine:
    media = VllmMedia(template.processor)
    served = Served("tiny", (), 256)
    return RemoteEngine(server, Vllm(), served, stop_token_ids=[], key=KEY, media=media)


def question(template: MediaTemplate, *images: Path) -> Tokens:
    asked = Message("user", f"{'<image>' * len(images)}What is it?")
    return encode_question(template, Example(messages=(asked,), images=tuple(map(str, images))))


async def answer(engine: RemoteEngine, asked: Tokens) -> list[int]:
    sampling = Sampling(max_new_tokens=NEW, ignore_eos=True)
    request = GenerationRequest(asked.input_ids, sampling, media=asked.media)
    return [token async for event in engine.generate(request) for token in event.token_ids]


def test_answers_about_images_are_those_of_transformers(
    engine: RemoteEngine, template: MediaTemplate, directory: Path, tmp_path: Path
) -> None:
    assert Capability.MEDIA in engine.capabilities
    red, blue = picture(tmp_path / "a.png"), picture(tmp_path / "b.png", "blue", (90, 60))
    model = load_model(directory, dtype=torch.float32)
    questions = [question(template, red), question(template, blue, red), question(template)]

    async def all_of() -> list[list[int]]:
        return await asyncio.gather(*(answer(engine, asked) for asked in questions))

    for asked, found in zip(questions, asyncio.run(all_of()), strict=True):
        ids = torch.tensor([list(asked.input_ids)])
        output = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=NEW,
            do_sample=False,
            eos_token_id=None,
            **template.processor.process(asked.media).features,
            **template.processor.token_types([asked.input_ids]),
        )
        assert found == output[0, ids.shape[1] :].tolist()


def test_a_prompt_that_vllm_would_read_otherwise_is_refused(
    engine: RemoteEngine, template: MediaTemplate, tmp_path: Path
) -> None:
    asked = question(template, picture(tmp_path / "a.png"))
    (medium,) = asked.media
    # As if ft wrote a token more for the picture.
    ids = asked.input_ids
    longer = [*ids[: medium.start], ids[medium.start], *ids[medium.start :]]
    media = (replace(medium, length=medium.length + 1),)
    wrong = Tokens(longer, [0.0] * len(longer), media)
    with pytest.raises(ModelError, match="it writes the media of this model another way"):
        asyncio.run(answer(engine, wrong))


def test_what_it_cannot_tell_about_media_is_refused(
    engine: RemoteEngine, template: MediaTemplate, tmp_path: Path
) -> None:
    asked = question(template, picture(tmp_path / "a.png"))
    request = GenerationRequest(asked.input_ids, Sampling(logprobs=1), media=asked.media)

    async def ask() -> None:
        async for _ in engine.generate(request):
            pass

    with pytest.raises(UsageError, match="logprobs 1"):
        asyncio.run(ask())
