"""Names of the specification's benchmarks, and what each backend calls them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ft_core.errors import UsageError, suggest


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A benchmark of the specification.

    Attributes:
        lm_eval: its task or group in lm-eval; ``None`` where it has none.
        evalscope: its name in EvalScope; ``None`` where it has none.
    """

    lm_eval: str | None = None
    evalscope: str | None = None


BENCHMARKS: Mapping[str, Benchmark] = {
    "obqa": Benchmark("openbookqa", None),
    "AX_b": Benchmark(None, None),
    "siqa": Benchmark("social_iqa", "siqa"),
    "nq": Benchmark("nq_open", None),
    "mbpp": Benchmark("mbpp", "mbpp"),
    "winogrande": Benchmark("winogrande", "winogrande"),
    "mmlu": Benchmark("mmlu", "mmlu"),
    "BoolQ": Benchmark("boolq", "boolq"),
    "cluewsc": Benchmark(None, None),
    "ocnli": Benchmark(None, None),
    "lambada": Benchmark("lambada_openai", None),
    "CMRC": Benchmark(None, None),
    "ceval": Benchmark("ceval-valid", "ceval"),
    "csl": Benchmark(None, None),
    "cmnli": Benchmark(None, None),
    "bbh": Benchmark("bbh", "bbh"),
    "ReCoRD": Benchmark("record", None),
    "math": Benchmark("hendrycks_math", "competition_math"),
    "humaneval": Benchmark("humaneval", "humaneval"),
    "eprstmt": Benchmark(None, None),
    "WSC": Benchmark("wsc", None),
    "storycloze": Benchmark("xstorycloze_en", None),
    "MultiRC": Benchmark("multirc", None),
    "RTE": Benchmark("rte", None),
    "chid": Benchmark(None, None),
    "gsm8k": Benchmark("gsm8k", "gsm8k"),
    "AX_g": Benchmark(None, None),
    "bustm": Benchmark(None, None),
    "afqmc": Benchmark(None, None),
    "piqa": Benchmark("piqa", "piqa"),
    "lcsts": Benchmark(None, None),
    "strategyqa": Benchmark("bigbench_strategyqa_multiple_choice", None),
    "Xsum": Benchmark(None, None),
    "agieval": Benchmark("agieval", None),
    "ocnli_fc": Benchmark(None, None),
    "C3": Benchmark(None, None),
    "tnews": Benchmark(None, None),
    "race": Benchmark("race", "race"),
    "triviaqa": Benchmark("triviaqa", "trivia_qa"),
    "CB": Benchmark("cb", None),
    "WiC": Benchmark("wic", None),
    "hellaswag": Benchmark("hellaswag", "hellaswag"),
    "summedits": Benchmark(None, None),
    "GaokaoBench": Benchmark(None, None),
    "ARC_e": Benchmark("arc_easy", "arc"),
    "COPA": Benchmark("copa", None),
    "ARC_c": Benchmark("arc_challenge", "arc"),
    "DRCD": Benchmark(None, None),
}
"""All of the specification's; a backend without a name for one says so."""

BUILTIN = ("humaneval",)
"""Those whose rows come with a Python package, so that the builtin backend has them offline."""

_BY_NAME = {name.lower(): name for name in BENCHMARKS}


def canonical(name: str) -> str:
    """Return the specification's spelling of a benchmark; any other name as it is."""
    return _BY_NAME.get(name.lower(), name)


def unknown(name: str, backend: str, others: tuple[str, ...] = ()) -> UsageError:
    """Return the error for a name that neither the specification nor the backend knows."""
    return UsageError(
        f"--eval_dataset {name}: {backend} has no such benchmark.{suggest(name, (*BENCHMARKS, *others))}"
    )
