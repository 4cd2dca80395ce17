"""Whoever is examined: an engine in this process, or a server that speaks OpenAI's protocol."""

from ft_eval.respondents.protocol import Answer, Likelihood, Prompt, Question, Respondent

__all__ = ["Answer", "Likelihood", "Prompt", "Question", "Respondent"]
