"""Tiny models that see or hear, by family: their configurations, processors and chat templates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from ft_core.media.tiny_family import TinyFamily, joined
from ft_core.media.tiny_templates import COLON, IMAGES_FIRST, turns
from ft_core.testing import END_OF_TEXT


def _qwen_processor(name: str, patch: int) -> Callable[[Any, str], Any]:
    def make(tokenizer: Any, template: str) -> Any:
        import transformers

        pixels = {"shortest_edge": 28 * 28, "longest_edge": 112 * 112}
        images = transformers.Qwen2VLImageProcessorPil(patch_size=patch, size=pixels)
        videos = "Qwen3VLVideoProcessor" if "3VL" in name else "Qwen2VLVideoProcessor"
        return joined(
            name,
            videos,
            {"patch_size": patch, "size": {**pixels, "longest_edge": 8 * 112 * 112}},
            image_processor=images,
            tokenizer=tokenizer,
            chat_template=template,
        )

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
_QWEN_TEMPLATE: Final = turns(
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

        sizes = {"size": {"longest_edge": 56}, "max_image_size": {"longest_edge": 28}}
        sampling = {"max_frames": 4, "fps": 1, "video_size": {"longest_edge": 28}}
        return joined(
            name,
            "SmolVLMVideoProcessor",
            {**sizes, "video_sampling": sampling},
            image_processor=getattr(transformers, images)(**sizes),
            tokenizer=tokenizer,
            image_seq_len=4,
            chat_template=template,
        )

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

    images = transformers.LlavaOnevisionImageProcessorPil(
        size={"height": 28, "width": 28}, image_grid_pinpoints=_PINPOINTS
    )
    return joined(
        "LlavaOnevisionProcessor",
        "LlavaOnevisionVideoProcessor",
        {"size": {"height": 28, "width": 28}},
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

    size = {"height": 28, "width": 28}
    images = transformers.GotOcr2ImageProcessorPil(size=size, crop_to_patches=True, max_patches=4)
    return joined(
        "InternVLProcessor",
        "InternVLVideoProcessor",
        {"size": size},
        image_processor=images,
        tokenizer=tokenizer,
        image_seq_length=4,
        chat_template=template,
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
        COLON,
        _idefics_settings,
        _idefics("SmolVLMProcessor", "SmolVLMImageProcessorPil"),
        _LLAMA,
    ),
    "idefics3": TinyFamily(
        "Idefics3Config",
        _IDEFICS_TOKENS,
        COLON,
        _idefics_settings,
        _idefics("Idefics3Processor", "Idefics3ImageProcessorPil"),
        _LLAMA,
    ),
    "llava": TinyFamily(
        "LlavaConfig",
        {"image_token": "<image>"},
        IMAGES_FIRST,
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
        IMAGES_FIRST,
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
        turns(image="<image>", video="<video>"),
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
        turns(image="<start_of_image>"),
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
        turns(image="<IMG_CONTEXT>\n", video="<video>\n"),
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
        turns(audio="<|audio_bos|><|AUDIO|><|audio_eos|>\n"),
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
