"""Programs of a model: graded by their tests, in a sandbox that holds."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from ft_eval.respondents.protocol import Prompt
from ft_eval.scoring.programs import Sandbox, pass_at_k
from ft_eval.tasks.task import Item

CODE = "import math\n\n\ndef area(r: float) -> float:\n"
PROBLEM = Item(
    "p",
    Prompt.ask("area"),
    extra={
        "code": CODE,
        "entry_point": "area",
        "test": "def check(f):\n    assert abs(f(1) - 3.14159) < 1e-3\n",
    },
)


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return Sandbox(seconds=3)


@pytest.mark.parametrize(
    ("answer", "passes"),
    [
        ("    return math.pi * r * r\n", True),
        ("Sure!\n```python\ndef area(r):\n    return math.pi * r ** 2\n```\nDone.", True),
        ("def area(r):\n    return 3.14159 * r * r", True),
        ("    return r\n", False),
        ("    return math.pi *\n", False),
        ("    import sys\n    sys.exit(0)\n", False),
        ("    import os\n    os._exit(0)\n", False),
    ],
)
def test_only_passed_tests_pass(sandbox: Sandbox, answer: str, passes: bool) -> None:
    assert sandbox.run(PROBLEM, answer).passed is passes


def test_a_program_can_neither_reach_out_nor_stay(sandbox: Sandbox, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    inside = tmp_path / "inside"
    inside.mkdir()

    def said(program: str) -> str:
        return sandbox.execute(program, str(inside)).said

    assert "Network is unreachable" in said(
        "import socket; socket.create_connection(('1.1.1.1', 80), timeout=2)"
    )
    assert "Permission denied" in said(f"open({str(outside)!r}, 'w')")
    assert not outside.exists()
    assert "inside" in said("open('x', 'w').write('inside'); print(open('x').read())")
    assert said("while True: pass") == "stopped after 3 s" or said("while True: pass") == ""
    assert "MemoryError" in said("bytearray(4 * 1024 ** 3)")
    assert said("import os; print(sorted(os.environ))").count("'") == 6


def test_pass_at_k_is_the_share_of_draws_with_a_pass() -> None:
    for drawn, passed, k in ((5, 2, 1), (5, 2, 3), (6, 0, 2), (4, 4, 1)):
        draws = list(itertools.combinations(range(drawn), k))
        share = sum(any(i < passed for i in draw) for draw in draws) / len(draws)
        assert pass_at_k(drawn, passed, k) == pytest.approx(share)
