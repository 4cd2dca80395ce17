"""What every package and every file of ours looks like."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = sorted(path.parent for path in ROOT.glob("packages/*/pyproject.toml"))
SOURCES = sorted(ROOT.glob("packages/*/src/**/*.py"))
TESTS = sorted([*ROOT.glob("packages/*/tests/**/*.py"), *ROOT.glob("tests/**/*.py")])
VAGUE = {"utils", "util", "common", "misc", "helpers", "helper", "extras", "tools", "stuff", "base"}
LONGEST_FILE = 400
LONGEST_TEST_FILE = 500
LONGEST_FUNCTION = 70
"""The rule is about 50 lines; this is where a machine stops believing the "about"."""


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def test_there_are_nine_packages() -> None:
    assert [path.name for path in PACKAGES] == [
        "ft-align",
        "ft-cli",
        "ft-core",
        "ft-data",
        "ft-eval",
        "ft-quant",
        "ft-serve",
        "ft-train",
        "ft-ui",
    ]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_a_package_has_what_a_release_needs(package: Path) -> None:
    project = tomllib.loads((package / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module = package / "src" / package.name.replace("-", "_")
    assert project["name"] == package.name
    assert (module / "py.typed").is_file()
    assert len((package / "README.md").read_text(encoding="utf-8").split()) >= 50, (
        "README says little"
    )
    changelog = (package / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(project['version'])}\b", changelog, re.MULTILINE)
    licence = (ROOT / "LICENSE").read_bytes()
    assert (package / "LICENSE").read_bytes() == licence
    assert project["license-files"] == ["LICENSE"]
    assert list((package / "tests").glob("test_*.py")), "no tests"
    assert not list((package / "tests").rglob("__init__.py"))


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_a_console_script_names_a_function_that_exists(package: Path) -> None:
    project = tomllib.loads((package / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for target in project.get("scripts", {}).values():
        module, function = target.split(":")
        file = package / "src" / (module.replace(".", "/") + ".py")
        assert file.is_file(), f"{target}: there is no {named(file)}"
        functions = [node.name for node in tree_of(file).body if isinstance(node, ast.FunctionDef)]
        assert function in functions


def test_test_files_have_names_of_their_own() -> None:
    for package in PACKAGES:
        names = [path.name for path in package.glob("tests/**/test_*.py")]
        assert len(names) == len(set(names)), package.name


def test_modules_are_named_for_what_they_hold() -> None:
    names = {
        named(path): part
        for path in SOURCES
        for part in [*path.relative_to(ROOT).parts[3:-1], path.stem]
        if part in VAGUE
    }
    assert names == {}


@pytest.mark.parametrize(
    ("files", "limit"),
    [(SOURCES, LONGEST_FILE), (TESTS, LONGEST_TEST_FILE)],
    ids=["sources", "tests"],
)
def test_files_stay_short(files: list[Path], limit: int) -> None:
    lengths = {named(path): len(path.read_bytes().splitlines()) for path in files}
    assert {path: length for path, length in lengths.items() if length > limit} == {}


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines after signature and docstring."""
    body = function.body[1:] if ast.get_docstring(function, clean=False) else function.body
    return 0 if not body else (function.end_lineno or 0) - body[0].lineno + 1


def test_functions_stay_short() -> None:
    lengths = {
        f"{named(path)}:{function.lineno} {function.name}": body_lines(function)
        for path in SOURCES
        for function in functions(path)
    }
    assert {name: length for name, length in lengths.items() if length > LONGEST_FUNCTION} == {}


def undocumented(path: Path) -> Iterator[str]:
    """Yield public classes, functions and methods without a docstring; bodies of ``...`` are protocols."""
    tree = tree_of(path)
    if not ast.get_docstring(tree) and path.stem != "__main__":
        yield "module"
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in tree.body:
        if not isinstance(node, kinds) or node.name.startswith("_"):
            continue
        if not ast.get_docstring(node):
            yield node.name
        if not isinstance(node, ast.ClassDef):
            continue
        protocol = any("Protocol" in ast.unparse(base) for base in node.bases)
        for member in node.body:
            if (
                isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef)
                and not member.name.startswith("_")
                and not ast.get_docstring(member)
                and not protocol
                and not any("override" in ast.unparse(item) for item in member.decorator_list)
            ):
                yield f"{node.name}.{member.name}"


def test_public_names_are_documented() -> None:
    # Methods that fulfil an interface described elsewhere (torch, transformers) may do without.
    missing = {
        f"{named(path)}: {name}"
        for path in SOURCES
        for name in undocumented(path)
        if "." not in name
    }
    assert missing == set()


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('"""Module."""\ndef run():\n    pass\n', ["run"]),
        ('"""Module."""\ndef _run():\n    pass\n', []),
        ("class Thing:\n    pass\n", ["module", "Thing"]),
    ],
)
def test_the_docstring_check_finds_gaps(tmp_path: Path, source: str, expected: list[str]) -> None:
    file = tmp_path / "thing.py"
    file.write_text(source, encoding="utf-8")
    assert list(undocumented(file)) == expected


FORBIDDEN_WORDS = re.compile(
    r"/(?:work/|tmp/(?!\w*\bexample))|NotImplementedError|noqa: BLE|TODO|FIXME"
)


def test_sources_hold_no_stubs_and_no_paths_of_one_machine() -> None:
    found = {
        f"{named(path)}:{number}": line.strip()
        for path in SOURCES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if FORBIDDEN_WORDS.search(line)
    }
    assert found == {}


def broad_handlers(path: Path) -> Iterator[int]:
    """Yield lines of handlers that catch everything and neither raise nor look at what they caught."""
    for node in ast.walk(tree_of(path)):
        if not isinstance(node, ast.ExceptHandler):
            continue
        broad = node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
        inside = [inner for statement in node.body for inner in ast.walk(statement)]
        raises = any(isinstance(inner, ast.Raise) for inner in inside)
        looks = any(isinstance(inner, ast.Name) and inner.id == node.name for inner in inside)
        if broad and not raises and not looks:
            yield node.lineno


def test_no_exception_is_swallowed() -> None:
    found = {f"{named(path)}:{line}" for path in SOURCES for line in broad_handlers(path)}
    assert found == set()
