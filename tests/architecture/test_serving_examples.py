"""The files of ``examples/serving`` fit the command they start, and each other."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from ft_core.command import Invocation
from ft_core.command.resolve import resolve
from ft_serve.deploy_command import COMMAND
from ft_serve.openai.app import make_app
from ft_serve.openai.arguments import DeployArguments, LimitArguments
from ft_serve.openai.front import Front

HERE = Path(__file__).parents[2] / "examples" / "serving"
UNIT = HERE / "ft-serve.service"


def deployed(words: Iterable[str]) -> Invocation:
    """Read the words after ``deploy`` as the command does."""
    command = replace(COMMAND, saved=None)  # there is no checkpoint to read arguments of
    return resolve(command, list(words), environ={}, warn=pytest.fail)


@pytest.fixture(scope="module")
def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", " ", (HERE / "Dockerfile").read_text(encoding="utf-8"))
    lines = (line for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1].strip()) for line in lines]


@pytest.fixture(scope="module")
def objects() -> dict[str, dict[str, Any]]:
    text = (HERE / "kubernetes.yaml").read_text(encoding="utf-8")
    return {item["kind"]: item for item in yaml.safe_load_all(text)}


@pytest.fixture(scope="module")
def container(objects: dict[str, dict[str, Any]]) -> dict[str, Any]:
    (found,) = objects["Deployment"]["spec"]["template"]["spec"]["containers"]
    return dict(found)


def entry_point(instructions: list[tuple[str, str]]) -> list[str]:
    (words,) = (yaml.safe_load(text) for name, text in instructions if name == "ENTRYPOINT")
    assert words[:2] == ["ft-serve", "deploy"]
    return list(words[2:])


def test_the_image_starts_a_server_as_nobody_in_particular(
    instructions: list[tuple[str, str]],
) -> None:
    known = {"ARG", "FROM", "ENV", "COPY", "RUN", "USER", "WORKDIR", "EXPOSE"}
    assert {name for name, _ in instructions} == known | {"STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT"}
    flags = deployed(entry_point(instructions)).get(DeployArguments)
    assert ("EXPOSE", str(flags.port)) in instructions
    (user,) = (text for name, text in instructions if name == "USER")
    assert int(user) > 0
    (check,) = (text for name, text in instructions if name == "HEALTHCHECK")
    assert f":{flags.port}/health/live" in check
    order = [name for name, _ in instructions]
    assert order.index("RUN") < order.index("USER") < order.index("ENTRYPOINT")


def test_the_unit_gives_the_server_time_to_stop() -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(UNIT, encoding="utf-8")
    program, command, *words = shlex.split(unit["Service"]["ExecStart"])
    assert (Path(program).name, command) == ("ft-serve", "deploy")
    invocation = deployed(words)
    assert invocation.get(DeployArguments).api_key == "@${CREDENTIALS_DIRECTORY}/keys"
    wait = invocation.get(LimitArguments).drain_timeout
    assert float(unit["Service"]["TimeoutStopSec"]) > wait + 10
    assert unit["Service"]["KillSignal"] == "SIGTERM"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_takes_the_unit() -> None:
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", UNIT], capture_output=True, text=True, check=False
    )
    assert "Unknown" not in result.stderr
    assert "parse" not in result.stderr


def test_the_cluster_asks_addresses_that_exist(
    container: dict[str, Any], objects: dict[str, dict[str, Any]]
) -> None:
    guard: Any = make_app(Front())
    routes = set(guard.app.openapi()["paths"])
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container[probe]["httpGet"]
        assert asked["path"] in routes
        assert asked["port"] in ports
    (service,) = objects["Service"]["spec"]["ports"]
    assert service["targetPort"] in ports
    labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert objects["Service"]["spec"]["selector"] == labels
    assert objects["Deployment"]["spec"]["selector"]["matchLabels"] == labels


def test_the_cluster_starts_the_images_command(
    container: dict[str, Any],
    objects: dict[str, dict[str, Any]],
    instructions: list[tuple[str, str]],
) -> None:
    invocation = deployed([*entry_point(instructions), *container["args"]])
    assert invocation.get(DeployArguments).port == container["ports"][0]["containerPort"]
    spec = objects["Deployment"]["spec"]["template"]["spec"]
    drain = invocation.get(LimitArguments).drain_timeout
    assert spec["terminationGracePeriodSeconds"] > drain + 10
    mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert set(mounted.values()) == {volume["name"] for volume in spec["volumes"]}
    assert "/keys" in mounted
    (user,) = (text for name, text in instructions if name == "USER")
    assert spec["securityContext"]["runAsUser"] == int(user)
