"""What asks and grades: builtin, EleutherAI's lm-eval, and EvalScope in an environment of its own."""
