"""LoRA on long texts with attention by shifted groups (Chen et al. 2023, https://arxiv.org/abs/2309.12307)."""
