"""``ft eval``: ask benchmarks or questions of one's own, and say how sure the numbers are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ft_cli.commands.infer import GROUPS as INFER_GROUPS
from ft_core.arguments import (
    LoadingArguments,
    ModelArguments,
    QuantizationArguments,
    TemplateArguments,
)
from ft_core.checkpoints import list_checkpoints, open_checkpoint
from ft_core.command import Command, Invocation
from ft_core.errors import UsageError
from ft_core.prepare import Prepared, prepare, to_stderr
from ft_eval.arguments import EvalArguments
from ft_serve.arguments import LOADED_ADAPTER, CheckpointArguments, InferArguments
from ft_serve.infer_command import saved

if TYPE_CHECKING:
    from ft_eval.respondents.protocol import Respondent
    from ft_eval.work import Wait

GROUPS = (*INFER_GROUPS, EvalArguments)

WITHOUT_EFFECT = (
    "dataset",
    "val_dataset",
    "eval_human",
    "show_dataset_sample",
    "stream",
    "verbose",
    "result_file",
    "overwrite_generation_config",
    "max_new_tokens",
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "repetition_penalty",
    "num_beams",
)
"""Flags of infer that say nothing here: tasks say what is asked and how answers are generated."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A model that is evaluated: what is loaded, and which of its adapters answers.

    Attributes:
        name: what reports call it.
        adapter: name of the adapter; ``None`` for the model as it was loaded.
        weights: directory of the adapter; ``None`` without one.
        step: training step of a checkpoint.
    """

    name: str
    adapter: str | None = None
    weights: Path | None = None
    step: int | None = None


@dataclass(frozen=True, slots=True)
class Loaded:
    """Subjects on the same weights.

    Attributes:
        ckpt_dir: the checkpoint that is loaded; ``None`` loads the plain model.
        adapters: name and directory of further adapters.
        subjects: who is examined.
    """

    ckpt_dir: str | None
    adapters: Mapping[str, str]
    subjects: tuple[Subject, ...]


def run(invocation: Invocation) -> None:
    """Evaluate a server, or load models and evaluate them."""
    from ft_eval.evaluation import evaluate
    from ft_eval.serving import served
    from ft_eval.work import Work

    arguments = invocation.get(EvalArguments)
    seed = invocation.get(ModelArguments).seed
    work = Work(arguments, seed, invocation.argv, invocation.plain())
    for name in WITHOUT_EFFECT:
        if name in invocation.values and invocation.values[name].source in ("cli", "config", "env"):
            to_stderr(
                f"--{name} has no effect: tasks say what is asked and how answers are generated"
            )
    if arguments.eval_url is not None:
        model = invocation.get(ModelArguments).model_type
        evaluate(work, [partial(served, work, model)], steps={})
        return
    plan = plan_models(invocation)
    subjects = [subject for loaded in plan for subject in loaded.subjects]
    steps = {subject.name: subject.step for subject in subjects if subject.step is not None}
    over_http = arguments.eval_backend == "evalscope"
    if not over_http and invocation.values["deploy_timeout"].source in ("cli", "config", "env"):
        to_stderr("--deploy_timeout has no effect: the model is asked in this process")
    open_models = served_models if over_http else respondents
    evaluate(work, [partial(open_models, invocation, loaded) for loaded in plan], steps=steps)


def plan_models(invocation: Invocation) -> list[Loaded]:
    """Return what has to be loaded, with as many subjects as possible on the same weights.

    Raises:
        UsageError: names that come twice, or flags that can't work together.
    """
    further = invocation.get(InferArguments).adapters()
    wants_base = invocation.get(EvalArguments).eval_base
    given = invocation.get(CheckpointArguments).ckpt_dir
    if given is None:
        if wants_base and not further:
            raise UsageError(
                "--eval_base true compares with a checkpoint: give --ckpt_dir or --lora_modules"
            )
        named = tuple(Subject(name, name, Path(path)) for name, path in further.items())
        plain = (Subject(base_name(invocation)),) if wants_base or not further else ()
        return [Loaded(None, further, (*plain, *named))]
    checkpoints = checkpoints_of(given)
    first = checkpoints[0]
    adapters = {path.name: str(path) for path in checkpoints[1:]}
    if twice := set(adapters) & set(further):
        raise UsageError(f"--lora_modules {twice.pop()}=…: a checkpoint of {given} has this name")
    base = Subject(base_name(invocation))
    if any(open_checkpoint(path).whole for path in checkpoints):
        if further:
            raise UsageError(
                "--lora_modules needs adapters of one model, and --ckpt_dir holds whole models"
            )
        each = [Loaded(str(path), {}, (_subject(path, None),)) for path in checkpoints]
        return [Loaded(None, {}, (base,)), *each] if wants_base else each
    subjects = [_subject(first, LOADED_ADAPTER)]
    subjects += [_subject(path, path.name) for path in checkpoints[1:]]
    subjects += [Subject(name, name, Path(path)) for name, path in further.items()]
    loaded = Loaded(str(first), {**adapters, **further}, tuple(subjects))
    if not wants_base:
        return [loaded]
    return [Loaded(loaded.ckpt_dir, loaded.adapters, (base, *loaded.subjects))]


def checkpoints_of(directory: str) -> list[Path]:
    """Return a checkpoint itself, or all checkpoints of a run's directory in order of their steps."""
    path = Path(directory).expanduser()
    found = list_checkpoints(path) if path.is_dir() else []
    return found or [path]


