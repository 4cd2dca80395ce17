"""EleutherAI's language model evaluation harness (lm-eval) over any respondent."""
