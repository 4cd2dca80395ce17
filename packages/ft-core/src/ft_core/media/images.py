"""Reading images."""

from __future__ import annotations

import io
import math
import warnings
from typing import TYPE_CHECKING

from ft_core.errors import DependencyError
from ft_core.media.faults import MediaError
from ft_core.media.limits import MediaLimits
from ft_core.media.sources import read_bytes

if TYPE_CHECKING:
    from PIL import Image as PillowImage

_FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "ICO", "AVIF")
"""What is decoded; PIL knows more, some of which run other programs."""


def open_image(source: str, limits: MediaLimits) -> PillowImage.Image:
    """Return an image in RGB, upright and not larger than ``limits.rescale`` says.

    What kind of image it is shows in its content, whatever its name says. Colours of CMYK are converted.

    Args:
        source: path, address, data URI or base64.
        limits: what is read.

    Raises:
        MediaError: it is no image, damaged, cut off, too large, moves, or is a single line of pixels.
        DependencyError: Pillow is not installed.
    """
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError as error:
        raise DependencyError("an image", "Pillow", "pip install 'ft-core[media]'") from error
    content = read_bytes(source, limits)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # checked below
            Image.init()
            known = [name for name in _FORMATS if name in Image.OPEN]
            image = Image.open(io.BytesIO(content), formats=known)
        _check(image, source, limits)
        image.load()
        upright = ImageOps.exif_transpose(image).convert("RGB")
    except UnidentifiedImageError as error:
        raise MediaError(
            f"is no image that can be read ({_looks_like(content)}); give one of "
            f"{', '.join(_FORMATS)}",
            source,
            "unreadable_media",
        ) from error
    except Image.DecompressionBombError as error:
        raise MediaError(
            f"has far more pixels than {limits.max_pixels:,}; make it smaller",
            source,
            "too_large_media",
        ) from error
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, MemoryError) as error:
        cut = "truncated" in str(error) or "too few" in str(error) or isinstance(error, EOFError)
        what = "is cut off" if cut else "is damaged"
        raise MediaError(
            f"{what} ({error}); copy or fetch it again", source, "damaged_media"
        ) from error
    return _rescaled(upright, limits.rescale)


def _check(image: PillowImage.Image, source: str, limits: MediaLimits) -> None:
    """Look at what is known before anything is decoded."""
    width, height = image.size
    if width * height > limits.max_pixels:
        raise MediaError(
            f"has {width:,} x {height:,} pixels, more than {limits.max_pixels:,}; make it smaller",
            source,
            "too_large_media",
        )
    if min(width, height) < 2:
        raise MediaError(
            f"has {width} x {height} pixels, on which nothing can be seen", source, "tiny_image"
        )
    frames = int(getattr(image, "n_frames", 1))
    if frames > 1 and image.format != "MPO":  # phones store a second view of a photo so
        raise MediaError(
            f"has {frames} pictures; save the one that is meant, or give it as a video",
            source,
            "animated_image",
        )


def _rescaled(image: PillowImage.Image, most: int | None) -> PillowImage.Image:
    width, height = image.size
    if most is None or width * height <= most:
        return image
    share = math.sqrt(most / (width * height))
    return image.resize((max(int(width * share), 2), max(int(height * share), 2)))


def _looks_like(content: bytes) -> str:
    """Say what a file that is no image seems to be."""
    if content[:4] == b"RIFF" and content[8:12] == b"WAVE":
        return "it looks like an audio"
    if content[4:8] == b"ftyp" or content[:4] == b"\x1aE\xdf\xa3":
        return "it looks like a video"
    if content[:5] == b"%PDF-":
        return "it looks like a PDF"
    if content.lstrip()[:1] == b"<":
        return "it looks like a web page or a drawing in SVG"
    return f"it begins with {content[:8]!r}"
