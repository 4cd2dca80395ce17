"""Tiny models whose processors need torchvision, for images too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ft_core.media.tiny_family import TinyFamily
from ft_core.media.tiny_templates import turns


def _minicpm(tokenizer: Any, template: str) -> Any:
    import transformers

    sizes = {"scale_resolution": 56, "patch_size": 7}
    return transformers.MiniCPMV4_6Processor(
        image_processor=transformers.MiniCPMV4_6ImageProcessorPil(**sizes, max_slice_nums=2),
        video_processor=transformers.MiniCPMV4_6VideoProcessor(**sizes, max_slice_nums=1),
        tokenizer=tokenizer,
        chat_template=template,
    )


NEED_TORCHVISION: Final[Mapping[str, TinyFamily]] = {
    "minicpmv4_6": TinyFamily(
        "MiniCPMV4_6Config",
        {
            "image_token": "<|image_pad|>",
            "video_token": "<|video_pad|>",
            **{
                f"{name}_{side}_token": f"<{'/' * (side == 'end')}{name}>"
                for name in ("image", "slice", "image_id")
                for side in ("start", "end")
            },
        },
        turns(image="<|image_pad|>", video="<|video_pad|>"),
        lambda ids: {
            "vision_config": {
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 3,
                "num_attention_heads": 4,
                "image_size": 56,
                "patch_size": 7,
            },
            "insert_layer_id": 1,
            "image_size": 56,
            "image_token_id": ids["<|image_pad|>"],
            "video_token_id": ids["<|video_pad|>"],
        },
        _minicpm,
        {"model_type": "qwen2"},
    ),
}
"""The families that ``tiny_multimodal`` can make where torchvision is installed."""
