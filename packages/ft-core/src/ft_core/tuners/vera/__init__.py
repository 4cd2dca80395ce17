"""Adapters of shared random matrices and trained vectors (Kopiczko et al. 2023, https://arxiv.org/abs/2310.11454), on peft."""
