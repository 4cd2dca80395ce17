"""The words that start LMDeploy, read by its own command line parser."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ft_serve.arguments import LmdeployArguments
from ft_serve.engines.child.lmdeploy import lmdeploy_launch
from ft_serve.engines.child.vllm import Model
from ft_serve.engines.installed import find_installed

PYTHON = os.environ.get("FT_LMDEPLOY_PYTHON")

pytestmark = [
    pytest.mark.accept,
    pytest.mark.skipif(PYTHON is None, reason="needs LMDeploy: make test-lmdeploy"),
]

PARSE = """
import json, sys
from lmdeploy.cli.cli import CLI
from lmdeploy.cli.serve import SubCliServe
SubCliServe.add_parsers()
found = vars(CLI.parser.parse_args(sys.argv[1:]))
print("parsed:" + json.dumps(found, default=str))
"""


def parsed(words: list[str]) -> dict[str, Any]:
    done = subprocess.run(
        [str(PYTHON), "-c", PARSE, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.partition("parsed:")[2])


def test_lmdeploy_reads_our_words(tmp_path: Path) -> None:
    library = find_installed("lmdeploy", PYTHON)
    assert library is not None
    assert library.version.startswith("lmdeploy 0.")
    arguments = LmdeployArguments(
        tp=2, cache_max_entry_count=0.5, quant_policy=8, vision_batch_size=4
    )
    model = Model(tmp_path, "named", "bfloat16", {}, trust_remote_code=True)
    launch = lmdeploy_launch(
        library.python, model, arguments, key="secret", log=tmp_path / "server.log"
    )
    python, _, module, *words = launch.command(1234)
    assert (python, module) == (library.python, "lmdeploy")
    expected = {
        "model_path": str(tmp_path),
        "model_name": "named",
        "server_name": "127.0.0.1",
        "server_port": 1234,
        "dtype": "bfloat16",
        "tp": 2,
        "cache_max_entry_count": 0.5,
        "quant_policy": 8,
        "vision_max_batch_size": 4,
        "logprobs_mode": "raw_logprobs",
        "trust_remote_code": True,
        "api_keys": ["secret"],
        "allow_origins": ["http://127.0.0.1"],
    }
    found = parsed(list(words))
    assert {name: found[name] for name in expected} == expected
