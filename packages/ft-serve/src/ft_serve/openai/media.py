"""Images, videos and audios in requests: what may be sent, and how large it may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final

from ft_core.command.group import ArgumentGroup, flag
from ft_core.errors import UsageError
from ft_core.examples import Part
from ft_core.media import MediaLimits, MediaProcessor, MediaTemplate, RemoteRules
from ft_core.prepare import Prepared
from ft_serve.openai.errors import ApiError

_KINDS: Final[Mapping[str, str]] = {
    "image_url": "image",
    "video_url": "video",
    "audio_url": "audio",
    "input_audio": "audio",
}


class MediaServingArguments(ArgumentGroup):
    """Images, videos and audios in requests."""

    title: ClassVar[str] = "media in requests"

    media_hosts: list[str] = flag([], commas=True)
    """Hosts whose addresses in requests are fetched, with their subdomains; none fetches no address, so that media come in requests themselves."""

    max_media: int = flag(16, ge=1)
    """Most images, videos and audios of one request."""

    max_media_bytes: int = flag(20 * 2**20, ge=1024)
    """Largest image, video or audio."""

    max_media_pixels: int = flag(33_000_000, ge=1024)
    """Most pixels of an image, or of a video's frame."""

    max_media_seconds: float = flag(600.0, gt=0)
    """Longest video or audio."""

    def rules(self) -> MediaRules:
        """Return them as the server takes them."""
        return MediaRules(
            tuple(self.media_hosts),
            self.max_media,
            MediaLimits(
                max_bytes=self.max_media_bytes,
                max_pixels=self.max_media_pixels,
                max_seconds=self.max_media_seconds,
                remote=RemoteRules(tuple(self.media_hosts)) if self.media_hosts else None,
                files=False,
            ),
        )

    def check(self, given: frozenset[str]) -> None:
        """Refuse addresses where names of hosts belong."""
        for host in self.media_hosts:
            if "/" in host or ":" in host:
                raise UsageError(
                    f"--media_hosts {host}: give the host's name alone, such as example.org"
                )


@dataclass(frozen=True, slots=True)
class MediaRules:
    """What requests may bring.

    Attributes:
        hosts: whose addresses are fetched; none fetches no address.
        most: media of one request.
        limits: of each.
    """

    hosts: tuple[str, ...] = ()
    most: int = 16
    limits: MediaLimits = field(default_factory=lambda: MediaLimits(files=False))

    def part(self, given: Mapping[str, Any], place: str) -> Part:
        """Return a part as templates take it.

        Args:
            given: ``{"type": "image_url", "image_url": {"url": …}}`` and its like.
            place: of the part in the request.

        Raises:
            ApiError: it brings nothing, or something that may not be read.
        """
        kind = _KINDS.get(str(given["type"]))
        if kind is None:
            raise _refused(f"{place} is {given['type']}, which is not taken")
        source = _source(given, str(given["type"]))
        if source is None:
            raise _refused(f"{place} brings no {kind}")
        if source[:5].lower() != "data:":
            if source[:7].lower() != "http://" and source[:8].lower() != "https://":
                raise _refused(f"{place}: send the {kind} as a data URI; files are not read")
            if not self.hosts:
                raise _refused(
                    f"{place}: this server fetches no addresses; send the {kind} as a data URI"
                )
        return {"type": kind, kind: source}


def serving(prepared: Prepared, rules: MediaRules) -> Prepared:
    """Return a model whose processor reads what requests may bring and nothing else."""
    template = prepared.chosen.template
    if prepared.media is None or not isinstance(template, MediaTemplate):
        return prepared
    limits = replace(rules.limits, rescale=prepared.media.limits.rescale)
    processor = MediaProcessor(prepared.media.directory, limits)
    chosen = replace(prepared.chosen, template=MediaTemplate(template.inner, processor))
    return replace(prepared, chosen=chosen, media=processor)


def _source(given: Mapping[str, Any], kind: str) -> str | None:
    value = given.get(kind)
    if isinstance(value, Mapping) and kind == "input_audio":
        data = value.get("data")
        return f"data:audio/{value.get('format') or '*'};base64,{data}" if data else None
    if isinstance(value, Mapping):
        value = value.get("url")
    return value if isinstance(value, str) and value else None


def _refused(message: str) -> ApiError:
    return ApiError(400, message, param="messages", code="invalid_media")
