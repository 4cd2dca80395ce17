"""What a reference gives the answers of all samples: computed once, and kept under a name made of their content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from ft_align.ranks import gather
from ft_core.samples import Sample

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from ft_core.recipe import Batch

TOKENS = 4096
"""Of a forward pass of the reference; a longer sample has one of its own."""


class KnownReference(Sequence[Sample]):
    """Samples that know their answers' log-probabilities under a reference, as ``values["reference_0"]``, ….

    Args:
        samples: as they were encoded.
        sums: log-probability of each answer [samples, answers], in nats.
    """

    def __init__(self, samples: Sequence[Sample], sums: NDArray[Any]) -> None:
        self._samples, self._sums = samples, sums

    def __len__(self) -> int:
        return len(self._samples)

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Sample]: ...

    def __getitem__(self, index: int | slice) -> Sample | Sequence[Sample]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        sample = self._samples[index]
        known = {f"reference_{place}": float(v) for place, v in enumerate(self._sums[index])}
        return replace(sample, values={**sample.values, **known})

    def __iter__(self) -> Iterator[Sample]:
        return map(self.__getitem__, range(len(self)))


@dataclass(frozen=True, slots=True)
class ReferenceStore:
    """Log-probabilities on disk, one file for each content of rows and reference.

    Attributes:
        directory: where the files are.
        reference: names the reference by its content.
    """

    directory: Path
    reference: str

    def find(self, samples: Sequence[Sample]) -> KnownReference | None:
        """Return the samples with what was computed before; all ranks have it, or none."""
        import numpy as np

        file = self._file(samples)
        if not all(gather(file.is_file())):
            return None
        return KnownReference(samples, np.load(file))

    def compute(
        self,
        samples: Sequence[Sample],
        reference: torch.nn.Module,
        *,
        finish: Callable[[Batch], Batch] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> KnownReference:
        """Compute the log-probabilities, each rank a part of them, and keep them.

        Args:
            samples: with as many answers each.
            reference: on the device it computes on.
            finish: puts into a batch what the model sees and hears.
            progress: is told how many samples are done.
        """
        import numpy as np
        import torch.distributed as dist

        from ft_align.logprobs import answer_logprobs, collate_answers
        from ft_core.sequences import to_device
        from ft_core.sequences.isolation import language_model

        several = dist.is_available() and dist.is_initialized()
        rank, ranks = (dist.get_rank(), dist.get_world_size()) if several else (0, 1)
        device = language_model(reference).device
        own: dict[int, list[float]] = {}
        groups = _groups(samples)
        # The model of some runs is divided: every rank then makes as many calls.
        for turn in range(-(-len(groups) // ranks)):
            members = groups[min(turn * ranks + rank, len(groups) - 1)]
            batch = collate_answers([samples[index] for index in members])
            batch = batch if finish is None else finish(batch)
            sums = _without_gradients(answer_logprobs, reference, to_device(batch, device)).tolist()
            width = len(sums) // len(members)
            for place, index in enumerate(members):
                own[index] = sums[place * width : (place + 1) * width]
            if progress is not None:
                progress(len(own))
        found = {index: values for part in gather(own) for index, values in part.items()}
        table = np.array([found[index] for index in range(len(samples))], dtype=np.float64)
        if rank == 0:
            self._write(self._file(samples), table)
        return KnownReference(samples, table)

    def _file(self, samples: Sequence[Sample]) -> Path:
        return self.directory / f"{content_of(samples, self.reference)}.npy"

    def _write(self, file: Path, table: NDArray[Any]) -> None:
        import numpy as np

        self.directory.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(f".{os.getpid()}.partial")
        with partial.open("wb") as stream:
            np.save(stream, table)
        partial.replace(file)


def content_of(samples: Sequence[Sample], reference: str) -> str:
    """Return a name that changes with the tokens of any answer, and with the reference."""
    import numpy as np

    digest = hashlib.sha256(f"1\n{reference}\n".encode())
    for sample in samples:
        for tokens in sample.sequences:
            learned = np.asarray(tokens.loss_weights, dtype=np.float64) != 0
            digest.update(f"{int(sample.values['prompt'])} {len(tokens)}\n".encode())
            digest.update(np.asarray(tokens.input_ids, dtype="<i8").tobytes())
            digest.update(learned.tobytes())
            for item in tokens.media:
                digest.update(f"{item.kind} {item.source} {_state_of(item.source)}\n".encode())
    return digest.hexdigest()[:32]


def _state_of(source: str) -> str:
    """Return what changes with a file; of an address or data there is nothing to look at."""
    try:
        found = Path(source).stat()
    except (OSError, ValueError):
        return ""
    return f"{found.st_size} {found.st_mtime_ns}"


def content_of_model(directory: Path, *facts: str) -> str:
    """Return a name that changes with the weights and the configuration in a model's directory.

    Args:
        directory: the model's.
        *facts: what else decides about its numbers, such as its data type.
    """
    digest = hashlib.sha256("\n".join(facts).encode())
    for file in sorted(directory.iterdir()):
        if file.suffix in (".safetensors", ".bin", ".gguf") or file.name == "config.json":
            with file.open("rb") as stream:
                digest.update(file.name.encode())
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _groups(samples: Sequence[Sample]) -> list[list[int]]:
    """Put samples of like lengths together, up to ``TOKENS`` of them."""
    lengths = [sample.length for sample in samples]
    groups: list[list[int]] = []
    room = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if not groups or lengths[index] > room:
            groups.append([])
            room = TOKENS
        groups[-1].append(index)
        room -= lengths[index]
    return groups


def _without_gradients(call: Any, *arguments: Any) -> torch.Tensor:
    import torch

    with torch.no_grad():
        sums: torch.Tensor = call(*arguments).sums
    return sums
