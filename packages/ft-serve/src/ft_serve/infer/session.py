"""A loaded engine with its chat format and sampling, asked by rows or by a person."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ft_core.arguments import GenerationArguments, ModelArguments, TemplateArguments
from ft_core.command import Invocation
from ft_core.errors import UsageError
from ft_core.examples import Example
from ft_core.prepare import Prepared, Say, to_stderr
from ft_serve.arguments import LOADED_ADAPTER, InferArguments
from ft_serve.engines.remote import RemoteEngine
from ft_serve.infer.dataset import InferReport, Prompting, Summarise, answer_dataset
from ft_serve.infer.interactive import Chat, Partner
from ft_serve.infer.loading import prepare_named, start_engine
from ft_serve.infer.markdown import MarkdownWriter
from ft_serve.infer.results import AnswerFile, result_file

if TYPE_CHECKING:
    from ft_core.engine import Engine


@dataclass(frozen=True, slots=True)
class Session:
    """What ``ft infer`` and ``ft-serve infer`` work with.

    Attributes:
        invocation: the command with its arguments.
        prepared: the model with tokenizer and chat format.
        engines: those that run; the first is the command's own.
        say: is told what is used and why.
    """

    invocation: Invocation
    prepared: Prepared
    engines: list[Engine]
    say: Say

    @property
    def checkpoint(self) -> Path | None:
        """The checkpoint's directory; ``None`` for a plain model."""
        return None if self.prepared.checkpoint is None else self.prepared.checkpoint.path

    @property
    def partner(self) -> Partner:
        """Who answers at first: the checkpoint, else the first of the adapters, else the model."""
        engine = self.engines[0]
        named = (LOADED_ADAPTER, *self.invocation.get(InferArguments).adapters())
        adapter = next((name for name in named if name in engine.adapters), None)
        return Partner(engine, self.prepared.chosen.template, adapter)

    def answer(self, rows: Sequence[Example], *, summarise: Summarise | None = None) -> InferReport:
        """Answer rows, write them beside the checkpoint, and print how it went.

        Args:
            rows: the questions.
            summarise: compares the answers with the labels of rows that have one.
        """
        arguments = self.invocation.get(InferArguments)
        template = self.invocation.get(TemplateArguments)
        partner = self.partner
        report = answer_dataset(
            partner.engine,
            Prompting(
                partner.template,
                None if template.max_length == -1 else template.max_length,
                template.truncation_strategy == "truncation_left",
            ),
            rows,
            self.invocation.get(GenerationArguments).sampling(stop=partner.template.stop_strings),
            self._answers_file(),
            seed=self.invocation.get(ModelArguments).seed,
            verbose=len(rows) < 100 if arguments.verbose is None else arguments.verbose,
            stream=arguments.stream,
            adapter=partner.adapter,
            summarise=summarise,
        )
        print("\n".join(_summary(report)))
        return report

    def _answers_file(self) -> Path:
        given = self.invocation.get(InferArguments).result_file
        if given is None:
            return result_file(self.checkpoint, self.prepared.name)
        file = Path(given).expanduser().resolve()
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        except OSError as error:
            raise UsageError(f"--result_file {given}: {error.strerror or error}") from error
        return file

    def chat(self) -> None:
        """Talk with the person at the terminal."""
        answers = AnswerFile(self._answers_file())
        try:
            Chat(
                self.partner,
                self.invocation.get(GenerationArguments).sampling(),
                answers,
                system=self.invocation.get(TemplateArguments).system,
                stream=self.invocation.get(InferArguments).stream,
                open_model=self.open_model,
                markdown=_markdown if sys.stdout.isatty() else None,
            ).run()
        finally:
            answers.close()
        print(f"\nanswers: {answers.path}")

    def open_model(self, name: str) -> Partner:
        """Load another model, by its name or directory, and let go of the one before.

        Raises:
            FtError: it can't be loaded; the one before stays.
        """
        if isinstance(self.engines[0], RemoteEngine):
            raise UsageError(
                "another model takes another engine: start again with it, or chat with --infer_backend pt"
            )
        prepared = prepare_named(self.invocation, name, self.say)
        engine = start_engine(self.invocation, prepared, say=self.say)
        while self.engines:
            asyncio.run(self.engines.pop().close())
        self.engines.append(engine)
        return Partner(engine, prepared.chosen.template, next(iter(engine.adapters), None))

    def save_sampling(self) -> None:
        """Write the sampling of this run into the checkpoint's generation config, if that is wanted."""
        wanted = self.invocation.get(InferArguments).overwrite_generation_config
        if self.checkpoint is None:
            if wanted:
                raise UsageError(
                    "--overwrite_generation_config true needs --ckpt_dir: only checkpoints are changed"
                )
            return
        if wanted is False:
            return
        sampling = self.invocation.get(GenerationArguments).sampling()
        config = self.prepared.generation_config()
        config.do_sample = sampling.temperature > 0
        # Servers take a length that stands here for the most that any request may ask for.
        config.max_new_tokens = None
        config.temperature = sampling.temperature if config.do_sample else None
        config.top_k = sampling.top_k if config.do_sample else None
        config.top_p = sampling.top_p if config.do_sample else None
        config.repetition_penalty = sampling.repetition_penalty
        config.num_beams = sampling.num_beams
        config.save_pretrained(self.checkpoint)


@contextmanager
def open_session(
    invocation: Invocation, prepared: Prepared, *, say: Say = to_stderr
) -> Iterator[Session]:
    """Load the weights and start the engine; it is stopped at the end.

    Args:
        invocation: its ``InferArguments``, ``ModelArguments``, ``QuantizationArguments``,
            ``LoadingArguments``, ``TemplateArguments`` and ``GenerationArguments`` are used.
        prepared: the model.
        say: is told what is used and why.
    """
    strategy = invocation.get(TemplateArguments).truncation_strategy
    if strategy in ("right", "split"):
        raise UsageError(
            f"--truncation_strategy {strategy} would cut off the question that is to be answered; "
            "use truncation_left or delete"
        )
    adapters = invocation.get(InferArguments).adapters()
    engine = start_engine(invocation, prepared, adapters=adapters, say=say)
    session = Session(invocation, prepared, [engine], say)
    try:
        session.save_sampling()
        yield session
    finally:
        for running in session.engines:
            asyncio.run(running.close())


def _markdown() -> MarkdownWriter:
    return MarkdownWriter(Console())


def _summary(report: InferReport) -> list[str]:
    rate = report.tokens / max(report.seconds, 1e-9)
    kept = f" ({report.reused:,} of them kept from before)" if report.reused else ""
    lines = [
        f"answered {report.answered:,} rows{kept}, {report.tokens:,} tokens, {rate:.1f} tokens/s"
    ]
    lines += [f"no answer: {reason}" for reason in report.failed[:3]]
    if len(report.failed) > 3:
        lines.append(f"and {len(report.failed) - 3:,} more without an answer")
    if report.scores:
        scores = ", ".join(f"{name} {value:.2f}" for name, value in report.scores.items())
        lines.append(f"against the labels: {scores}")
    return [*lines, f"answers: {report.file}"]
