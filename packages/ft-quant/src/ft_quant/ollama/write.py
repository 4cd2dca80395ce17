"""Writing a Modelfile (https://docs.ollama.com/modelfile): template, stops, context and sampling."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ft_core.templates.template import Template
from ft_quant.dtypes import read_config
from ft_quant.ollama.functions import ToolPieces, find_tool_pieces
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
    tools = None
    if template.name == _PLAIN:
        text = "{{ .Prompt }}"
    else:
        pieces = find_pieces(template)
        tools = find_tool_pieces(template, pieces)
        bos = (
            tokenizer.id_to_token(tokenizer.bos_token_id)
            if tokenizer.bos_token_id is not None
            else None
        )
        text = to_go(pieces, tools, leave_out=bos if bos and tokenizer.adds_bos else "")
    model = _model(job)
    context = _context(job)
    lines = [f"FROM {model}", "", f'TEMPLATE """{text}"""', ""]
    lines += [f"PARAMETER stop {_quoted(stop)}" for stop in stops(template)]
    lines += [f"PARAMETER num_ctx {context}", *_sampling(job)]
    (directory / "Modelfile").write_text("\n".join(lines) + "\n", encoding="utf-8")
    job.say(f"try it: ollama create {job.prepared.name} -f {job.plan.targets['ollama']}/Modelfile")
    written = {"model": str(model), "num_ctx": context, "chat_format": template.name}
    return {**written, "tools": tools is not None}


def to_go(pieces: Pieces, tools: ToolPieces | None = None, *, leave_out: str = "") -> str:
    """Write a chat format as a template of Go, over ``.Messages``.

    Nothing is written with ``{{-``: it would take away newlines that belong to the format.

    Args:
        pieces: of the chat format.
        tools: how it writes functions, if it does.
        leave_out: what the engine puts before a prompt by itself.
    """
    before_system = (
        None
        if pieces.before_system is None
        else _literal(pieces.before_system.removeprefix(leave_out))
    )
    head = _literal(pieces.opening.removeprefix(leave_out))
    if before_system is not None:
        with_system = f"{before_system}{{{{ .System }}}}{_literal(pieces.after_system)}"
        head = f"{{{{ if .System }}}}{with_system}{{{{ else }}}}{head}{{{{ end }}}}"
    if tools is not None:
        head = f"{{{{ if .Tools }}}}{_functions(tools, before_system, leave_out)}{{{{ else }}}}{head}{{{{ end }}}}"
    question = (
        f"{_literal(pieces.before_question)}{{{{ .Content }}}}{_literal(pieces.before_answer)}"
    )
    after = _literal(pieces.after_answer or "")
    last = "{{ if gt (len (slice $.Messages $i)) 1 }}"
    calls, results, note = (
        ("", "", "") if tools is None else (_calls(tools), _results(tools), _NOTE)
    )
    return (
        f"{head}{note and _BEGIN}{{{{ range $i, $_ := .Messages }}}}"
        f'{{{{ if eq .Role "user" }}}}{question}'
        f'{{{{ else if eq .Role "assistant" }}}}{{{{ .Content }}}}{calls}{last}{after}{{{{ end }}}}'
        f"{results}{{{{ end }}}}{note}{{{{ end }}}}"
    )


_BEGIN = '{{ $before := "" }}'
_NOTE = "{{ $before = .Role }}"


def _functions(tools: ToolPieces, before_system: str | None, leave_out: str) -> str:
    """Write the head of a conversation with functions."""
    opening = _literal(tools.opening.removeprefix(leave_out))
    with_system = f"{before_system}{{{{ .System }}}}{_literal(tools.after_system)}"
    shown = "{{ . }}" if tools.whole else "{{ .Function }}"
    return (
        f"{{{{ if .System }}}}{with_system}{{{{ else }}}}{opening}{{{{ end }}}}"
        f"{{{{ range $j, $_ := .Tools }}}}{{{{ if $j }}}}{_literal(tools.between)}{{{{ end }}}}{shown}{{{{ end }}}}"
        f"{_literal(tools.after)}"
    )


def _calls(tools: ToolPieces) -> str:
    """Write the calls of an answer."""
    said = (
        f"{{{{ if .Content }}}}{_literal(tools.after_said)}{{{{ end }}}}"
        if tools.after_said
        else ""
    )
    each = (
        f"{{{{ if $j }}}}{_literal(tools.between_calls)}{{{{ end }}}}"
        f"{{{{ .Function.Name }}}}{_literal(tools.in_call)}{{{{ .Function.Arguments }}}}"
    )
    return (
        f"{{{{ if .ToolCalls }}}}{said}{_literal(tools.before_call)}"
        f"{{{{ range $j, $_ := .ToolCalls }}}}{each}{{{{ end }}}}{_literal(tools.after_call)}{{{{ end }}}}"
    )


def _results(tools: ToolPieces) -> str:
    """Write a result: what stands before it depends on the message before, what stands behind it on the next one."""
    after = _literal(tools.after_result)
    following = "(index (slice $.Messages $i) 1).Role"
    return (
        f'{{{{ else if eq .Role "tool" }}}}'
        f'{{{{ if eq $before "tool" }}}}{_literal(tools.between_results)}{{{{ else }}}}'
        f"{_literal(tools.before_result)}{{{{ end }}}}{{{{ .Content }}}}"
        f"{{{{ if gt (len (slice $.Messages $i)) 1 }}}}"
        f'{{{{ if ne {following} "tool" }}}}{after}{{{{ end }}}}{{{{ else }}}}{after}{{{{ end }}}}'
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
