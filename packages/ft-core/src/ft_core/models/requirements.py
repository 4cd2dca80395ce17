"""Whether what a registered model needs beyond ft's own libraries is installed."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import Version

from ft_core.errors import DependencyError, ModelError
from ft_core.models.architectures import ARCHITECTURES
from ft_core.models.registry import ModelSpec

_OWN = ("transformers", "torch", "accelerate", "bitsandbytes")
"""Libraries whose release is ft's choice, not the model's."""

_READERS = (
    *("qwen_vl_utils", "qwen_omni_utils", "decord", "torchcodec", "librosa", "moviepy"),
    *("torchaudio", "soundfile", "av"),
)
"""Libraries that read images, videos and audios for code that comes with a model; ft reads them itself, by other means,
for models that transformers contains."""


def check_requirements(spec: ModelSpec, report: Callable[[str], None]) -> None:
    """Check a model's requirements before anything is downloaded.

    An upper bound on a library that ft itself needs says which release the model's own code was written
    for. Today's releases contain most of these models themselves, so it is passed on and doesn't stop.

    Args:
        spec: the registered model.
        report: is told of such bounds.

    Raises:
        DependencyError: a package is missing or too old.
        ModelError: the registry's requirement is none.
    """
    for text in spec.requires:
        try:
            wanted = Requirement(text)
        except InvalidRequirement as error:
            raise ModelError(f"model {spec.model_type!r} requires {text!r}: {error}") from error
        try:
            installed = version(wanted.name)
        except PackageNotFoundError as error:
            if wanted.name in _READERS and _is_in_transformers(spec):
                continue
            raise DependencyError(
                f"--model_type {spec.model_type}", text, f"pip install '{text}'"
            ) from error
        if wanted.specifier.contains(installed, prereleases=True):
            continue
        if wanted.name in _OWN and _is_upper_bound(wanted, installed):
            report(
                f"{spec.model_type} was published for {text} and {installed} is installed; if it brings code of "
                "its own, that may not run"
            )
            continue
        raise DependencyError(
            f"--model_type {spec.model_type}",
            f"{text} ({installed} is installed)",
            f"pip install '{text}'",
        )


def _is_in_transformers(spec: ModelSpec) -> bool:
    """Whether transformers contains the model, so that none of the code beside its weights is needed."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    if spec.architecture is None or spec.architecture not in ARCHITECTURES:
        return False
    names = ARCHITECTURES.get(spec.architecture).model_types
    return any(name in CONFIG_MAPPING_NAMES for name in names)


def _is_upper_bound(wanted: Requirement, installed: str) -> bool:
    """Whether it is only upper bounds and pins to older releases that the installed one exceeds."""
    missed = [
        bound for bound in wanted.specifier if not bound.contains(installed, prereleases=True)
    ]
    return all(
        bound.operator in ("<", "<=", "==") and Version(installed) >= Version(bound.version)
        for bound in missed
    )
