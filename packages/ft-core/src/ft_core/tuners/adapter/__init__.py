"""Bottlenecks after attention and feed-forward layers (Houlsby et al. 2019, https://arxiv.org/abs/1902.00751)."""
