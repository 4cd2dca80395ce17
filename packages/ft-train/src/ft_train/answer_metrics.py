"""How close generated answers come to those of the rows: ROUGE (Lin 2004) and BLEU (Papineni et al. 2002).

Chinese is cut into characters, everything else into words, as sacrebleu does it for translations into
Chinese; nothing is downloaded.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

_CHINESE = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_WORD = re.compile(r"[^\W_]+")
_ORDERS = 4
_ROUGE = {"rouge-1": "rouge1", "rouge-2": "rouge2", "rouge-l": "rougeL"}


def is_chinese(text: str) -> bool:
    """Whether a text holds Chinese characters."""
    return _CHINESE.search(text) is not None


def words(text: str, *, chinese: bool) -> list[str]:
    """Return what ROUGE compares: words in lower case, and with ``chinese`` single characters."""
    if chinese:
        text = _CHINESE.sub(lambda match: f" {match[0]} ", text)
    return _WORD.findall(text.lower())


def answer_sums(answers: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Return sums over answers that ``answer_scores`` turns into metrics.

    Sums of parts of the answers add up to the sums of all, so that devices can share the work.

    Args:
        answers: generated texts.
        references: for each, the text of its row.
    """
    sums: defaultdict[str, float] = defaultdict(float)
    for text, reference in zip(answers, references, strict=True):
        sums["answers"] += 1
        for name, value in {**_rouge(text, reference), **_bleu_counts(text, reference)}.items():
            sums[name] += value
    return dict(sums)


def answer_scores(sums: Mapping[str, float]) -> dict[str, float]:
    """Return ``rouge-1``, ``rouge-2``, ``rouge-l`` (means of F1) and ``bleu-4`` (of all answers together).

    Args:
        sums: of ``answer_sums``, possibly of several devices together.

    Returns:
        Each from 0 to 100; nothing where there were no answers.
    """
    count = sums.get("answers", 0)
    if not count:
        return {}
    scores = {name: 100 * sums.get(name, 0.0) / count for name in _ROUGE}
    bleu = _bleu("13a").compute_bleu(
        correct=[round(sums.get(f"correct{n}", 0)) for n in range(_ORDERS)],
        total=[round(sums.get(f"total{n}", 0)) for n in range(_ORDERS)],
        sys_len=round(sums.get("length", 0)),
        ref_len=round(sums.get("reference_length", 0)),
        smooth_method="exp",
    )
    return {**scores, "bleu-4": float(bleu.score)}


def _rouge(text: str, reference: str) -> dict[str, float]:
    chinese = is_chinese(reference)
    scorer = _scorer(chinese)
    found = scorer.score(reference, text)
    return {name: float(found[key].fmeasure) for name, key in _ROUGE.items()}


def _bleu_counts(text: str, reference: str) -> dict[str, float]:
    result = _bleu("zh" if is_chinese(reference) else "13a").corpus_score([text], [[reference]])
    counts = {f"correct{n}": result.counts[n] for n in range(_ORDERS)}
    totals = {f"total{n}": result.totals[n] for n in range(_ORDERS)}
    return {**counts, **totals, "length": result.sys_len, "reference_length": result.ref_len}


@cache
def _bleu(tokenizer: str) -> Any:
    from sacrebleu.metrics import BLEU

    return BLEU(tokenize=tokenizer)


@cache
def _scorer(chinese: bool) -> Any:
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.tokenizers import Tokenizer

    class Words(Tokenizer):  # type: ignore[misc]
        def tokenize(self, text: str) -> list[str]:
            return words(text, chinese=chinese)

    return RougeScorer(sorted(_ROUGE.values()), tokenizer=Words())
