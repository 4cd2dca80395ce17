"""ROUGE and BLEU of answers, against the libraries' own corpora and counting by hand."""

import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU

from ft_train.answer_metrics import answer_scores, answer_sums, is_chinese, words

ENGLISH = [
    ("The cat sat on the mat.", "The cat is sitting on the mat."),
    ("Paris", "The capital of France is Paris."),
    ("I don't know", "I do not know that"),
]
CHINESE = [
    ("今天天气很好，我们出去玩", "今天天气不错，我们出去走走吧"),
    ("北京", "北京是中国的首都"),
]


def scores(pairs):
    return answer_scores(answer_sums([a for a, _ in pairs], [b for _, b in pairs]))


def test_english_is_what_the_libraries_say():
    found = scores(ENGLISH)
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])
    for name, key in (("rouge-1", "rouge1"), ("rouge-2", "rouge2")):
        parts = [scorer.score(reference, text)[key].fmeasure for text, reference in ENGLISH]
        assert found[name] == pytest.approx(100 * sum(parts) / len(parts))
    bleu = BLEU().corpus_score([a for a, _ in ENGLISH], [[b for _, b in ENGLISH]])
    assert found["bleu-4"] == pytest.approx(bleu.score)


def test_chinese_is_compared_by_characters():
    found = scores(CHINESE)
    bleu = BLEU(tokenize="zh").corpus_score([a for a, _ in CHINESE], [[b for _, b in CHINESE]])
    assert found["bleu-4"] == pytest.approx(bleu.score)

    def longest(one, other):
        if not one or not other:
            return 0
        if one[-1] == other[-1]:
            return longest(one[:-1], other[:-1]) + 1
        return max(longest(one[:-1], other), longest(one, other[:-1]))

    assert longest("北京", "北京是中国的首都") == 2
    precision, recall = 2 / 2, 2 / 8
    by_hand = 2 * precision * recall / (precision + recall)
    assert scores(CHINESE[1:])["rouge-l"] == pytest.approx(100 * by_hand)


def test_words_of_both_scripts():
    assert words("Hello, 世界! x2", chinese=True) == ["hello", "世", "界", "x2"]
    assert words("Don't stop", chinese=False) == ["don", "t", "stop"]
    assert is_chinese("a 世") and not is_chinese("tschüß")


def test_the_same_and_nothing_alike():
    same = scores([(text, text) for text in ("The cat sat on the mat.", "今天天气很好")])
    assert all(value == pytest.approx(100) for value in same.values())
    assert scores([("", "The cat sat.")]) == {
        "rouge-1": 0,
        "rouge-2": 0,
        "rouge-l": 0,
        "bleu-4": 0,
    }
    assert answer_scores({}) == {}


def test_sums_of_parts_are_the_sums_of_all():
    pairs = ENGLISH + CHINESE
    total = {}
    for pair in pairs:
        for name, value in answer_sums([pair[0]], [pair[1]]).items():
            total[name] = total.get(name, 0) + value
    assert answer_scores(total) == pytest.approx(scores(pairs))
