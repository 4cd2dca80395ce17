"""Reading videos."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ft_core.errors import DependencyError
from ft_core.media.faults import MediaError
from ft_core.media.limits import MediaLimits
from ft_core.media.sources import read_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Video:
    """Frames of a video.

    Attributes:
        frames: [F, H, W, 3], bytes in RGB.
        rate: frames per second of the video.
        total: frames of the whole video.
        places: which of them these are.
    """

    frames: NDArray[Any]
    rate: float
    total: int
    places: tuple[int, ...]


Choose = Callable[[int, float], Iterable[int]]
"""Says which frames are taken, of how many and at how many per second."""


def spread(count: int) -> Choose:
    """Return what chooses so many frames, spread evenly over a video."""
    import numpy as np

    return lambda total, _: map(round, np.linspace(0, total - 1, min(count, total)).tolist())


def open_video(source: str, limits: MediaLimits, *, choose: Choose | None = None) -> Video:
    """Return frames of a video, in the order of the video.

    Args:
        source: path, address, data URI or base64 of a file that FFmpeg reads.
        limits: what is read.
        choose: which frames; all of them if ``None``. More than ``limits.max_frames`` are thinned out evenly.

    Raises:
        MediaError: it is no video, damaged, without frames, too long or too large.
        DependencyError: PyAV is not installed.
    """
    try:
        import av
        import numpy as np
    except ImportError as error:
        raise DependencyError("a video", "PyAV", "pip install 'ft-core[media]'") from error
    content = read_bytes(source, limits)
    try:
        with av.open(io.BytesIO(content)) as container:
            if not container.streams.video:
                raise MediaError("has no pictures", source, "unreadable_media")
            stream = container.streams.video[0]
            _check(stream, source, limits)
            rate = float(stream.average_rate or 24)
            total = stream.frames or sum(1 for _ in container.decode(stream))
            if not total:
                raise MediaError("has no frames", source, "unreadable_media")
            if total / rate > limits.max_seconds:
                raise MediaError(
                    f"lasts {total / rate:,.0f} s, more than {limits.max_seconds:,.0f}",
                    source,
                    "too_large_media",
                )
            wanted = range(total) if choose is None else choose(total, rate)
            places = sorted({min(int(place), total - 1) for place in wanted})
            if len(places) > limits.max_frames:
                places = [places[n] for n in spread(limits.max_frames)(len(places), rate)]
            container.seek(0)
            chosen = set(places)
            frames = [
                frame.to_ndarray(format="rgb24")
                for number, frame in enumerate(container.decode(stream))
                if number in chosen
            ]
    except (av.error.FFmpegError, ValueError, EOFError) as error:
        raise MediaError(
            f"is no video that can be read ({error})", source, "unreadable_media"
        ) from error
    if not frames:
        raise MediaError("has no frames", source, "unreadable_media")
    return Video(np.stack(frames), rate, total, tuple(places[: len(frames)]))


def _check(stream: Any, source: str, limits: MediaLimits) -> None:
    if stream.width * stream.height > limits.max_pixels:
        raise MediaError(
            f"has {stream.width:,} x {stream.height:,} pixels, more than {limits.max_pixels:,}",
            source,
            "too_large_media",
        )
