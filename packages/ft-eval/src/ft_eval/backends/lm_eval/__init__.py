"""EleutherAI's language model evaluation harness (lm-eval) over any respondent."""

import os

# lm-eval would set it to 1, and with that a broken download of huggingface_hub starts over instead of going on.
os.environ.setdefault("HF_XET_HIGH_PERFORMANCE", "0")
