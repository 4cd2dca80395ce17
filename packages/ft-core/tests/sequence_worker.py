"""One rank of ``test_sequence_parallel``: losses and gradients of slices, written down by the first."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from ft_core.models.loading import load_model
from ft_core.samples import Tokens
from ft_core.sequences import (
    enable_split_attention,
    join,
    pick_logprobs,
    sequence_group,
    split,
    token_logits,
)

LENGTHS = (7, 1, 12, 5)


def documents() -> list[Tokens]:
    generator = torch.Generator().manual_seed(1)
    made = []
    for length in LENGTHS:
        ids = torch.randint(3, 200, (length,), generator=generator).tolist()
        made.append(Tokens(ids, [0.0] + [float(i % 3 != 0) for i in range(1, length)]))
    return made


def loss_and_gradients(model: torch.nn.Module, batch: dict) -> tuple[float, dict[str, float]]:
    """Return the summed loss and a number for each parameter's gradient, over all ranks."""
    model.zero_grad()
    logprobs = pick_logprobs(token_logits(model, batch), batch["labels"])
    loss = -(logprobs * batch["weights"]).sum()
    loss.backward()
    total = loss.detach().clone()
    numbers = {}
    for name, parameter in model.named_parameters():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
        if "attention" in batch:
            dist.all_reduce(gradient)
        numbers[name] = gradient
    if "attention" in batch:
        dist.all_reduce(total)
    return total.item(), numbers


def main() -> None:
    dist.init_process_group("gloo")
    size = int(sys.argv[1])
    group = sequence_group(size)
    found = {}
    for directory in map(Path, sys.argv[3:]):
        model = load_model(directory, dtype=torch.float32, for_training=True)
        batch = join(documents())
        whole, expected = loss_and_gradients(model, batch)
        try:
            enable_split_attention(model, group)
        except Exception as error:
            found[directory.name] = {"error": f"{type(error).__name__}: {error}"}
            continue
        parts, gradients = loss_and_gradients(model, split(batch, group))
        worst = max(
            float((gradients[n] - expected[n]).abs().max() / (expected[n].abs().max() + 1e-6))
            for n in expected
        )
        again, _ = loss_and_gradients(model, batch)
        found[directory.name] = {
            "whole": whole,
            "parts": parts * size / dist.get_world_size(),
            "gradients": worst * (size == dist.get_world_size()),
            "unsplit": again,
        }
    if dist.get_rank() == 0:
        Path(sys.argv[2]).write_text(json.dumps(found), encoding="utf-8")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
