"""Factors on activations (Liu et al. 2022, https://arxiv.org/abs/2205.05638), on peft."""
