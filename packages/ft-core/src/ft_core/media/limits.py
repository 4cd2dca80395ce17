"""How large media may be, and where they may come from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class RemoteRules:
    """Which addresses are fetched. Only public internet addresses ever are.

    Attributes:
        hosts: names of hosts, which stand for their subdomains too; ``None`` allows all.
        timeout: seconds until a connection or a piece of data has to be there.
    """

    hosts: tuple[str, ...] | None = None
    timeout: float = 5.0


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """What is read. The defaults suit rows that somebody trains on; a server gives narrower ones.

    Attributes:
        max_bytes: of one file.
        max_pixels: of one image, or of one frame of a video; more is taken for a decompression bomb.
        max_seconds: of one audio or video.
        max_frames: that are taken of one video.
        rescale: images with more pixels are made smaller, to so many (``--rescale_image``); ``None`` leaves them.
        remote: which addresses are fetched; ``None`` fetches none.
        root: files are only read below this folder; ``None`` reads all.
        files: whether files are read at all.
    """

    max_bytes: int = 512 << 20
    max_pixels: int = 89_478_485
    max_seconds: float = 3600.0
    max_frames: int = 768
    rescale: int | None = None
    remote: RemoteRules | None = None
    root: Path | None = None
    files: bool = True