def _subject(path: Path, adapter: str | None) -> Subject:
    _, _, number = path.name.rpartition("-")
    step = int(number) if number.isdecimal() else None
    return Subject(path.name, adapter, None if adapter is None else path, step)


def base_name(invocation: Invocation) -> str:
    """Return what the plain model is called."""
    model = invocation.get(ModelArguments)
    return model.model_type or Path(str(model.model_id_or_path)).name


@contextmanager
def respondents(
    invocation: Invocation, loaded: Loaded, wait: Wait
) -> Iterator[Sequence[Respondent]]:
    """Load weights, start the engine, and give a respondent for each subject on it."""
    from ft_eval.identity import weights_digest
    from ft_eval.respondents.engine import EngineRespondent
    from ft_serve.infer.loading import start_engine

    prepared = prepare(
        invocation.get(ModelArguments),
        invocation.get(TemplateArguments),
        ckpt_dir=loaded.ckpt_dir,
        given=invocation.set_by_a_person,
    )
    identity = identify(invocation, prepared)
    engine = start_engine(invocation, prepared, adapters=loaded.adapters, say=to_stderr)
    try:
        yield [
            EngineRespondent(
                subject.name,
                engine,
                prepared.chosen.template,
                identity
                if subject.weights is None
                else {**identity, "adapter": weights_digest(subject.weights)},
                adapter=subject.adapter if subject.adapter in engine.adapters else None,
                chat=asks_in_conversations(invocation, prepared),
            )
            for subject in loaded.subjects
        ]
    finally:
        wait(engine.close())


@contextmanager
def served_models(
    invocation: Invocation, loaded: Loaded, wait: Wait
) -> Iterator[Sequence[Respondent]]:
    """Start a server for backends that ask over HTTP, and give a respondent for each subject."""
    from ft_cli.deployed import deployed
    from ft_eval.respondents.url import connect

    arguments = invocation.get(EvalArguments)
    shared = bool(loaded.adapters) or any(subject.adapter for subject in loaded.subjects)
    with deployed(
        invocation,
        ckpt_dir=loaded.ckpt_dir,
        adapters=loaded.adapters,
        timeout=arguments.deploy_timeout,
        say=to_stderr,
    ) as server:
        found = [
            wait(
                connect(
                    server.url,
                    subject.adapter or (base_name(invocation) if shared else None),
                    title=subject.name,
                    chat=True,
                    token=server.token,
                    timeout=arguments.eval_timeout,
                    say=to_stderr,
                )
            )
            for subject in loaded.subjects
        ]
        try:
            yield found
        finally:
            for respondent in found:
                wait(respondent.close())


def identify(invocation: Invocation, prepared: Prepared) -> dict[str, Any]:
    """Return hashes of weights and chat format, and how the weights are loaded."""
    from ft_eval.identity import weights_digest

    how = prepared.how(
        invocation.get(ModelArguments),
        quantized=invocation.get(QuantizationArguments),
        loading=invocation.get(LoadingArguments),
        max_length=invocation.get(TemplateArguments).max_length,
    )
    whole = prepared.checkpoint is not None and prepared.checkpoint.whole
    directory = prepared.checkpoint.path if whole and prepared.checkpoint else prepared.directory
    template = prepared.chosen.template
    quantization = how.quantization or how.stored
    return {
        "model": prepared.name,
        "weights": weights_digest(directory),
        "template": template.name,
        "template_hash": template.fingerprint,
        "dtype": str(how.dtype.torch).removeprefix("torch."),
        "quantization": None if quantization is None else str(quantization),
        "engine": "pt",
    }


def asks_in_conversations(invocation: Invocation, prepared: Prepared) -> bool:
    """Whether the model is asked in conversations: said by a person, else by its chat format."""
    said = invocation.get(EvalArguments).eval_is_chat_model
    return (
        not prepared.chosen.template.name.startswith("default-generation") if said is None else said
    )


def saved_by_last(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Take over what the checkpoint, or a run's last one, was made with."""
    directory = values.get("ckpt_dir")
    if directory is None:
        return {}
    return saved({**values, "ckpt_dir": str(checkpoints_of(directory)[-1])})


COMMAND = Command(
    "eval",
    "Evaluate models on benchmarks or questions of your own, with intervals.",
    GROUPS,
    run,
    defaults={"max_length": -1},
    saved=saved_by_last,
    epilog="ft eval --ckpt_dir output/…/checkpoint-20 --eval_base true --custom_eval_config questions.json",
)
