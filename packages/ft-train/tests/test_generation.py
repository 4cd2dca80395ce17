"""Answers of the model in training: what they go on from, and that they disturb nothing."""

import pytest
import torch

from ft_core.engine import Sampling
from ft_core.samples import Tokens
from ft_train.generation import AnswerSettings, Question, answer, question_of


def settings(decode, **sampling):
    values = {"max_new_tokens": 6, **sampling}
    return AnswerSettings(decode, frozenset({2}), sampling=Sampling(**values))


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([0, 0, 1, 1], Question((10, 11), (12, 13))),
        ([0, 1, 0, 0, 1, 1], Question((10, 11, 12, 13), (14, 15))),
        ([0, 0, 1, 1, 0], Question((10, 11), (12, 13))),
        ([1, 1, 1, 1], Question((10, 11), (12, 13))),
    ],
    ids=["one answer", "the last of two", "text after it", "a text"],
)
def test_a_question_ends_where_the_last_answer_begins(weights, expected):
    tokens = Tokens(list(range(10, 10 + len(weights))), weights)
    assert question_of(tokens) == expected


def test_a_batch_answers_as_plain_generate_does_alone(lab, decode):
    model = lab.model().train()
    prompts = [[5, 6, 7], [8, 9, 10, 11, 12, 13], [3]]
    found = answer(model, prompts, settings(decode), seed=0)
    assert model.training
    model.eval()
    for prompt, text in zip(prompts, found, strict=True):
        ids = torch.tensor([prompt])
        output = model.generate(ids, max_new_tokens=6, do_sample=False, eos_token_id=2)
        plain = [token for token in output[0, len(prompt) :].tolist() if token != 2]
        assert text == decode(plain)


def test_sampling_is_repeatable_and_leaves_the_random_state(lab, decode):
    model = lab.model()
    how = settings(decode, temperature=1.0, top_p=1.0, max_new_tokens=20)
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    first, second = (answer(model, [[5, 6, 7]], how, seed=1) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first == second != answer(model, [[5, 6, 7]], how, seed=2)
    assert answer(model, [[5, 6, 7]], how.greedy(4), seed=1) == answer(
        model, [[5, 6, 7]], settings(decode, max_new_tokens=4), seed=9
    )


def test_a_stop_string_ends_the_text(lab, decode):
    model = lab.model()
    whole = answer(model, [[5, 6, 7]], settings(decode), seed=0)[0].split()
    how = AnswerSettings(decode, frozenset(), (whole[2],), sampling=Sampling(max_new_tokens=6))
    found = answer(model, [[5, 6, 7]], how, seed=0)[0].split()
    assert found == whole[: whole.index(whole[2])]
