"""Who may see a page: the address it is served on, and its password."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
from base64 import b64decode
from binascii import Error as Base64Error
from dataclasses import dataclass

from ft_core.errors import UsageError


@dataclass(frozen=True, slots=True)
class Password:
    """What a person signs in with."""

    user: str
    word: str

    def matches(self, header: str) -> bool:
        """Whether an ``Authorization`` header has both, compared in constant time."""
        scheme, _, encoded = header.partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            given = b64decode(encoded.strip(), validate=True)
        except (Base64Error, ValueError):
            return False
        return hmac.compare_digest(given, f"{self.user}:{self.word}".encode())


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what is served on ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def choose_password(given: str | None, host: str, *, share: bool) -> tuple[Password | None, bool]:
    """Return the password of a page and whether it was made up here.

    A page that only this machine reaches needs none; every other one has one.

    Args:
        given: ``user:password`` as a person wrote it.
        host: the address it is served on.
        share: whether it is also reached from the internet.

    Raises:
        UsageError: ``given`` isn't a user and a password.
    """
    if given is not None:
        user, colon, word = given.partition(":")
        if not (user and colon and word):
            raise UsageError(
                "--auth: write user:password, or set FT_UI_AUTH so that it shows in no process list"
            )
        return Password(user, word), False
    if is_loopback(host) and not share:
        return None, False
    return Password("ft", secrets.token_urlsafe(12)), True


def allowed_hosts(host: str) -> frozenset[str]:
    """Return the names a browser may call the server by, without the port.

    A page of another site that resolves its own name to this machine (DNS rebinding) shows up with that
    name; addresses written as numbers can't, so they are always allowed.
    """
    names = {"localhost", host.strip("[]").lower()}
    if not is_loopback(host):
        names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
    return frozenset(names)


def host_name(header: str) -> str:
    """Return the host of a ``Host`` header without its port."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.rpartition(":")[0].lower() if ":" in header else header.lower()


def is_address(name: str) -> bool:
    """Whether a host is written as numbers."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
