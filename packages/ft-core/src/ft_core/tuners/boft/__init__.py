"""Orthogonal transforms of weights by butterflies (Liu et al. 2023, https://arxiv.org/abs/2311.06243), on peft."""
