"""A person's own evaluation sets as tasks of lm-eval, with the prompts of the builtin backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ft_core.errors import UsageError
from ft_eval.backends.lm_eval.model import conversation
from ft_eval.respondents.protocol import Prompt
from ft_eval.tasks.task import Item, Task

METRICS = {
    "exact_match": {
        "metric": "exact_match",
        "aggregation": "mean",
        "higher_is_better": True,
        "ignore_case": True,
        "ignore_punctuation": True,
    },
    "bleu-4": {"metric": "bleu", "aggregation": "bleu", "higher_is_better": True},
    "chrf": {"metric": "chrf", "aggregation": "chrf", "higher_is_better": True},
}
"""Metrics of answers that lm-eval computes itself, by our names."""


def local_task(task: Task) -> dict[str, Any]:
    """Return a task as lm-eval's configuration.

    Raises:
        UsageError: lm-eval has nothing for this kind of task.
    """
    docs = [_doc(item) for item in task.items]
    config: dict[str, Any] = {
        "task": task.title.replace("/", "_"),
        "custom_dataset": _data(docs),
        "test_split": "test",
        "num_fewshot": 0,
        "target_delimiter": "",
        "metadata": {},
    }
    if task.method == "likelihood":
        accuracy = {"metric": "acc", "aggregation": "mean", "higher_is_better": True}
        return {
            **config,
            "output_type": "multiple_choice",
            "doc_to_text": _prompt,
            "doc_to_choice": _choices,
            "doc_to_target": _gold,
            "metric_list": [accuracy],
        }
    if task.method == "perplexity":
        names = ("word_perplexity", "byte_perplexity", "bits_per_byte")
        metrics = [{"metric": name} for name in names]
        return {
            **config,
            "output_type": "loglikelihood_rolling",
            "doc_to_text": _nothing,
            "doc_to_target": _reference,
            "metric_list": metrics,
        }
    if task.method == "generation" and all("calls" not in item.extra for item in task.items):
        settings = {"until": [], "max_gen_toks": task.max_new_tokens, "do_sample": False}
        return {
            **config,
            "output_type": "generate_until",
            "doc_to_text": _prompt,
            "doc_to_target": _reference,
            "generation_kwargs": settings,
            "metric_list": _metrics(task),
        }
    raise UsageError(
        f"{task.title}: lm-eval has nothing for this pattern; use --eval_backend builtin"
    )


def _metrics(task: Task) -> list[dict[str, Any]]:
    chosen = [METRICS[name] for name in task.measures if name in METRICS]
    if not chosen:
        raise UsageError(
            f"{task.title}: lm-eval has none of the metrics {', '.join(task.measures)}, but {', '.join(METRICS)}; "
            "use --eval_backend builtin"
        )
    return chosen


def _data(docs: list[dict[str, Any]]) -> Callable[..., Any]:
    def load(**_: Any) -> Any:
        from datasets import Dataset, DatasetDict

        return DatasetDict({"test": Dataset.from_list(docs)})

    return load


def _doc(item: Item) -> dict[str, Any]:
    before = str(item.extra.get("before", ""))
    return {
        "id": item.id,
        "place": None if item.place is None else str(item.place),
        "prompt": context_of(item.prompt),
        "choices": [before + choice for choice in item.choices],
        "references": list(item.references),
        "gold": item.choices.index(item.references[0]) if item.choices else None,
    }


def context_of(prompt: Prompt) -> str:
    """Return a prompt as a context string."""
    if prompt.text is not None:
        return prompt.text
    return conversation([message.to_json() for message in prompt.messages])


def _nothing(doc: dict[str, Any]) -> str:
    return ""


def _prompt(doc: dict[str, Any]) -> str:
    return str(doc["prompt"])


def _choices(doc: dict[str, Any]) -> list[str]:
    return list(doc["choices"])


def _gold(doc: dict[str, Any]) -> int:
    return int(doc["gold"])


def _reference(doc: dict[str, Any]) -> str:
    return str(doc["references"][0])
