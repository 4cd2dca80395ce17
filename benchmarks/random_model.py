"""Write a model of random weights with the tokenizer of a real one, to measure sizes that nobody has to fetch.

The 1b size has the shape of Llama-3.2-1B.

python benchmarks/random_model.py /tmp/1b            # 1.07 billion weights, as Llama-3.2-1B is built
python benchmarks/random_model.py /tmp/half --size 0.5b
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from ft_core.hub import fetch
from ft_core.models.resolution import resolve_model
from ft_core.tokenizer import Tokenizer

SIZES = {
    "0.5b": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 28},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16},
    "1.7b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 27},
}


def main() -> int:
    """Write the model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("--size", choices=SIZES, default="1b")
    parser.add_argument("--tokenizer_dir", type=Path, help="of a tokenizer; default: SmolLM2's")
    arguments = parser.parse_args()
    source = arguments.tokenizer_dir or fetch(resolve_model("smollm2-135m-instruct", None))
    tokenizer = Tokenizer.from_directory(source)
    size = SIZES[arguments.size]
    heads = size["hidden_size"] // 64
    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        num_attention_heads=heads,
        num_key_value_heads=heads // 4,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        dtype=torch.bfloat16,
        **size,
    )
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(arguments.directory)
    tokenizer.save(arguments.directory)
    print(f"{model.num_parameters():,} weights in {arguments.directory}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
