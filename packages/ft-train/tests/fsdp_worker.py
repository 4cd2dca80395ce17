"""One rank of ``test_fsdp``: a few steps on a divided model, saved, and continued by another."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict_saver import save

from ft_core.models.loading import load_model
from ft_core.tuners import TUNERS, FullSettings, LoraSettings
from ft_train.distributed.fsdp import is_sharded, load_optimizer, save_optimizer, shard
from ft_train.distributed.fsdp_settings import read_fsdp
from ft_train.distributed.gathering import whole_weights

IDS = torch.arange(3, 67).view(4, 16)


def steps(model: torch.nn.Module, optimizer: torch.optim.Optimizer, count: int) -> list[float]:
    rank, world = dist.get_rank(), dist.get_world_size()
    losses = []
    for _ in range(count):
        share = IDS[rank::world]
        loss = model(input_ids=share, labels=share, use_cache=False).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        total = torch.tensor(loss.item())
        dist.all_reduce(total)
        losses.append(total.item() / world)
        assert torch.isfinite(torch.as_tensor(float(norm.full_tensor())))
    return losses


def made(directory: Path, kind: str, words: str, weights: Path | None = None):
    torch.manual_seed(0)
    tuner = TUNERS.get(kind)
    base = load_model(
        weights if weights and kind == "full" else directory, dtype=torch.float32, for_training=True
    )
    if weights and kind == "lora":
        model = tuner.load(base, weights, trainable=True)
    else:
        settings = FullSettings() if kind == "full" else LoraSettings(rank=2, dropout=0.0)
        model = tuner.apply(base, settings)
    settings = read_fsdp(words, None)
    assert settings is not None
    shard(model, settings, "cpu")
    assert is_sharded(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    return tuner, model, torch.optim.AdamW(trained, lr=1e-2)


def main() -> None:
    dist.init_process_group("gloo")
    directory, out, kind, words = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
    tuner, model, optimizer = made(directory, kind, words)
    losses = steps(model, optimizer, 3)
    save_optimizer(model, optimizer, out)
    with whole_weights(model):
        if dist.get_rank() == 0:
            tuner.save(model, out)
    dist.barrier()
    # As accelerate writes a model in parts.
    save({"model": model.state_dict()}, checkpoint_id=out / "parts" / "pytorch_model_fsdp_0")
    more = steps(model, optimizer, 2)
    _, again, optimizer = made(directory, kind, words, out)
    load_optimizer(again, optimizer, out)
    continued = steps(again, optimizer, 2)
    if dist.get_rank() == 0:
        found = {"losses": losses, "more": more, "continued": continued}
        (out / "found.json").write_text(json.dumps(found), encoding="utf-8")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
