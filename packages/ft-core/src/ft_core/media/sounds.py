"""Reading audio."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from ft_core.errors import DependencyError
from ft_core.media.faults import MediaError
from ft_core.media.limits import MediaLimits
from ft_core.media.sources import read_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray


def open_audio(source: str, rate: int, limits: MediaLimits) -> NDArray[Any]:
    """Return an audio as one channel of float32 samples in [-1, 1].

    Args:
        source: path, address, data URI or base64 of a WAV, FLAC, OGG or MP3 file.
        rate: samples per second that are wanted.
        limits: what is read.

    Raises:
        MediaError: it is no audio, damaged, silent for want of samples, or too long.
        DependencyError: soundfile or soxr is not installed.
    """
    try:
        import soundfile
        import soxr
    except ImportError as error:
        raise DependencyError(
            "an audio", "soundfile and soxr", "pip install 'ft-core[media]'"
        ) from error
    content = read_bytes(source, limits)
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            if file.frames <= 0:
                raise MediaError("has no samples: nothing can be heard", source, "empty_audio")
            seconds = file.frames / file.samplerate
            if seconds > limits.max_seconds:
                raise MediaError(
                    f"lasts {seconds:,.0f} s, more than {limits.max_seconds:,.0f}",
                    source,
                    "too_large_media",
                )
            samples = file.read(dtype="float32", always_2d=True).mean(axis=1)
            own = file.samplerate
    except (soundfile.SoundFileError, RuntimeError, TypeError) as error:
        said = getattr(error, "error_string", "unknown")  # the message names an object in memory
        raise MediaError(
            f"is no audio that can be read ({said}); give WAV, FLAC, OGG or MP3",
            source,
            "unreadable_media",
        ) from error
    if not len(samples):
        raise MediaError("has no samples: nothing can be heard", source, "empty_audio")
    resampled: NDArray[Any] = samples if own == rate else soxr.resample(samples, own, rate)
    return resampled
