"""``ft-serve deploy``: an OpenAI-compatible server of one model and its adapters."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ft_core.arguments import ModelArguments, TemplateArguments
from ft_core.command import Command, Invocation
from ft_core.errors import UsageError
from ft_core.prepare import Prepared, prepare, to_stderr
from ft_serve.arguments import CheckpointArguments, InferArguments
from ft_serve.infer_command import COMMAND as INFER
from ft_serve.infer_command import PromptArguments, saved
from ft_serve.openai.arguments import DeployArguments, LimitArguments
from ft_serve.openai.media import MediaServingArguments

if TYPE_CHECKING:
    from ft_serve.openai.guard import Access
    from ft_serve.openai.served import Served
    from ft_serve.openai.server import Address

SERVER_GROUPS = (DeployArguments, LimitArguments, MediaServingArguments)
"""What deploy has beyond infer."""

DEFAULTS = {"max_length": -1, "verbose": True}

OF_INFER_ALONE = frozenset(
    {
        *("eval_human", "show_dataset_sample", "stream", "result_file", "prompts"),
        *("dataset", "val_dataset", "dataset_seed", "dataset_test_ratio", "load_dataset_config"),
    }
)
"""Flags that deploy takes because infer does, and that change nothing here."""


def run(invocation: Invocation) -> None:
    """Serve the model that the flags name."""

    def prepared() -> Prepared:
        return prepare(
            invocation.get(ModelArguments),
            invocation.get(TemplateArguments),
            ckpt_dir=invocation.get(CheckpointArguments).ckpt_dir,
            given=invocation.set_by_a_person,
        )

    serve(invocation, prepared)


def serve(invocation: Invocation, prepare_model: Callable[[], Prepared]) -> None:
    """Listen, load the model, and answer until a signal comes.

    Args:
        invocation: has the groups of ``COMMAND``.
        prepare_model: finds the model; is called once the address is taken.
    """
    from ft_serve.openai.app import make_app
    from ft_serve.openai.front import Front
    from ft_serve.openai.loading import load_served
    from ft_serve.openai.server import Server, log_to_stderr

    flags = invocation.get(DeployArguments)
    address = _address(flags)
    access = _access(invocation, address)
    _say_what_has_no_effect(invocation)
    listening = address.listen()
    log_to_stderr()
    front = Front(invocation.get(LimitArguments).limits())
    server = Server(make_app(front, access), front, address, listening, to_stderr)

    def ready(served: Served) -> None:
        names = ", ".join(card.id for card in served.cards())
        to_stderr(f"ready: {address.url(listening)} answers as {names}")

    server.run(
        lambda: load_served(invocation, prepare_model()), ready, log_interval=flags.log_interval
    )


def _address(flags: DeployArguments) -> Address:
    from ft_serve.openai.server import Address

    return Address(flags.host, flags.port, flags.ssl_keyfile, flags.ssl_certfile)


def _access(invocation: Invocation, address: Address) -> Access:
    from ft_serve.openai.guard import Access
    from ft_serve.openai.keys import Keys, read_keys

    flags = invocation.get(DeployArguments)
    keys = None if flags.api_key is None else Keys(read_keys(flags.api_key))
    verbose = bool(invocation.get(InferArguments).verbose)
    hosts = None
    if address.loopback:
        hosts = address.hosts.union(name.lower() for name in flags.allowed_hosts)
    else:
        verbose = verbose and invocation.given("verbose")
        hosts = frozenset(map(str.lower, flags.allowed_hosts)) or None
        if keys is None:
            bar = "!" * 78
            to_stderr(
                f"{bar}\n"
                f"--host {address.host} without --api_key: WHOEVER REACHES THIS ADDRESS CAN USE THE MODEL.\n"
                "Set FT_API_KEY, or give --api_key @FILE, unless something in front of it asks for a key.\n"
                f"{bar}"
            )
    return Access(keys, hosts, verbose)


def _say_what_has_no_effect(invocation: Invocation) -> None:
    strategy = invocation.get(TemplateArguments).truncation_strategy
    if invocation.given("truncation_strategy") and strategy != "delete":
        raise UsageError(
            f"--truncation_strategy {strategy}: a server doesn't cut requests; it refuses those that are too long"
        )
    for name in sorted(OF_INFER_ALONE & invocation.values.keys()):
        if invocation.values[name].source in ("cli", "config", "env"):
            to_stderr(f"--{name} has no effect: a server answers what it is asked")


COMMAND = Command(
    "deploy",
    "Serve a model over HTTP, as OpenAI's clients expect it.",
    (*(group for group in INFER.groups if group is not PromptArguments), *SERVER_GROUPS),
    run,
    defaults=DEFAULTS,
    saved=saved,
    elsewhere=INFER.elsewhere,
    epilog="FT_API_KEY=… ft-serve deploy --ckpt_dir /models/support-bot --host 0.0.0.0",
)
