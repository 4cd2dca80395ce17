"""Tiny models that see or hear, for tests: real architectures and processors, random weights, nothing downloaded.

Pictures are squares of one colour, sounds are tones.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ft_core.testing import COMMON, END_OF_TEXT, IM_END, IM_START, tiny_tokenizer

COLOURS: Final[Mapping[str, tuple[int, int, int]]] = {
    "red": (220, 30, 30),
    "green": (30, 180, 60),
    "blue": (40, 60, 220),
    "yellow": (240, 220, 40),
}

_TURNS = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}@IMAGE@{% elif part['type'] == 'audio' %}@AUDIO@"
    "{% elif part['type'] == 'video' %}@VIDEO@{% elif 'text' in part %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_IMAGES_FIRST = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] }}{% endfor %}"
    "{% endif %}{{ '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT: ' }}{% endif %}"
)
_COLON = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% elif part['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


@dataclass(frozen=True, slots=True)
class TinyFamily:
    """How to make a tiny model of a family.

    Attributes:
        config_class: name in transformers.
        tokens: special tokens of its tokenizer, by the name that its processor knows them by.
        template: its chat template.
        settings: of its configuration, made from the ids of its special tokens.
        processor: makes its processor from a tokenizer of transformers.
        text: of the configuration of its language model.
    """

    config_class: str
    tokens: Mapping[str, str]
    template: str
    settings: Callable[[Mapping[str, int]], dict[str, Any]]
    processor: Callable[[Any, str], Any]
    text: Mapping[str, Any] = field(default_factory=dict)


def tiny_multimodal(
    directory: Path, family: str = "qwen2_vl", *, seed: int = 0, template: str | None = None
) -> Path:
    """Write a tiny model that sees or hears, with its tokenizer, processor and chat template.

    Args:
        directory: where it goes; made if missing.
        family: one of ``FAMILIES``.
        seed: of the weights; the global random state is left as it was.
        template: a chat template in place of the family's.

    Returns:
        ``directory``, which ``AutoModelForMultimodalLM.from_pretrained`` loads.
    """
    import torch
    import transformers

    tiny = FAMILIES[family]
    tokenizer = _tokenizer(directory, tiny)
    ids = tokenizer.get_vocab()
    ends = {
        "bos_token_id": ids[IM_START],
        "eos_token_id": ids[IM_END],
        "pad_token_id": ids[END_OF_TEXT],
    }
    text = {**COMMON, "vocab_size": len(ids), **ends, **tiny.text}
    # No id of the default configuration means anything to so small a vocabulary.
    config = getattr(transformers, tiny.config_class)(
        **{"text_config": text, "tie_word_embeddings": False, **tiny.settings(ids)}
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


def _turns(**marks: str) -> str:
    template = _TURNS
    for kind in ("image", "audio", "video"):
        template = template.replace(f"@{kind.upper()}@", marks.get(kind, ""))
    return template


def _qwen_processor(name: str, patch: int) -> Callable[[Any, str], Any]:
    def make(tokenizer: Any, template: str) -> Any:
        import transformers

        from ft_core.media.loading import without_video

        images = transformers.Qwen2VLImageProcessorPil(
            patch_size=patch, size={"shortest_edge": 28 * 28, "longest_edge": 112 * 112}
        )
        kind = without_video(getattr(transformers, name))
        return kind(image_processor=images, tokenizer=tokenizer, chat_template=template)

    return make


def _qwen_settings(vision: Mapping[str, Any]) -> Callable[[Mapping[str, int]], dict[str, Any]]:
    def make(ids: Mapping[str, int]) -> dict[str, Any]:
        return {
            "vision_config": dict(vision),
            "image_token_id": ids["<|image_pad|>"],
            "video_token_id": ids["<|video_pad|>"],
            "vision_start_token_id": ids["<|vision_start|>"],
            "vision_end_token_id": ids["<|vision_end|>"],
        }

    return make


_QWEN_TOKENS: Final = {
    "vision_bos_token": "<|vision_start|>",
    "vision_eos_token": "<|vision_end|>",
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "ref_start_token": "<|object_ref_start|>",
    "ref_end_token": "<|object_ref_end|>",
    "box_start_token": "<|box_start|>",
    "box_end_token": "<|box_end|>",
}
_QWEN_TEMPLATE: Final = _turns(
    image="<|vision_start|><|image_pad|><|vision_end|>",
    video="<|vision_start|><|video_pad|><|vision_end|>",
)
_MROPE: Final = {
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
}
_SIGLIP: Final = {
    "model_type": "siglip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
    "vision_use_head": False,
}
_CLIP: Final = {
    "model_type": "clip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
    "projection_dim": 32,
}
_IDEFICS_TOKENS: Final = {
    "image_token": "<image>",
    "fake_image_token": "<fake_token_around_image>",
    "global_image_token": "<global-img>",
    "video_token": "<video>",
    "end_of_utterance_token": "<end_of_utterance>",
    **{f"row_{r}_col_{c}": f"<row_{r}_col_{c}>" for r in (1, 2) for c in (1, 2)},
}
_LLAMA: Final = {"model_type": "llama"}
_QWEN2: Final = {"model_type": "qwen2"}


def _idefics(name: str, images: str) -> Callable[[Any, str], Any]:
    def make(tokenizer: Any, template: str) -> Any:
        import transformers

        from ft_core.media.loading import without_video

        processor = getattr(transformers, images)(
            size={"longest_edge": 56}, max_image_size={"longest_edge": 28}
        )
        kind = without_video(getattr(transformers, name))
        parts = {"image_processor": processor, "tokenizer": tokenizer, "image_seq_len": 4}
        if kind is not getattr(transformers, name):
            parts["video_processor"] = None
        return kind(**parts, chat_template=template)

    return make


def _idefics_settings(ids: Mapping[str, int]) -> dict[str, Any]:
    vision = {k: v for k, v in _SIGLIP.items() if k not in ("model_type", "vision_use_head")}
    return {
        "vision_config": {**vision, "patch_size": 7},
        "image_token_id": ids["<image>"],
        "pad_token_id": ids[END_OF_TEXT],
        "scale_factor": 2,
    }


def _llava(tokenizer: Any, template: str) -> Any:
    import transformers

    images = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}
    )
    return transformers.LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )


_PINPOINTS: Final = [[28, 56], [56, 28], [56, 56]]


def _llava_next(tokenizer: Any, template: str) -> Any:
    import transformers

    images = transformers.LlavaNextImageProcessorPil(
        size={"shortest_edge": 28},
        crop_size={"height": 28, "width": 28},
        image_grid_pinpoints=_PINPOINTS,
    )
    return transformers.LlavaNextProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )


def _llava_onevision(tokenizer: Any, template: str) -> Any:
    import transformers

    from ft_core.media.loading import without_video

    images = transformers.LlavaOnevisionImageProcessorPil(
        size={"height": 28, "width": 28}, image_grid_pinpoints=_PINPOINTS
    )
    return without_video(transformers.LlavaOnevisionProcessor)(
        image_processor=images,
        tokenizer=tokenizer,
        num_image_tokens=4,
        vision_feature_select_strategy="full",
        chat_template=template,
    )


def _gemma3(tokenizer: Any, template: str) -> Any:
    import transformers

    images = transformers.Gemma3ImageProcessorPil(size={"height": 28, "width": 28})
    return transformers.Gemma3Processor(
        image_processor=images, tokenizer=tokenizer, image_seq_length=4, chat_template=template
    )


def _internvl(tokenizer: Any, template: str) -> Any:
    import transformers

    from ft_core.media.loading import without_video

    images = transformers.GotOcr2ImageProcessorPil(
        size={"height": 28, "width": 28}, crop_to_patches=True, max_patches=4
    )
    return without_video(transformers.InternVLProcessor)(
        image_processor=images, tokenizer=tokenizer, image_seq_length=4, chat_template=template
    )


def _qwen2_audio(tokenizer: Any, template: str) -> Any:
    import transformers

    extractor = transformers.WhisperFeatureExtractor(feature_size=16, chunk_length=2)
    return transformers.Qwen2AudioProcessor(
        feature_extractor=extractor, tokenizer=tokenizer, chat_template=template
    )


FAMILIES: Final[Mapping[str, TinyFamily]] = {
    "qwen2_vl": TinyFamily(
        "Qwen2VLConfig",
        _QWEN_TOKENS,
        _QWEN_TEMPLATE,
        _qwen_settings(
            {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "mlp_ratio": 2}
        ),
        _qwen_processor("Qwen2VLProcessor", 14),
        _MROPE,
    ),
    "qwen2_5_vl": TinyFamily(
        "Qwen2_5_VLConfig",
        _QWEN_TOKENS,
        _QWEN_TEMPLATE,
        _qwen_settings(
            {
                "depth": 2,
                "hidden_size": 32,
                "out_hidden_size": 32,
                "intermediate_size": 64,
                "num_heads": 4,
                "fullatt_block_indexes": [1],
            }
        ),
        _qwen_processor("Qwen2_5_VLProcessor", 14),
        _MROPE,
    ),
    "qwen3_vl": TinyFamily(
        "Qwen3VLConfig",
        _QWEN_TOKENS,
        _QWEN_TEMPLATE,
        _qwen_settings(
            {
                "depth": 2,
                "hidden_size": 32,
                "out_hidden_size": 32,
                "intermediate_size": 64,
                "num_heads": 4,
                "num_position_embeddings": 16,
                "deepstack_visual_indexes": [0],
            }
        ),
        _qwen_processor("Qwen3VLProcessor", 16),
        {
            "head_dim": 8,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [2, 1, 1],
                "mrope_interleaved": True,
            },
        },
    ),
    "smolvlm": TinyFamily(
        "SmolVLMConfig",
        _IDEFICS_TOKENS,
        _COLON,
        _idefics_settings,
        _idefics("SmolVLMProcessor", "SmolVLMImageProcessorPil"),
        _LLAMA,
    ),
    "idefics3": TinyFamily(
        "Idefics3Config",
        _IDEFICS_TOKENS,
        _COLON,
        _idefics_settings,
        _idefics("Idefics3Processor", "Idefics3ImageProcessorPil"),
        _LLAMA,
    ),
    "llava": TinyFamily(
        "LlavaConfig",
        {"image_token": "<image>"},
        _IMAGES_FIRST,
        lambda ids: {
            "vision_config": dict(_CLIP),
            "image_token_index": ids["<image>"],
            "image_seq_length": 4,
        },
        _llava,
        _LLAMA,
    ),
    "llava_next": TinyFamily(
        "LlavaNextConfig",
        {"image_token": "<image>"},
        _IMAGES_FIRST,
        lambda ids: {
            "vision_config": dict(_CLIP),
            "image_token_index": ids["<image>"],
            "image_grid_pinpoints": _PINPOINTS,
        },
        _llava_next,
        _LLAMA,
    ),
    "llava_onevision": TinyFamily(
        "LlavaOnevisionConfig",
        {"image_token": "<image>", "video_token": "<video>"},
        _turns(image="<image>", video="<video>"),
        lambda ids: {
            "vision_config": dict(_SIGLIP),
            "image_token_index": ids["<image>"],
            "video_token_index": ids["<video>"],
            "image_grid_pinpoints": _PINPOINTS,
        },
        _llava_onevision,
        _QWEN2,
    ),
    "gemma3": TinyFamily(
        "Gemma3Config",
        {
            "image_token": "<image_soft_token>",
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
        },
        _turns(image="<start_of_image>"),
        lambda ids: {
            "vision_config": dict(_SIGLIP),
            "mm_tokens_per_image": 4,
            "image_token_index": ids["<image_soft_token>"],
            "boi_token_index": ids["<start_of_image>"],
            "eoi_token_index": ids["<end_of_image>"],
        },
        _gemma3,
        {"head_dim": 8, "sliding_window": 64},
    ),
    "internvl": TinyFamily(
        "InternVLConfig",
        {
            "context_image_token": "<IMG_CONTEXT>",
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "video_token": "<video>",
        },
        _turns(image="<IMG_CONTEXT>\n", video="<video>\n"),
        lambda ids: {
            "vision_config": {
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "image_size": [28, 28],
                "patch_size": [7, 7],
            },
            "image_token_id": ids["<IMG_CONTEXT>"],
            "image_seq_length": 4,
        },
        _internvl,
        _QWEN2,
    ),
    "qwen2_audio": TinyFamily(
        "Qwen2AudioConfig",
        {
            "audio_token": "<|AUDIO|>",
            "audio_bos_token": "<|audio_bos|>",
            "audio_eos_token": "<|audio_eos|>",
        },
        _turns(audio="<|audio_bos|><|AUDIO|><|audio_eos|>\n"),
        lambda ids: {
            "audio_config": {
                "model_type": "qwen2_audio_encoder",
                "num_mel_bins": 16,
                "encoder_layers": 2,
                "encoder_attention_heads": 4,
                "encoder_ffn_dim": 64,
                "d_model": 32,
                "max_source_positions": 100,
            },
            "audio_token_index": ids["<|AUDIO|>"],
        },
        _qwen2_audio,
        _QWEN2,
    ),
}
"""The families that ``tiny_multimodal`` can make."""
