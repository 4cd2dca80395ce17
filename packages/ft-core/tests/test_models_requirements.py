"""Requirements of registered models, before anything is downloaded."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version

import pytest

from ft_core import DependencyError
from ft_core.models import MODELS, ModelSpec
from ft_core.models.requirements import check_requirements
from ft_core.templates import TEMPLATES


def spec(*requires: str) -> ModelSpec:
    return ModelSpec("m", huggingface_id="o/m", requires=requires)


def test_what_is_installed_passes() -> None:
    check_requirements(spec("pydantic>=2", "packaging"), pytest.fail)


def test_what_is_missing_or_too_old_is_named() -> None:
    with pytest.raises(
        DependencyError, match=r"--model_type m needs no_such_package>=1: pip install"
    ):
        check_requirements(spec("no_such_package>=1"), pytest.fail)
    with pytest.raises(DependencyError, match=r"pydantic>=99 \(.* is installed\)"):
        check_requirements(spec("pydantic>=99"), pytest.fail)


def test_an_old_upper_bound_on_transformers_is_passed_on() -> None:
    said: list[str] = []
    check_requirements(spec("transformers<4.34"), said.append)
    assert len(said) == 1 and "transformers<4.34" in said[0]


def test_a_pin_to_a_newer_release_stops() -> None:
    with pytest.raises(DependencyError, match=r"transformers==99\.1"):
        check_requirements(spec("transformers==99.1"), pytest.fail)
    with pytest.raises(DependencyError, match=r"transformers>=98,<99"):
        check_requirements(spec("transformers>=98,<99"), pytest.fail)
    with pytest.raises(DependencyError, match=r"pydantic<1"):
        check_requirements(spec("pydantic<1"), pytest.fail)


def test_todays_models_require_what_can_be_checked() -> None:
    """Every requirement is either met, passed on, or stops with the command that installs it."""
    said: list[str] = []
    stopped = 0
    for model in (MODELS.get(name) for name in MODELS):
        try:
            check_requirements(model, said.append)
        except DependencyError as error:
            stopped += 1
            assert error.install.startswith("pip install '")
            assert not error.package.startswith("transformers"), "no model here is newer than that"
    assert stopped and said


def test_what_reads_media_is_asked_for_only_where_code_beside_the_weights_needs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(name: str) -> str:
        if name in ("decord", "qwen_vl_utils"):
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr("ft_core.models.requirements.version", missing)
    asked = ("qwen_vl_utils", "decord")
    check_requirements(replace(spec(*asked), architecture="qwen2_5_vl"), pytest.fail)
    with pytest.raises(DependencyError, match="decord"):
        check_requirements(replace(spec("decord"), architecture="internvl_chat"), pytest.fail)


def test_models_that_see_and_are_in_transformers_ask_for_no_reader() -> None:
    readers = {"decord", "qwen_vl_utils", "qwen_omni_utils", "librosa"}
    passed = 0
    for model in map(MODELS.get, MODELS):
        wanted = tuple(item for item in model.requires if re.split("[<>=!]", item)[0] in readers)
        if model.architecture in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen2_audio") and wanted:
            check_requirements(replace(model, requires=wanted), pytest.fail)
            passed += 1
    assert passed > 20


def test_the_models_of_the_specification_are_all_there() -> None:
    specs = [MODELS.get(name) for name in MODELS if MODELS.get(name).era == "v2"]
    assert len(specs) == 409
    for model in specs:
        assert model.template in TEMPLATES, model.model_type
        assert model.ids, model.model_type
        for requirement in model.requires:
            check_requirements_parses(requirement)
        if isinstance(model.target_modules, str):
            re.compile(model.target_modules)


def check_requirements_parses(text: str) -> None:
    from packaging.requirements import Requirement

    assert Requirement(text).name
