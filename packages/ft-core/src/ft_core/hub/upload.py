"""Publishing a directory in a repository of Hugging Face or ModelScope, by the hubs' own clients."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ft_core.errors import DependencyError, HubError, UsageError

PushHub = Literal["huggingface", "modelscope"]

TOKENS: dict[PushHub, tuple[str, ...]] = {
    "huggingface": ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"),
    "modelscope": ("MODELSCOPE_API_TOKEN",),
}
"""Environment variables that hold a hub's token."""

_NAMES: dict[PushHub, str] = {"huggingface": "Hugging Face", "modelscope": "ModelScope"}


@dataclass(frozen=True, slots=True)
class Destination:
    """A repository that files may be pushed to.

    Attributes:
        hub: where it is.
        repository: as ``owner/name``.
        token: may write there; never shown.
    """

    hub: PushHub
    repository: str
    token: str = field(repr=False)

    def __str__(self) -> str:
        return f"{self.repository} on {_NAMES[self.hub]}"


def open_destination(
    name: str, *, hub: PushHub, token: str | None = None, private: bool = False
) -> Destination:
    """Return a repository to push to; it is made if there is none.

    Args:
        name: ``owner/name``, or a name for the owner of the token.
        hub: where.
        token: may write there; ``None`` takes the environment's.
        private: whether a repository that is made is private.

    Raises:
        UsageError: there is no token.
        HubError: the hub can't be reached or refuses.
        DependencyError: the client of ModelScope is not installed.
    """
    secret = token or next((os.environ[n] for n in TOKENS[hub] if os.environ.get(n)), None)
    if secret is None:
        raise UsageError(
            f"--push_to_hub needs a token of {_NAMES[hub]}: give --hub_token, or set {TOKENS[hub][0]}"
        )
    with _in_our_words(hub, name):
        if hub == "huggingface":
            owner, made = _huggingface(name, secret, private)
        else:
            owner, made = _modelscope(name, secret, private)
    return Destination(hub, f"{owner}/{made}", secret)


def push(
    destination: Destination,
    directory: Path,
    *,
    message: str,
    under: str = "",
    leave_out: Sequence[str] = (),
) -> None:
    """Upload the files of a directory; those of the same name are replaced.

    Args:
        destination: as ``open_destination`` returns it.
        directory: whose files.
        message: of the commit.
        under: a folder of the repository to put them in.
        leave_out: patterns of names, such as ``"optimizer.pt"``.

    Raises:
        HubError: the hub can't be reached or refuses.
    """
    kept = f"; what is pushed is on disk in {directory}"
    with _in_our_words(destination.hub, destination.repository, kept):
        if destination.hub == "huggingface":
            from huggingface_hub import HfApi

            HfApi(token=destination.token).upload_folder(
                repo_id=destination.repository,
                folder_path=directory,
                path_in_repo=under or None,
                commit_message=message,
                ignore_patterns=list(leave_out),
            )
            return
        _client(destination.token).upload_folder(
            destination.repository,
            "model",
            directory,
            path_in_repo=under,
            commit_message=message,
            ignore_patterns=list(leave_out),
            disable_tqdm=True,
        )


def _huggingface(name: str, token: str, private: bool) -> tuple[str, str]:
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    owner, _, last = name.rpartition("/")
    owner = owner or str(api.whoami()["name"])
    api.create_repo(f"{owner}/{last}", private=private, exist_ok=True)
    return owner, last


def _modelscope(name: str, token: str, private: bool) -> tuple[str, str]:
    client = _client(token)
    owner, _, last = name.rpartition("/")
    owner = owner or str(client.whoami().username)
    if not client.repo_exists(f"{owner}/{last}", "model"):
        visibility = "private" if private else "public"
        client.create_repo(f"{owner}/{last}", "model", visibility=visibility)
    return owner, last


def _client(token: str) -> Any:
    """Return ModelScope's client.

    Raises:
        DependencyError: it is not installed.
    """
    try:
        from modelscope_hub import HubApi
    except ImportError as error:
        raise DependencyError(
            "--push_to_hub to ModelScope", "modelscope-hub", "pip install 'ft-core[modelscope]'"
        ) from error
    return HubApi(token=token)


@contextmanager
def _in_our_words(hub: PushHub, name: str, kept: str = "") -> Iterator[None]:
    """Turn the clients' errors into ours; ``kept`` says where work that was done is."""
    import httpx
    from huggingface_hub import errors

    known: tuple[type[Exception], ...] = (
        errors.HfHubHTTPError,
        errors.HFValidationError,
        errors.OfflineModeIsEnabled,
        httpx.TransportError,
        OSError,
    )
    if hub == "modelscope":
        _client("")  # says so if the client is missing
        from modelscope_hub.errors import HubError as ModelScopeError

        known = (ModelScopeError, OSError)
    try:
        yield
    except known as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
        raise HubError(
            f"{name} can't be pushed to {_NAMES[hub]}: {reason}. Check --hub_model_id, the token and the "
            f"network{kept}"
        ) from error
