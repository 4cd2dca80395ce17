"""Writing a Modelfile (https://docs.ollama.com/modelfile): template, stops, context and sampling."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ft_core.templates.template import Template
from ft_quant.dtypes import read_config
from ft_quant.ollama.pieces import Pieces, find_pieces

if TYPE_CHECKING:
    from ft_quant.export import ExportJob

_USUAL_CONTEXT = 8192
"""Tokens of context where neither the person nor the training says: more costs memory whether used or not."""

_PLAIN = "default-generation"
"""The chat format that is none: the text is continued as it is."""


def write_modelfile(job: ExportJob, directory: Path) -> dict[str, Any]:
    """Write ``Modelfile`` for ``ollama create NAME -f Modelfile``.

    Returns:
        What was written, for the record.

    Raises:
        ModelError: the chat format can't be expressed.
    """
    template, tokenizer = job.prepared.chosen.template, job.prepared.tokenizer
    if template.name == _PLAIN:
        text = "{{ .Prompt }}"
    else:
        pieces = find_pieces(template)
        bos = (
            tokenizer.id_to_token(tokenizer.bos_token_id)
            if tokenizer.bos_token_id is not None
            else None
        )
        text = to_go(pieces, leave_out=bos if bos and tokenizer.adds_bos else "")
    model = _model(job)
    context = _context(job)
    lines = [f"FROM {model}", "", f'TEMPLATE """{text}"""', ""]
    lines += [f"PARAMETER stop {_quoted(stop)}" for stop in stops(template)]
    lines += [f"PARAMETER num_ctx {context}", *_sampling(job)]
    (directory / "Modelfile").write_text("\n".join(lines) + "\n", encoding="utf-8")
    job.say(f"try it: ollama create {job.prepared.name} -f {job.plan.targets['ollama']}/Modelfile")
    return {"model": str(model), "num_ctx": context, "chat_format": template.name}


def to_go(pieces: Pieces, *, leave_out: str = "") -> str:
    """Write a chat format as a template of Go, over ``.Messages``.

    Nothing is written with ``{{-``: it would take away newlines that belong to the format.

    Args:
        pieces: of the chat format.
        leave_out: what the engine puts before a prompt by itself.
    """
    opening, before_system = pieces.opening, pieces.before_system
    if leave_out:
        opening = opening.removeprefix(leave_out)
        before_system = None if before_system is None else before_system.removeprefix(leave_out)
    head = _literal(opening)
    if before_system is not None:
        with_system = f"{_literal(before_system)}{{{{ .System }}}}{_literal(pieces.after_system)}"
        head = f"{{{{ if .System }}}}{with_system}{{{{ else }}}}{head}{{{{ end }}}}"
    question = (
        f"{_literal(pieces.before_question)}{{{{ .Content }}}}{_literal(pieces.before_answer)}"
    )
    after = _literal(pieces.after_answer or "")
    last = "{{ if gt (len (slice $.Messages $i)) 1 }}"
    return (
        f"{head}{{{{ range $i, $_ := .Messages }}}}"
        f'{{{{ if eq .Role "user" }}}}{question}'
        f'{{{{ else if eq .Role "assistant" }}}}{{{{ .Content }}}}{last}{after}{{{{ end }}}}'
        "{{ end }}{{ end }}"
    )


def stops(template: Template) -> Iterator[str]:
    """Give the texts that end an answer, each once."""
    ids = sorted(template.stop_token_ids)
    texts = (template.tokenizer.id_to_token(token) for token in ids)
    yield from dict.fromkeys((*(text for text in texts if text), *template.stop_strings))


def _model(job: ExportJob) -> Path:
    """Return what the Modelfile names: the GGUF file of this command, the merged model, or the model itself."""
    targets = job.plan.targets
    if "gguf" in targets:
        return targets["gguf"] / f"model-{job.convert.to_gguf}.gguf"
    return targets.get("merged", job.prepared.directory)


def _context(job: ExportJob) -> int:
    """Return the tokens of context: as given, as trained, or what the model sees."""
    if job.max_length > 0:
        return job.max_length
    checkpoint = job.prepared.checkpoint
    trained = None if checkpoint is None else checkpoint.arguments.get("max_length")
    if isinstance(trained, int) and trained > 0:
        return trained
    config = read_config(job.prepared.directory)
    seen = (config.get("text_config") or config).get("max_position_embeddings")
    return min(int(seen), _USUAL_CONTEXT) if isinstance(seen, int) else _USUAL_CONTEXT


def _sampling(job: ExportJob) -> list[str]:
    values = job.sampling
    temperature = values.temperature if values.do_sample else 0.0
    return [
        f"PARAMETER temperature {temperature:g}",
        f"PARAMETER top_k {values.top_k}",
        f"PARAMETER top_p {values.top_p:g}",
        f"PARAMETER repeat_penalty {values.repetition_penalty:g}",
    ]


def _literal(text: str) -> str:
    """Write text so that neither Go's templates nor a Modelfile's quotes see anything in it."""
    return text.replace("{{", "\0").replace('"""', '{{ "\\"\\"\\"" }}').replace("\0", '{{ "{{" }}')


def _quoted(text: str) -> str:
    return f'"""{text}"""' if '"' in text or "\n" in text else f'"{text}"'
