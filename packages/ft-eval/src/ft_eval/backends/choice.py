"""Which backend asks: ``--eval_backend``, and what AUTO makes of it."""

from __future__ import annotations

from importlib.util import find_spec

from ft_core.errors import DependencyError
from ft_eval.backends.builtin_backend import BuiltinBackend
from ft_eval.tasks.names import BUILTIN, canonical
from ft_eval.work import Backend, Work


def choose_backend(work: Work) -> Backend:
    """Return the backend that was asked for, or the one that fits, and say why.

    Raises:
        UsageError: a benchmark's name is unknown.
        DependencyError: the backend isn't installed.
    """
    arguments = work.arguments
    if arguments.custom_eval_config is not None and arguments.eval_dataset:
        work.say("--eval_dataset is ignored: custom_eval_config says what is asked")
    asked = arguments.eval_backend
    name, reason = _fitting(work) if asked == "AUTO" else (asked, "asked for")
    work.say(f"backend    {name} ({reason})")
    if name == "builtin":
        return BuiltinBackend(work)
    if name == "lm_eval":
        if find_spec("lm_eval") is None:
            raise DependencyError(
                "--eval_backend lm_eval", "lm-eval", "pip install 'ft-eval[lm-eval]'"
            )
        from ft_eval.backends.lm_eval.backend import LmEvalBackend

        return LmEvalBackend(work)
    from ft_eval.backends.evalscope.backend import EvalScopeBackend

    return EvalScopeBackend(work)


def _fitting(work: Work) -> tuple[str, str]:
    arguments = work.arguments
    if arguments.custom_eval_config is not None:
        return "builtin", "custom_eval_config needs nothing else"
    wanted = [canonical(name) for name in arguments.eval_dataset or ()]
    if wanted and all(name in BUILTIN for name in wanted):
        return "builtin", "it has all of these with their data"
    if find_spec("lm_eval") is None:
        return "builtin", "lm-eval is not installed: pip install 'ft-eval[lm-eval]' brings more"
    from ft_eval.backends.lm_eval.data import hub_reachable

    if wanted or hub_reachable():
        return "lm_eval", "it has these benchmarks" if wanted else "the hub can be reached"
    return "builtin", "no hub can be reached for the data of lm-eval's benchmarks"
