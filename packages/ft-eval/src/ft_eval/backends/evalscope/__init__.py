"""ModelScope's EvalScope, run in an environment of its own and asking over HTTP."""
