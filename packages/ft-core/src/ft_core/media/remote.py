"""Fetching media from the internet without being led anywhere else.

Every address that a host's name stands for must be a public one, and the connection goes to an address that was
checked, so that a name which changes its meaning between check and use gains nothing. Redirects are not followed.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import httpcore

from ft_core.media.faults import MediaError
from ft_core.media.limits import RemoteRules


class _RefusedError(Exception):
    """An address that may not be connected to."""


class _CheckedBackend(httpcore.SyncBackend):
    """Connects to public addresses only, and to the very one that was checked."""

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        return super().connect_tcp(
            _public_address(host, port), port, timeout, local_address, socket_options
        )


def fetch(source: str, rules: RemoteRules, max_bytes: int) -> bytes:
    """Return what an address gives.

    Raises:
        MediaError: it may not be fetched, isn't there, or gives too much.
    """
    host = _host(source, rules)
    timeouts = dict.fromkeys(("connect", "read", "write", "pool"), rules.timeout)
    try:
        with (
            httpcore.ConnectionPool(network_backend=_CheckedBackend()) as pool,
            pool.stream(
                "GET",
                source,
                headers={"Host": host, "User-Agent": "ft", "Accept-Encoding": "identity"},
                extensions={"timeout": timeouts},
            ) as response,
        ):
            if response.status != 200:
                moved = (
                    "; it is moved, and redirects are not followed"
                    if response.status // 100 == 3
                    else ""
                )
                raise MediaError(f"answers {response.status}{moved}", source, "unreadable_media")
            content = bytearray()
            for piece in response.iter_stream():
                content += piece
                if len(content) > max_bytes:
                    raise MediaError(
                        f"gives more than {max_bytes:,} bytes", source, "too_large_media"
                    )
            return bytes(content)
    except _RefusedError as error:
        raise MediaError(str(error), source, "remote_media") from error
    except (
        httpcore.NetworkError,
        httpcore.TimeoutException,
        httpcore.ProtocolError,
        httpcore.UnsupportedProtocol,
        OSError,
        UnicodeError,
    ) as error:
        said = str(error) or type(error).__name__
        raise MediaError(f"can't be fetched: {said}", source, "unreadable_media") from error


def _host(source: str, rules: RemoteRules) -> str:
    try:
        parts = urlsplit(source)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise MediaError(f"is no address: {error}", source, "remote_media") from error
    if not host or parts.username is not None or parts.password is not None or "\\" in source:
        raise MediaError("is no plain address with a host's name", source, "remote_media")
    if rules.hosts is not None and not any(
        host == allowed or host.endswith(f".{allowed}") for allowed in map(str.lower, rules.hosts)
    ):
        raise MediaError(f"the host {host} is not among those allowed", source, "remote_media")
    name = f"[{host}]" if ":" in host else host
    return name if port is None else f"{name}:{port}"


def _public_address(host: str, port: int) -> str:
    found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    addresses = [str(item[4][0]) for item in found]
    for address in addresses:
        parsed = ipaddress.ip_address(address.partition("%")[0])
        mapped = getattr(parsed, "ipv4_mapped", None) or parsed
        if not mapped.is_global or mapped.is_multicast:
            raise _RefusedError(f"{host} stands for an address that is not public")
    return addresses[0]
