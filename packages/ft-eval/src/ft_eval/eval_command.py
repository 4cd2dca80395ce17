"""``ft-eval eval --eval_url URL``: evaluate the model of a running server, with no model library installed."""

from __future__ import annotations

from functools import partial

from ft_core.command import Command, Invocation
from ft_core.errors import UsageError
from ft_eval.arguments import EvalArguments, ServedArguments


def run(invocation: Invocation) -> None:
    """Connect to the server and ask."""
    from ft_eval.evaluation import evaluate
    from ft_eval.serving import served
    from ft_eval.work import Work

    arguments, model = invocation.get(EvalArguments), invocation.get(ServedArguments)
    if arguments.eval_url is None:
        raise UsageError(
            "which server? Give --eval_url http://…/v1; models of this machine are loaded by ft eval, which "
            "comes with: pip install ft-cli"
        )
    work = Work(arguments, model.seed, invocation.argv, invocation.plain())
    evaluate(work, [partial(served, work, model.model_type)], steps={})


COMMAND = Command(
    "eval",
    "Evaluate the model of a running server.",
    (EvalArguments, ServedArguments),
    run,
    elsewhere=dict.fromkeys(
        ("ckpt_dir", "model_id_or_path", "template_type", "lora_modules", "infer_backend"), "ft-cli"
    ),
    epilog="ft-eval eval --eval_url http://127.0.0.1:8000/v1 --eval_is_chat_model true --custom_eval_config questions.json",
)
