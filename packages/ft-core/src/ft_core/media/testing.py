"""Tiny models that see or hear, for tests: real architectures and processors, random weights, nothing downloaded.

Pictures are squares of one colour, sounds are tones, films get brighter.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ft_core.media.tiny_families import FAMILIES
from ft_core.media.tiny_family import TinyFamily
from ft_core.media.tiny_torchvision import NEED_TORCHVISION
from ft_core.testing import COMMON, END_OF_TEXT, IM_END, IM_START, tiny_tokenizer

COLOURS: Final[Mapping[str, tuple[int, int, int]]] = {
    "red": (220, 30, 30),
    "green": (30, 180, 60),
    "blue": (40, 60, 220),
    "yellow": (240, 220, 40),
}


def tiny_multimodal(
    directory: Path,
    family: str = "qwen2_vl",
    *,
    seed: int = 0,
    template: str | None = None,
    text: Mapping[str, Any] | None = None,
) -> Path:
    """Write a tiny model that sees or hears, with its tokenizer, processor and chat template.

    Args:
        directory: where it goes; made if missing.
        family: one of ``FAMILIES`` or ``NEED_TORCHVISION``.
        seed: of the weights; the global random state is left as it was.
        template: a chat template in place of the family's.
        text: values of the language model's configuration in place of the family's.

    Returns:
        ``directory``, which ``AutoModelForMultimodalLM.from_pretrained`` loads.
    """
    import torch
    import transformers

    tiny = {**FAMILIES, **NEED_TORCHVISION}[family]
    tokenizer = _tokenizer(directory, tiny)
    ids = tokenizer.get_vocab()
    ends = {
        "bos_token_id": ids[IM_START],
        "eos_token_id": ids[IM_END],
        "pad_token_id": ids[END_OF_TEXT],
    }
    language = {**COMMON, "vocab_size": len(ids), **ends, **tiny.text, **(text or {})}
    # No id of the default configuration means anything to so small a vocabulary.
    config = getattr(transformers, tiny.config_class)(
        **{"text_config": language, "tie_word_embeddings": False, **tiny.settings(ids)}
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.AutoModelForMultimodalLM.from_config(config)
        for parameter in model.parameters():
            if parameter.ndim > 1 and not parameter.any():  # what begins at zero would see nothing
                torch.nn.init.normal_(parameter, std=0.2)
    model.generation_config = transformers.GenerationConfig(**ends)
    model.save_pretrained(directory)
    tiny.processor(tokenizer, template or tiny.template).save_pretrained(directory)
    return directory


def picture(path: Path, colour: str = "red", size: tuple[int, int] = (48, 48)) -> Path:
    """Draw a square of a colour on white."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", size, (255, 255, 255))
    width, height = size
    ImageDraw.Draw(image).rectangle((2, 2, width - 3, height - 3), fill=COLOURS[colour])
    image.save(path)
    return path


def tone(path: Path, hertz: float = 440.0, seconds: float = 0.5, rate: int = 16_000) -> Path:
    """Write a tone as a WAV file of 16 bits."""
    import math
    import struct
    import wave

    count = int(seconds * rate)
    samples = (int(20_000 * math.sin(2 * math.pi * hertz * n / rate)) for n in range(count))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(b"".join(struct.pack("<h", sample) for sample in samples))
    return path


def film(path: Path, frames: int = 12, rate: int = 6) -> Path:
    """Write a video of 64 x 48 pixels whose frames get brighter."""
    import av
    import numpy as np

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(frames):
            shade = np.full((48, 64, 3), 240 * number // frames, dtype=np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(shade, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def _tokenizer(directory: Path, tiny: TinyFamily) -> Any:
    from transformers import AutoTokenizer

    tiny_tokenizer(directory, chat_template=None)
    path = directory / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    # The names are how processors find the tokens, as in the tokenizers of these models.
    settings["extra_special_tokens"] = dict(tiny.tokens)
    settings["model_max_length"] = 4096
    path.write_text(json.dumps(settings), encoding="utf-8")
    tokenizer = AutoTokenizer.from_pretrained(directory)
    tokenizer.add_special_tokens({"additional_special_tokens": list(tiny.tokens.values())})
    return tokenizer


__all__ = ["COLOURS", "FAMILIES", "film", "picture", "tiny_multimodal", "tone"]
