"""ROUGE (Lin 2004) and BLEU (Papineni et al. 2002), in English and Chinese; nothing is downloaded."""

from __future__ import annotations

from functools import cache, lru_cache, partial
from typing import Any

import numpy as np

from ft_eval.measures import Floats, Measure, mean, scored
from ft_eval.respondents.protocol import Answer
from ft_eval.scoring.language import is_chinese, words
from ft_eval.tasks.task import Item

ORDERS = 4
_ROUGE = {"rouge-1": "rouge1", "rouge-2": "rouge2", "rouge-l": "rougeL"}


def rouge(kind: str, item: Item, answer: Answer) -> float:
    """Return the best F1 over the references, from 0 to 1."""
    return max(_rouge(answer.text, reference)[kind] for reference in item.references)


@lru_cache(maxsize=64)
def _rouge(text: str, reference: str) -> dict[str, float]:
    found = _scorer(is_chinese(reference)).score(reference, text)
    return {name: float(found[key].fmeasure) for name, key in _ROUGE.items()}


@cache
def _scorer(chinese: bool) -> Any:
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.tokenizers import Tokenizer

    class Words(Tokenizer):  # type: ignore[misc]
        def tokenize(self, text: str) -> list[str]:
            return words(text, chinese=chinese)

    return RougeScorer(sorted(_ROUGE.values()), tokenizer=Words())


def bleu_counts(item: Item, answer: Answer) -> list[float]:
    """Return what an answer adds to BLEU: matching and all n-grams by length, and both lengths."""
    chinese = any(is_chinese(reference) for reference in item.references)
    scorer = _bleu("zh" if chinese else "13a")
    result = scorer.corpus_score([answer.text], [[reference] for reference in item.references])
    return [*result.counts, *result.totals, result.sys_len, result.ref_len]


def bleu(sums: Floats) -> Floats:
    """Return corpus BLEU from 0 to 1 with sacrebleu's smoothing; columns as ``bleu_counts`` gives them."""
    table = np.atleast_2d(sums)
    values = np.asarray([_score(row) for row in table])
    return values if sums.ndim > 1 else values[0]


def _score(row: Floats) -> float:
    counts = [round(value) for value in row]
    result = _bleu("13a").compute_bleu(
        correct=counts[:ORDERS],
        total=counts[ORDERS : 2 * ORDERS],
        sys_len=counts[-2],
        ref_len=counts[-1],
        smooth_method="exp",
    )
    return float(result.score) / 100


@cache
def _bleu(tokenizer: str) -> Any:
    from sacrebleu.metrics import BLEU

    return BLEU(tokenize=tokenizer)


ROUGE_1 = Measure("rouge-1", mean, scored(partial(rouge, "rouge-1")))
ROUGE_2 = Measure("rouge-2", mean, scored(partial(rouge, "rouge-2")))
ROUGE_L = Measure("rouge-l", mean, scored(partial(rouge, "rouge-l")))
BLEU_4 = Measure("bleu-4", bleu, bleu_counts)
