"""A script: checks that a row with a video gets the tokens and features that its processor gives it.

Usage: ``python video_tokens.py DIRECTORY VIDEO``; models go below the directory. The processor gets every frame where
it chooses some itself, else those that are taken of a video.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from transformers import ProcessorMixin

from ft_core.examples import Example, Message
from ft_core.media import MediaLimits, MediaProcessor, MediaTemplate
from ft_core.media.batches import with_features
from ft_core.media.testing import tiny_multimodal
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
