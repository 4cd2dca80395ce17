"""What runs in EvalScope's own environment, started by path: its configuration comes from standard input."""

import json
import os
import sys


def main() -> None:
    """Run EvalScope's task; it leaves its results in the configured directory."""
    from evalscope import TaskConfig, run_task  # type: ignore[import-not-found]

    settings = json.load(sys.stdin)
    run_task(TaskConfig(**settings, api_key=os.environ.get("FT_EVAL_TOKEN", "EMPTY")))


main()
