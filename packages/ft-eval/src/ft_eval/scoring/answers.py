"""Answers compared with references: exact match, containment, and F1 of words."""

from __future__ import annotations

from collections import Counter

from ft_eval.measures import Measure, mean, scored
from ft_eval.metrics import exact_match, normalize_answer
from ft_eval.respondents.protocol import Answer
from ft_eval.scoring.language import is_chinese, words
from ft_eval.tasks.task import Item


def matches(item: Item, answer: Answer) -> float:
    """Return 1 where the answer is one of the references, up to case, punctuation and articles."""
    return float(exact_match(answer.text, item.references))


def contains(item: Item, answer: Answer) -> float:
    """Return 1 where one of the references stands in the answer as whole words."""
    text = f" {normalize_answer(answer.text)} "
    found = (normalize_answer(reference) for reference in item.references)
    return float(any(f" {reference} " in text for reference in found if reference))


def f1(item: Item, answer: Answer) -> float:
    """Return the best F1 of words over the references (SQuAD, Rajpurkar et al. 2016)."""
    return max(_f1(answer.text, reference) for reference in item.references)


def _f1(text: str, reference: str) -> float:
    chinese = is_chinese(reference)
    given = words(normalize_answer(text), chinese=chinese)
    wanted = words(normalize_answer(reference), chinese=chinese)
    if not given or not wanted:
        return float(given == wanted)
    common = sum((Counter(given) & Counter(wanted)).values())
    return 2 * common / (len(given) + len(wanted))


EXACT_MATCH = Measure("exact_match", mean, scored(matches), binary=True)
CONTAINS = Measure("contains", mean, scored(contains), binary=True)
F1 = Measure("f1", mean, scored(f1))
