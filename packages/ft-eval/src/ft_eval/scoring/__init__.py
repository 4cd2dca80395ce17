"""From an answer to scores: metrics of the builtin backend."""
