"""Measuring any server with OpenAI's completions: speed as clients see it."""
