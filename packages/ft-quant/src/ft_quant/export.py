"""Making what an export asks for, each result proven before it gets its name."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ft_core.arguments import GenerationArguments
from ft_core.checkpoints import atomic_directory
from ft_core.prepare import Prepared, Say
from ft_core.registry import load_object
from ft_quant.card import write_card
from ft_quant.dtypes import stored_dtype_name
from ft_quant.export_arguments import ConvertArguments, ProofArguments, QuantizeArguments
from ft_quant.merge import merge_checkpoint
from ft_quant.methods import QuantMethod
from ft_quant.methods.request import QuantizeRequest
from ft_quant.plan import Kind, Plan
from ft_quant.proof.measure import Texts
from ft_quant.proof.prove import Source, prove_merge, settle
from ft_quant.proof.verdict import PERPLEXITY_BOUNDS, Proof
from ft_quant.provenance import origin_of, write_record
from ft_quant.sidecars import write_around

_QUANTIZERS: dict[QuantMethod, str] = {
    "awq": "ft_quant.methods.gptqmodel:quantize",
    "gptq": "ft_quant.methods.gptqmodel:quantize",
    "bnb": "ft_quant.methods.bnb:quantize",
    "rtn": "ft_quant.methods.compressed:quantize",
    "fp8": "ft_quant.methods.compressed:quantize",
}


@dataclass(frozen=True, slots=True)
class ExportJob:
    """Everything an export needs.

    Attributes:
        prepared: the model, its tokenizer and chat format.
        plan: what is made.
        texts: what results are measured on and calibrated with.
        quantize: how weights are quantized.
        convert: which other forms are made.
        proof: how results are checked.
        sampling: what a Modelfile says of sampling.
        merge_device: where an adapter is merged.
        safetensors: whether the merged model is written as safetensors.
        say: is told what takes long.
        max_length: tokens of context that a person asked for; -1 if they didn't.
    """

    prepared: Prepared
    plan: Plan
    texts: Texts
    quantize: QuantizeArguments
    convert: ConvertArguments
    proof: ProofArguments
    sampling: GenerationArguments
    say: Say
    merge_device: str | None = None
    safetensors: bool = True
    max_length: int = -1


@dataclass(frozen=True, slots=True)
class Made:
    """A result.

    Attributes:
        kind: what it is.
        path: its directory.
        size: bytes of all its files.
        seconds: it took to make, without the verification.
        proof: how it compares with its source; ``None`` where that wasn't asked for or makes no sense.
    """

    kind: Kind
    path: Path
    size: int
    seconds: float
    proof: Proof | None = None

    def __str__(self) -> str:
        """One line for a terminal."""
        line = f"{self.kind:<10} {self.path} ({self.size / 1e6:,.1f} MB, {self.seconds:.0f} s)"
        return line if self.proof is None else f"{line}\n           {self.proof}"


def export(job: ExportJob) -> list[Made]:
    """Make what the plan says.

    Raises:
        ModelError: the model can't be read, or a result is broken (and ``--force`` isn't given).
        DependencyError: what a method needs is not installed.
        FtError: a result can't be written; nothing is left under its name.
    """
    made: list[Made] = []
    targets = job.plan.targets
    if "peft" in targets:
        made.append(_make(job, "peft", "ft_quant.peft_format:write_peft"))
    if "gguf" in targets and job.convert.gguf_adapter:
        made.append(_make(job, "gguf", "ft_quant.gguf.adapter:write_adapter"))
    if not {*targets} - {item.kind for item in made}:
        return made
    with _whole_model(job, made) as directory:
        source = Source(directory, job.texts, python=None)
        if "quantized" in targets:
            made.append(_quantize(job, source))
        if "gguf" in targets and not job.convert.gguf_adapter:
            made.append(_to_gguf(job, source))
        if "ollama" in targets:
            made.append(_make(job, "ollama", "ft_quant.ollama.write:write_modelfile"))
    return made


@contextmanager
def _whole_model(job: ExportJob, made: list[Made]) -> Iterator[Path]:
    """Give the directory of the whole model: merged for good, merged for now, or as it is."""
    if not job.plan.merges:
        yield job.prepared.directory
        return
    if job.plan.keeps_merged:
        made.append(_merge(job))
        yield made[-1].path
        return
    parent = next(iter(job.plan.targets.values())).parent
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".merging-", dir=parent) as scratch:
        target = Path(scratch, "merged")
        _write_merged(job, target, safetensors=True, finish=None)
        yield target


def _merge(job: ExportJob) -> Made:
    target = job.plan.targets["merged"]
    started = time.perf_counter()
    found: list[Proof | None] = []

    def finish(directory: Path) -> None:
        seconds = time.perf_counter() - started
        write_around(job.prepared, directory, compat=job.proof.compat)
        proof = prove_merge(job, directory) if job.proof.verify else None
        found.append(proof)
        _complete(
            job,
            directory,
            "merged",
            how=f"{job.prepared.name} with its adapter folded in, in {stored_dtype_name(directory)}.",
            usage=_load_code(target),
            proof=proof,
            facts={"dtype": stored_dtype_name(directory)},
            seconds=seconds,
        )

    _write_merged(job, target, safetensors=job.safetensors, finish=finish)
    return Made("merged", target, _size(target), time.perf_counter() - started, found[0])


def _write_merged(
    job: ExportJob, target: Path, *, safetensors: bool, finish: Callable[[Path], None] | None
) -> None:
    assert job.prepared.checkpoint is not None
    merge_checkpoint(
        job.prepared.checkpoint.path,
        target,
        device=job.merge_device,
        safe_serialization=safetensors,
        source=job.prepared.source,
        trust_remote_code=job.prepared.trust_remote_code,
        report=job.say,
        finish=finish,
    )


def _quantize(job: ExportJob, source: Source) -> Made:
    settings, target = job.quantize, job.plan.targets["quantized"]
    bits, method = settings.quant_bits, settings.quant_method
    started = time.perf_counter()
    with atomic_directory(target) as directory:
        request = QuantizeRequest(
            source.directory,
            directory,
            method,
            bits,
            settings,
            job.texts.calibration,
            job.prepared.trust_remote_code,
        )
        job.say(f"quantizing by {method} to {bits} bit")
        facts: dict[str, Any] = load_object(_QUANTIZERS[method])(request)
        seconds = time.perf_counter() - started
        write_around(job.prepared, directory, compat=job.proof.compat, source=source.directory)
        proof = None
        if job.proof.verify:
            job.say("loading source and result in fresh processes")
            proof = source.prove(
                directory,
                bound=PERPLEXITY_BOUNDS[str(bits)],
                vocabulary=job.prepared.tokenizer.vocab_size,
                python=settings.quant_python,
            )
            settle(proof, f"--quant_method {method} --quant_bits {bits}", job.proof, job.say)
        _complete(
            job,
            directory,
            "quantized",
            how=f"{job.prepared.name}, its linear layers quantized by {method} to {bits} bit.",
            usage=_load_code(target),
            proof=proof,
            facts={"method": method, "bits": bits, **facts},
            seconds=seconds,
        )
    return Made("quantized", target, _size(target), seconds, proof)


def _to_gguf(job: ExportJob, source: Source) -> Made:
    target, kind = job.plan.targets["gguf"], job.convert.to_gguf
    started = time.perf_counter()
    with atomic_directory(target) as directory:
        job.say(f"writing GGUF with weights in {kind}")
        file: str = load_object("ft_quant.gguf.write:write_gguf")(job, source.directory, directory)
        seconds = time.perf_counter() - started
        proof = None
        if job.proof.verify:
            job.say("loading source and result in fresh processes")
            proof = source.prove(
                directory,
                gguf_file=file,
                bound=PERPLEXITY_BOUNDS[{"q8_0": "8", "q4_0": "4"}.get(str(kind), "16")],
                vocabulary=job.prepared.tokenizer.vocab_size,
            )
            settle(proof, f"--to_gguf {kind}", job.proof, job.say)
        _complete(
            job,
            directory,
            "gguf",
            how=f"{job.prepared.name} as GGUF with weights in {kind}.",
            usage=f"```sh\nllama-cli -m {target.name}/{file}\n```",
            proof=proof,
            facts={"file": file, "type": kind},
            seconds=seconds,
        )
    return Made("gguf", target, _size(target), seconds, proof)


def _make(job: ExportJob, kind: Kind, writer: str) -> Made:
    """Make a result that has nothing to measure."""
    started = time.perf_counter()
    target = job.plan.targets[kind]
    with atomic_directory(target) as directory:
        facts: dict[str, Any] = load_object(writer)(job, directory)
        write_record(
            directory,
            {
                "made": kind,
                "origin": origin_of(job.prepared.source, job.prepared.checkpoint),
                **facts,
            },
        )
    return Made(kind, target, _size(target), time.perf_counter() - started)


def _complete(
    job: ExportJob,
    directory: Path,
    kind: Kind,
    *,
    how: str,
    usage: str,
    proof: Proof | None,
    facts: dict[str, Any],
    seconds: float,
) -> None:
    """Write the card and the record of a result."""
    data = dict(job.texts.sources)
    if kind != "quantized":
        data.pop("calibrated on", None)
    write_card(
        directory,
        job.prepared,
        kind=kind,
        title=job.plan.targets[kind].name,
        how=how,
        usage=usage,
        proof=proof,
        data=data,
    )
    record = {
        "made": kind,
        **facts,
        "origin": origin_of(job.prepared.source, job.prepared.checkpoint),
        "data": data,
        "seconds": round(seconds, 2),
        "verification": None if proof is None else proof.to_json(),
    }
    write_record(directory, record)


def _load_code(target: Path) -> str:
    return (
        "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'model = AutoModelForCausalLM.from_pretrained("{target.name}")\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{target.name}")\n```'
    )


def _size(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())
