"""Low-rank adapters whose ranks are shared out by importance (Zhang et al. 2023, https://arxiv.org/abs/2303.10512), on peft."""
