"""New blocks between those of a model, trained alone (Wu et al. 2024, https://arxiv.org/abs/2401.02415)."""
