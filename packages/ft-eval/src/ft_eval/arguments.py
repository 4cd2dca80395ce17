"""Arguments of the evaluation commands."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal
from urllib.parse import urlsplit

from ft_core.command import ArgumentGroup, flag
from ft_core.errors import UsageError

NO_TOKEN = "EMPTY"
"""The value of a token that means there is none."""


class ScoreArguments(ArgumentGroup):
    """Scoring of answers that are there already."""

    title: ClassVar[str] = "scoring"

    predictions: str | None = None
    """The .jsonl file of rows with response and label; label may be a list of right answers."""

    normalize: bool = True
    """Compare without case, ASCII punctuation, English articles and extra white space."""

    level: float = flag(0.95, gt=0, lt=1)
    """Level of the confidence interval."""

    resamples: int = flag(1000, ge=1)
    """Bootstrap resamples the interval is made from."""

    seed: int = 42
    """Seed of the resampling."""

    json_report: bool = flag(False, aliases=("json",))
    """Print the report as a JSON object instead of a line."""


class EvalArguments(ArgumentGroup):
    """What is asked, of whom, and where the results go."""

    title: ClassVar[str] = "evaluation"

    eval_dataset: list[str] | None = flag(None, commas=True)
    """Benchmarks to run, such as ceval ARC_c gsm8k; none takes all that the backend can get. Ignored with custom_eval_config."""

    eval_backend: Literal["AUTO", "builtin", "lm_eval", "evalscope"] = "AUTO"
    """What asks and grades; AUTO takes builtin for custom_eval_config, else lm_eval where data can be had."""

    eval_few_shot: int | None = flag(None, ge=0)
    """Solved examples in front of each question; none takes the benchmark's own number."""

    eval_limit: str | None = None
    """Questions of each benchmark: a number, drawn by the seed, or a slice such as [10:20]; none asks all."""

    name: str | None = None
    """Results go to eval_output_dir/name/time; none calls it defaults."""

    eval_url: str | None = None
    """Base URL of a running server that speaks OpenAI's protocol, such as http://127.0.0.1:8000/v1; model_type is then the served name."""

    eval_token: str = flag(NO_TOKEN, env="FT_EVAL_TOKEN", secret=True)
    """Token of that server; EMPTY sends none. Better given by the environment, where no process list shows it."""

    eval_is_chat_model: bool | None = None
    """Whether the server's model is asked in conversations; must be given with eval_url."""

    custom_eval_config: str | None = None
    """JSON file that lists evaluation sets of your own, with the patterns ceval and general_qa."""

    eval_use_cache: bool = False
    """Use answers of finished runs of this name again and grade them anew; those of a run that broke off are always used."""

    eval_output_dir: str = "eval_outputs"
    """Directory of results."""

    eval_batch_size: int = flag(8, ge=1)
    """Questions asked at the same time."""

    deploy_timeout: int = flag(60, ge=1)
    """Seconds to wait for a server that is started for the evaluation."""

    eval_timeout: float = flag(120, gt=0)
    """Seconds to wait for one answer of a server, before it is asked again."""

    eval_base: bool = False
    """With a checkpoint, also evaluate the model without it, and compare."""

    run_code: bool = False
    """Run programs that the model writes (humaneval, pattern code), in a sandbox without network."""

    evalscope_python: str | None = flag(None, env="FT_EVALSCOPE_PYTHON")
    """Python of the environment that EvalScope is installed in; none takes this one."""

    judge_url: str | None = None
    """Base URL of a server whose model judges answers where the metric judge is asked for."""

    judge_model: str | None = None
    """Name of the judging model; none takes the server's only one."""

    judge_token: str = flag(NO_TOKEN, env="FT_JUDGE_TOKEN", secret=True)
    """Token of the judge's server; EMPTY sends none."""

    def check(self, given: frozenset[str]) -> None:
        """Refuse contradictions and files that aren't there, before anything is loaded."""
        from ft_eval.tasks.limit import Limit

        if self.eval_limit is not None:
            Limit.read(self.eval_limit)
        for name, url in (("eval_url", self.eval_url), ("judge_url", self.judge_url)):
            if url is not None and not (
                urlsplit(url).scheme in ("http", "https") and urlsplit(url).netloc
            ):
                raise UsageError(
                    f"--{name} {url}: give a base URL such as http://127.0.0.1:8000/v1"
                )
        if self.eval_url is not None and self.eval_is_chat_model is None:
            raise UsageError(
                "--eval_url needs --eval_is_chat_model true for a model that is asked in conversations, or false for "
                "a base model that continues text"
            )
        if self.eval_url is None and self.eval_token != NO_TOKEN and "eval_token" in given:
            raise UsageError("--eval_token is only sent to a server: give --eval_url")
        if self.judge_url is None and self.judge_model is not None:
            raise UsageError("--judge_model needs --judge_url")
        self._check_names()

    def _check_names(self) -> None:
        if (
            self.custom_eval_config is not None
            and not Path(self.custom_eval_config).expanduser().is_file()
        ):
            raise UsageError(f"--custom_eval_config {self.custom_eval_config}: no such file")
        if self.name is not None and (
            Path(self.name).name != self.name or self.name.startswith(".")
        ):
            raise UsageError(
                f"--name {self.name}: it becomes a directory; give one word without slashes"
            )


class ServedArguments(ArgumentGroup):
    """The model of a server."""

    title: ClassVar[str] = "model"

    model_type: str | None = None
    """Name under which the server serves the model; none takes its only one."""

    seed: int = 42
    """Seed of all random choices."""


class CompareArguments(ArgumentGroup):
    """Runs that are compared."""

    title: ClassVar[str] = "comparison"

    runs: list[str] = flag([])
    """Directories of evaluations; the first model of the first is compared with all the others."""

    output: str | None = None
    """Directory for the reports of the comparison; none only prints it."""

    level: float = flag(0.95, gt=0, lt=1)
    """Level of the intervals."""

    resamples: int = flag(1000, ge=100)
    """Bootstrap resamples the intervals are made from."""

    seed: int = 42
    """Seed of the resampling."""
