"""A running server as the only respondent of an evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ft_eval.arguments import NO_TOKEN
from ft_eval.respondents.protocol import Respondent
from ft_eval.respondents.url import connect
from ft_eval.work import Wait, Work


@contextmanager
def served(work: Work, model: str | None, wait: Wait) -> Iterator[Sequence[Respondent]]:
    """Connect to the server of ``--eval_url`` and give it as a respondent.

    Args:
        work: says which server.
        model: the served name; ``None`` takes the server's only one.
        wait: runs coroutines.

    Raises:
        ModelError: no server answers there, or one of another kind.
        UsageError: it doesn't serve this model.
    """
    arguments = work.arguments
    respondent = wait(
        connect(
            str(arguments.eval_url),
            model,
            chat=bool(arguments.eval_is_chat_model),
            token=None if arguments.eval_token == NO_TOKEN else arguments.eval_token,
            timeout=arguments.eval_timeout,
            say=work.say,
        )
    )
    scoring = "likelihoods and answers" if respondent.scores else "answers, no likelihoods"
    work.say(f"server     {arguments.eval_url} serves {respondent.name} ({scoring})")
    try:
        yield [respondent]
    finally:
        wait(respondent.close())
