"""Requests that a machine makes up from the server's own description."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from ft_serve.openai.limits import Limits
from ft_serve.testing import MockEngine

PATHS = {
    *("/v1/models", "/v1/models/{model}", "/v1/chat/completions", "/v1/completions"),
    *("/v1/embeddings", "/tokenize", "/detokenize", "/tokenizer_info", "/version", "/metrics"),
    *("/health", "/health/live", "/health/ready"),
}


@pytest.fixture(scope="module")
def mock(serve: Any) -> Iterator[Any]:
    with serve(MockEngine("hello"), limits=Limits(body=200_000)) as running:
        yield running


def test_everything_is_described(mock: Any) -> None:
    description = httpx.get(f"{mock.url}/openapi.json", timeout=120).json()
    assert set(description["paths"]) == PATHS
    for schema in description["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    for methods in description["paths"].values():
        for operation in methods.values():
            assert operation["description"]
    assert "422" not in json.dumps(description["paths"])


@pytest.mark.slow
def test_no_request_that_a_machine_makes_up_makes_the_server_fail(running: Any) -> None:
    checks = (
        *("not_a_server_error", "status_code_conformance", "content_type_conformance"),
        *("response_headers_conformance", "response_schema_conformance"),
    )
    assert httpx.get(f"{running.url}/openapi.json", timeout=120).status_code == 200
    program = Path(sys.executable).parent / "schemathesis"
    result = subprocess.run(
        [
            *(program, "run", f"{running.url}/openapi.json", "--checks", ",".join(checks)),
            *("--phases", "examples,coverage,fuzzing", "--max-examples", "20", "--seed", "1"),
            *("--mode", "all", "--continue-on-failure", "--generation-database", "none"),
            *("--request-timeout", "120", "--no-color"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-8000:] + result.stderr[-2000:]
    assert httpx.get(f"{running.url}/health/ready", timeout=120).status_code == 200
    assert running.front.in_flight == 0
