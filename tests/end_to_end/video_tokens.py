"""A script: checks what needs torchvision, in a process that has it.

A row with a video gets the tokens and features that its model's processor gives it, and so do rows with images of
families whose processors need torchvision for these too.

Usage: ``python video_tokens.py DIRECTORY VIDEO``; models go below the directory. The processor gets every frame where
it chooses some itself, else those that are taken of a video.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import ProcessorMixin

from ft_core.examples import Example, Message
from ft_core.media import MediaLimits, MediaProcessor, MediaTemplate
from ft_core.media.batches import with_features
from ft_core.media.testing import picture, tiny_multimodal
from ft_core.media.tiny_torchvision import NEED_TORCHVISION
from ft_core.media.videos import open_video, spread
from ft_core.models.loading import load_model
from ft_core.sequences import join, token_logits
from ft_core.templates import JinjaTemplate
from ft_core.tokenizer import Tokenizer

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava_onevision", "internvl", "smolvlm")
RATES = {"qwen2_vl": 2, "qwen2_5_vl": 2}
"""Frames a second that families take whose processors don't say it."""


def check(family: str, directory: Path, source: str) -> None:
    tiny_multimodal(directory, family)
    template = MediaTemplate(
        JinjaTemplate(Tokenizer.from_directory(directory)), MediaProcessor(directory)
    )
    assert "video" in template.processor.kinds
    turns = Message("user", "<video>What is it?"), Message("assistant", "Red.")
    (tokens,) = template.encode([Example(messages=turns, videos=(source,))])[0]
    own = processed(template.processor.library, family, source)
    expected = own["input_ids"][0].tolist()
    assert list(tokens.input_ids) == expected[: len(tokens)]
    assert template.tokenizer.decode(expected[len(tokens) :]).strip() == ""
    features = template.processor.process(tokens.media).features
    assert features
    for name, value in features.items():
        assert torch.equal(value, own[name]), name
    model = load_model(directory, dtype=torch.float32)
    with torch.no_grad():
        logits = token_logits(model, with_features(join([tokens]), template.processor))
    assert torch.isfinite(logits).all()


def check_images(family: str, directory: Path, folder: Path) -> None:
    """Compare a row with two images of different sizes, and a batch with its rows alone."""
    tiny_multimodal(directory, family)
    template = MediaTemplate(
        JinjaTemplate(Tokenizer.from_directory(directory)), MediaProcessor(directory)
    )
    red, blue = picture(folder / "red.png"), picture(folder / "blue.png", "blue", (120, 60))
    talk = [
        Message("user", "<image>What is it?"),
        Message("assistant", "Red."),
        Message("user", "And <image> now?"),
        Message("assistant", "Blue."),
    ]
    both = Example(messages=tuple(talk), images=(str(red), str(blue)))
    one = Example(messages=tuple(talk[:2]), images=(str(blue),))
    rows = [tokens for (tokens,) in template.encode([both, one])]
    text = [{"type": "text", "text": words} for words in ("What is it?", "Red.", "And ", " now?")]
    seen = [{"type": "image", "image": Image.open(file)} for file in (red, blue)]
    own = template.processor.library.apply_chat_template(
        [
            {"role": "user", "content": [seen[0], text[0]]},
            {"role": "assistant", "content": [text[1]]},
            {"role": "user", "content": [text[2], seen[1], text[3]]},
            {"role": "assistant", "content": [{"type": "text", "text": "Blue."}]},
        ],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    assert list(rows[0].input_ids) == own["input_ids"][0].tolist()[: len(rows[0])]
    for name, value in template.processor.process(rows[0].media).features.items():
        assert torch.equal(value, own[name]), name
    model = load_model(directory, dtype=torch.float32)
    with torch.no_grad():
        together, *alone = (
            token_logits(model, with_features(join(part), template.processor))
            for part in (rows, rows[:1], rows[1:])
        )
    assert torch.allclose(together, torch.cat(alone), atol=1e-4)


def processed(library: Any, family: str, source: str) -> Any:
    """Return what a processor makes of the row by itself."""
    videos = library.video_processor
    if videos.do_sample_frames:
        choose, sampling = None, {}
    elif family in RATES:
        choose, sampling = None, {"do_sample_frames": True, "fps": RATES[family]}
    else:
        choose, sampling = spread(videos.num_frames or 8), {}
    video = open_video(source, MediaLimits(), choose=choose)
    facts = {
        "total_num_frames": video.total,
        "fps": video.rate,
        "duration": video.total / video.rate,
        "frames_indices": list(video.places),
    }
    talk = [
        {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "What is it?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "Red."}]},
    ]
    # SmolVLM's own method has another template for videos.
    text = ProcessorMixin.apply_chat_template(library, talk, tokenize=False)
    return library(
        text=[text],
        videos=[[video.frames]],
        video_metadata=[[facts]],
        return_tensors="pt",
        add_special_tokens=False,
        **sampling,
    )


if __name__ == "__main__":
    for name in FAMILIES:
        check(name, Path(sys.argv[1]) / name, sys.argv[2])
    for name in NEED_TORCHVISION:
        check_images(name, Path(sys.argv[1]) / name, Path(sys.argv[1]))
