"""One of several processes that share a step: writes its value and gradients, added up over all of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from transformers import AutoModelForCausalLM

from ft_align.encoding import AnswerEncoder
from ft_align.recipes import LabelledRecipe
from ft_core.samples import Sample, Tokens


def main() -> None:
    rank, ranks, store, policy, reference, rows, loss_type, output = sys.argv[1:]
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=int(rank), world_size=int(ranks)
    )
    load = AutoModelForCausalLM.from_pretrained
    model = load(policy, attn_implementation="sdpa")
    frozen = load(reference, attn_implementation="sdpa").eval()
    samples = [
        Sample((Tokens(row["ids"], row["weights"]),), row["row"], row["values"])
        for row in json.loads(Path(rows).read_text())
    ]
    recipe = LabelledRecipe(AnswerEncoder(), beta=0.3, loss_type=loss_type)
    own = samples[int(rank) :: int(ranks)]
    # The last micro-batch of some ranks has no sample.
    cut = [own[index : index + 1] for index in range(-(-len(samples) // int(ranks)))]
    model.train()
    for _ in range(2):  # bco's first step has no mean to compare with
        model.zero_grad()
        found = recipe.prepare(model, cut, frozen)
        for micro_batch, more in zip(cut, found, strict=True):
            if micro_batch:
                batch = {**recipe.collate(micro_batch), **more}
                output_of = recipe.loss(model, batch, frozen)
                (output_of.terms["loss"].total / len(samples)).backward()  # type: ignore[no-untyped-call]
    state = recipe.state()
    gradients = {}
    for name, parameter in model.named_parameters():
        total = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        dist.all_reduce(total)
        gradients[name] = total
    if int(rank) == 0:
        torch.save({"gradients": gradients, "anchor": found[0]["anchor"], "state": state}, output)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
