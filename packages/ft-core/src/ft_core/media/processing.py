"""A model's own processor: what it makes of media, and the tokens that stand for them."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ft_core.errors import DataError, DependencyError, ModelError
from ft_core.media.families import MediaFamily, family_of
from ft_core.media.grounding import Size
from ft_core.media.images import open_image
from ft_core.media.limits import MediaLimits
from ft_core.media.loading import load_processor, read_processor_settings
from ft_core.media.sounds import open_audio
from ft_core.media.sources import read_bytes
from ft_core.media.videos import Video, open_video, spread
from ft_core.samples import Medium, MediumKind

if TYPE_CHECKING:
    import torch

    from ft_core.media.marks import Place

Features = dict[str, "torch.Tensor"]
"""What a model gets beside token ids, by the name of its argument."""

_IDS = frozenset(
    {
        "input_ids",
        "attention_mask",
        "mm_token_type_ids",
        "token_type_ids",
        "text_replacement_offsets",
    }
)
_REMEMBERED_BYTES = 128 << 20
# Part of the fingerprint; goes up whenever the same media would give other tokens.
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Source:
    """A medium by what it is and where it comes from."""

    kind: MediumKind
    source: str


@dataclass(frozen=True, slots=True)
class Processed:
    """Media of one sequence.

    Attributes:
        texts: what is written in place of each of them.
        features: what the model gets of all of them.
    """

    texts: tuple[str, ...]
    features: Features


class MediaProcessor:
    """The processor of one model. It is loaded when it is first needed, also in another process.

    Args:
        directory: of the model.
        limits: what is read.
    """

    def __init__(self, directory: Path, limits: MediaLimits | None = None) -> None:
        self._directory = directory
        self.limits = limits or MediaLimits()
        self._settings = read_processor_settings(directory)
        self._remembered: OrderedDict[tuple[Source, ...], Processed] = OrderedDict()
        self._lock = threading.RLock()  # engines prepare prompts in several threads

    def __reduce__(self) -> tuple[Any, ...]:
        return MediaProcessor, (self._directory, self.limits)

    @property
    def directory(self) -> Path:
        """Where its files are."""
        return self._directory

    @cached_property
    def fingerprint(self) -> str:
        """Changes whenever the same media would give other tokens."""
        facts = [_VERSION, self._settings, self.limits.rescale, self.limits.max_frames]
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()

    @cached_property
    def _loaded(self) -> Any:
        return load_processor(self._directory)

    @property
    def library(self) -> Any:
        """The processor of transformers."""
        with self._lock:
            return self._loaded

    @cached_property
    def family(self) -> MediaFamily:
        """What is particular to its models."""
        return family_of(type(self.library).__name__)

    @cached_property
    def kinds(self) -> frozenset[MediumKind]:
        """What it takes."""
        library = self.library
        have: dict[MediumKind, tuple[str, ...]] = {
            "image": ("image_processor",),
            "video": ("video_processor",),
            "audio": ("feature_extractor", "audio_processor"),
        }
        return frozenset(
            kind
            for kind, names in have.items()
            if any(getattr(library, name, None) is not None for name in names)
            and self.placeholder(kind)
        )

    def require(self, kind: str) -> None:
        """Look whether what would make it take a kind is installed.

        Raises:
            DependencyError: its models take videos, and torchvision, which transformers makes tensors of them with, is
                missing.
        """
        from transformers.utils import is_torchvision_available

        lacks = kind == "video" and getattr(type(self.library), "lacks_video", False)
        if lacks and not is_torchvision_available():
            raise DependencyError(
                "a video",
                "torchvision, built for the torch that is installed",
                "pip install 'ft-core[video]'",
            )

    def placeholder(self, kind: str) -> str:
        """Return the text that the processor puts the tokens of a medium in place of; empty if it takes none."""
        return str(getattr(self.library, f"{kind}_token", None) or "")

    def process(self, places: Sequence[Place | Source | Medium]) -> Processed:
        """Return the tokens and features of the media of one sequence.

        Raises:
            DataError: a medium can't be used; the message names it.
        """
        key = tuple(Source(item.kind, item.source) for item in places)
        with self._lock:
            known = self._remembered.pop(key, None)
            if known is None:
                known = self._process(key)
            self._remember(key, known)
        return known

    def resized(self, source: str) -> Size:
        """Return the width and height of an image as the model gets it.

        Raises:
            DataError: the image can't be used.
        """
        grid = self.process([Source("image", source)]).features.get("image_grid_thw")
        if grid is None:
            return open_image(source, self.limits).size
        patch = self.library.image_processor.patch_size
        return int(grid[0, 2]) * patch, int(grid[0, 1]) * patch

    def as_file(self, kind: MediumKind, source: str) -> tuple[str, bytes]:
        """Return a medium as a file that other programs read as this processor does, with its type.

        An image is as large as ``--rescale_image`` leaves it, an audio has the model's rate.

        Raises:
            MediaError: it can't be used.
        """
        file = io.BytesIO()
        if kind == "image":
            open_image(source, self.limits).save(file, "PNG")
            return "image/png", file.getvalue()
        if kind == "audio":
            import soundfile

            samples = open_audio(source, self._audio_rate, self.limits)
            soundfile.write(file, samples, self._audio_rate, format="WAV", subtype="FLOAT")
            return "audio/wav", file.getvalue()
        open_video(source, self.limits, choose=spread(1))  # whether it is one, within the limits
        return "video/mp4", read_bytes(source, self.limits)

    def token_types(self, ids: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
        """Return the types of tokens [D, L] that the model wants to be told, by the name of its argument."""
        import torch

        names = set(self.library.model_input_names) & {"mm_token_type_ids", "token_type_ids"}
        return {
            name: torch.tensor(self.library.create_mm_token_type_ids([list(row) for row in ids]))
            for name in names
        }

    def _process(self, sources: Sequence[Source]) -> Processed:
        opened = [(item.kind, self._open(item)) for item in sources]
        if self.family.tells_replacements:
            output = self._call("".join(self.placeholder(item.kind) for item in sources), opened)
            offsets = output.get("text_replacement_offsets")
            if offsets is None or len(offsets[0]) != len(sources):
                raise ModelError(
                    f"{type(self.library).__name__} doesn't say which tokens stand for media; it can't be used here"
                )
            texts = tuple(str(item["replacement"]) for item in offsets[0])
        else:
            output = self._call("".join(self.placeholder(item.kind) for item in sources), opened)
            texts = tuple(
                self._written_ids(self._call(self.placeholder(kind), [(kind, content)]))
                for kind, content in opened
            )
        return Processed(texts, {k: _tensor(v) for k, v in output.items() if k not in _IDS})

    def _written_ids(self, output: Any) -> str:
        return str(self.library.tokenizer.decode(output["input_ids"][0], skip_special_tokens=False))

    def _open(self, item: Source) -> Any:
        if item.kind == "image":
            return open_image(item.source, self.limits)
        if item.kind == "audio":
            return open_audio(item.source, self._audio_rate, self.limits)
        return open_video(item.source, self.limits, choose=self._frames)

    @property
    def _audio_rate(self) -> int:
        library = self.library
        extractor = getattr(library, "feature_extractor", None) or library.audio_processor
        return int(getattr(extractor, "sampling_rate", 16_000))

    def _frames(self, total: int, rate: float) -> Iterable[int]:
        """Return the frames that the processor itself takes of a video, else a few spread over it."""
        from transformers.video_utils import VideoMetadata

        videos = self.library.video_processor
        per_second = self.family.video_rate
        if not (videos.do_sample_frames or per_second):
            return spread(videos.num_frames or self.family.video_frames)(total, rate)
        asked = (
            {"num_frames": videos.num_frames} if videos.do_sample_frames else {"fps": per_second}
        )
        facts = VideoMetadata(total_num_frames=total, fps=rate, duration=total / rate)
        with _refusing():
            chosen = videos.sample_frames(metadata=facts, **asked)
        return [int(place) for place in chosen]

    def _call(self, text: str, opened: Sequence[tuple[MediumKind, Any]]) -> Any:
        """Call the processor on media of one sequence, whose placeholders are the text."""
        images = [content for kind, content in opened if kind == "image"]
        audios = [content for kind, content in opened if kind == "audio"]
        videos: list[Video] = [content for kind, content in opened if kind == "video"]
        given: dict[str, Any] = {}
        if images:
            given["images"] = [images] if self.family.tells_replacements else images
        if audios:
            given["audio"] = audios
            given["sampling_rate"] = self._audio_rate
        if videos:
            given["videos"] = [[video.frames for video in videos]]
            given["video_metadata"] = [[_metadata(video) for video in videos]]
            given["do_sample_frames"] = False
        if self.family.tells_replacements:
            given["return_text_replacement_offsets"] = True
        try:
            with _refusing():
                return self.library(
                    text=[text], add_special_tokens=False, return_tensors="pt", **given
                )
        except ImportError as error:
            said = str(error).strip().partition("\n")[0]
            raise DependencyError(
                f"{type(self.library).__name__}", f"a package ({said})", "install it"
            ) from error

    def _remember(self, key: tuple[Source, ...], processed: Processed) -> None:
        """Keep what was made last: rows are encoded and batched right after each other in a worker."""
        self._remembered[key] = processed
        while (
            len(self._remembered) > 1
            and sum(map(_size, self._remembered.values())) > _REMEMBERED_BYTES
        ):
            self._remembered.popitem(last=False)


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """Name the row as what is wrong where a processor can't take its media."""
    try:
        yield
    except (ValueError, TypeError, RuntimeError, IndexError, ZeroDivisionError) as error:
        raise DataError(
            f"the model's processor refuses the media of this row: {error}", rule="processor"
        ) from error


def _metadata(video: Video) -> dict[str, Any]:
    return {
        "total_num_frames": video.total,
        "fps": video.rate,
        "frames_indices": list(video.places),
        "duration": video.total / video.rate,
        "height": video.frames.shape[1],
        "width": video.frames.shape[2],
    }


def _tensor(value: Any) -> torch.Tensor:
    import torch

    if isinstance(value, torch.Tensor):
        return value
    return torch.as_tensor(value)


def _size(processed: Processed) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in processed.features.values())


__all__ = ["Features", "MediaProcessor", "Processed", "Source"]
