"""Changes of weights as few frequencies (Gao et al. 2024, https://arxiv.org/abs/2405.03003), on peft."""
