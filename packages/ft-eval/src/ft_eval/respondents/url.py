"""A running server that speaks OpenAI's protocol, as a respondent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ft_core.engine import Sampling
from ft_core.errors import ModelError, UsageError, suggest
from ft_core.examples import Message
from ft_eval.respondents.client import Client, Flags, Pause
from ft_eval.respondents.protocol import Answer, Likelihood, Prompt, Question

PROMPTS = 16
"""Prompts of one request that scores."""


async def connect(
    url: str,
    model: str | None,
    *,
    chat: bool,
    token: str | None = None,
    timeout: float = 120,
    flags: tuple[str, str, str] = ("eval_url", "model_type", "eval_token"),
    say: Callable[[str], None] | None = None,
    pause: Pause | None = None,
    title: str | None = None,
) -> UrlRespondent:
    """Look at a server and return what can be asked there.

    Args:
        url: its base URL.
        model: the served name; ``None`` takes the server's only one.
        chat: whether the model is asked in conversations.
        token: sent as a bearer token.
        timeout: seconds for one answer.
        flags: names of the flags for url, model and token, for messages.
        say: is told when the server asks for patience.
        pause: waits between tries.
        title: what reports call it; ``None`` takes the served name.

    Raises:
        ModelError: no server answers, or one of another kind.
        UsageError: it doesn't serve this model.
    """
    extra = {} if pause is None else {"pause": pause}
    client = Client(url, token, timeout, Flags(*flags), say=say, **extra)
    served = _served(await client.get(f"{client.url}/models"), client)
    if model is None and len(served) != 1:
        raise UsageError(
            f"--{flags[0]} {url}: serves {', '.join(served) or 'no model'}; choose one with --{flags[1]}"
        )
    name = served[0] if model is None else model
    if name not in served:
        raise UsageError(
            f"--{flags[1]} {name}: {url} serves {', '.join(served)}.{suggest(name, served)}"
        )
    respondent = UrlRespondent(title or name, name, client, chat)
    respondent.can_score = await respondent.probe_scores()
    return respondent


def _served(data: Any, client: Client) -> list[str]:
    try:
        return [str(item["id"]) for item in data["data"]]
    except (KeyError, TypeError):
        raise ModelError(
            f"--{client.flags.url} {client.url}: /models doesn't list models as OpenAI's protocol does"
        ) from None


@dataclass(slots=True)
class UrlRespondent:
    """Asks a server.

    Attributes:
        name: what reports call it.
        served: the model's name on the server.
        client: the connection.
        chat: whether the model is asked in conversations.
        can_score: whether the server gives log-probabilities of prompts.
    """

    name: str
    served: str
    client: Client
    chat: bool
    can_score: bool = False
    _continuations: dict[str, list[int]] = field(default_factory=dict)

    @property
    def identity(self) -> Mapping[str, Any]:
        """URL and name; what weights stand behind them only the server knows."""
        return {"url": self.client.url, "model": self.served, "chat": self.chat}

    @property
    def scores(self) -> bool:
        """Whether the server gives log-probabilities of prompts."""
        return self.can_score

    @property
    def agent(self) -> str | None:
        """Unknown: a server that doesn't take calls out of the text may write them in any format."""
        return None

    async def answer(self, prompt: Prompt, sampling: Sampling) -> Answer:
        """Ask for an answer."""
        body: dict[str, Any] = {
            "model": self.served,
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
        }
        if sampling.stop:
            body["stop"] = list(sampling.stop[:4])
        if prompt.text is not None:
            data = await self.client.post(
                f"{self.client.url}/completions", {**body, "prompt": prompt.text}
            )
        else:
            body["messages"] = [_message(message) for message in prompt.messages]
            if prompt.beginning:
                body["messages"].append({"role": "assistant", "content": prompt.beginning})
                body |= {"add_generation_prompt": False, "continue_final_message": True}
            if prompt.tools:
                body["tools"] = [_tool(tool) for tool in prompt.tools]
            data = await self.client.post(f"{self.client.url}/chat/completions", body)
        answer = self._read(data)
        return _cut(answer, sampling.stop[4:])

    async def likelihoods(self, questions: Sequence[Question]) -> list[list[Likelihood]]:
        """Score continuations through /completions with echo."""
        encoded: list[tuple[list[int], int]] = []
        for question in questions:
            encoded += [await self._encode(question.prompt, c) for c in question.continuations]
        found: list[Likelihood] = []
        for begin in range(0, len(encoded), PROMPTS):
            part = encoded[begin : begin + PROMPTS]
            found += await self._score([ids for ids, _ in part], [start for _, start in part])
        places = iter(found)
        return [[next(places) for _ in question.continuations] for question in questions]

    async def close(self) -> None:
        """Close the connections."""
        await self.client.close()

    async def probe_scores(self) -> bool:
        """Return whether the server tokenizes, and scores the tokens of a prompt."""
        asked = {"messages": [{"role": "user", "content": "a"}]} if self.chat else {"prompt": "a b"}
        data = await self.client.try_post(
            f"{self.client.root}/tokenize", {"model": self.served, **asked}
        )
        if data is None or not isinstance(data.get("tokens"), list) or not data["tokens"]:
            return False
        echoed = await self.client.try_post(
            f"{self.client.url}/completions", self._scoring([data["tokens"]])
        )
        try:
            logprobs = echoed["choices"][0]["logprobs"]["token_logprobs"]
        except (KeyError, TypeError, IndexError):
            return False
        return len(logprobs) == len(data["tokens"]) + 1

    def _scoring(self, rows: Sequence[Sequence[int]]) -> dict[str, Any]:
        return {
            "model": self.served,
            "prompt": [list(row) for row in rows],
            "max_tokens": 1,
            "temperature": 0,
            "echo": True,
            "logprobs": 1,
        }

    async def _encode(self, prompt: Prompt, continuation: str) -> tuple[list[int], int]:
        """Return all tokens and where the continuation starts among them."""
        if prompt.text is None:
            messages = [_message(message) for message in prompt.messages]
            context = await self._tokenize({"messages": messages})
            if prompt.beginning:
                context += await self._continuation(prompt.beginning)
            return [*context, *await self._continuation(continuation)], len(context)
        kept = prompt.text.rstrip()
        whole = await self._tokenize({"prompt": kept + prompt.text[len(kept) :] + continuation})
        # The first token of a text has no predecessor and isn't scored.
        start = len(await self._tokenize({"prompt": kept})) if kept else 1
        return whole, start

    async def _continuation(self, text: str) -> list[int]:
        """Tokenize the beginning of an answer as it stands in a conversation, without a space of its own."""
        if text not in self._continuations:
            user = {"role": "user", "content": "a"}
            context = await self._tokenize({"messages": [user]})
            begun = {
                "model": self.served,
                "messages": [user, {"role": "assistant", "content": text}],
                "add_generation_prompt": False,
                "continue_final_message": True,
            }
            # Not every server goes on with a turn of the assistant's.
            data = await self.client.try_post(f"{self.client.root}/tokenize", begun) or {}
            whole = [int(token) for token in data.get("tokens") or ()]
            if whole[: len(context)] == context and len(whole) > len(context):
                self._continuations[text] = whole[len(context) :]
            else:
                asked = {"prompt": text, "add_special_tokens": False}
                self._continuations[text] = await self._tokenize(asked)
        return self._continuations[text]

    async def _tokenize(self, asked: Mapping[str, Any]) -> list[int]:
        data = await self.client.post(
            f"{self.client.root}/tokenize", {"model": self.served, **asked}
        )
        try:
            return [int(token) for token in data["tokens"]]
        except (KeyError, TypeError, ValueError):
            raise self._strange("/tokenize", "tokens") from None

    async def _score(
        self, rows: Sequence[Sequence[int]], starts: Sequence[int]
    ) -> list[Likelihood]:
        data = await self.client.post(f"{self.client.url}/completions", self._scoring(rows))
        try:
            choices = sorted(data["choices"], key=lambda choice: choice["index"])
            found = [
                _likelihood(choice["logprobs"], len(row), start)
                for choice, row, start in zip(choices, rows, starts, strict=True)
            ]
        except (KeyError, TypeError, ValueError, IndexError):
            raise self._strange("/completions", "logprobs of the prompt") from None
        return found

    def _read(self, data: Any) -> Answer:
        try:
            choice = data["choices"][0]
            message = choice.get("message") or {}
            text = choice["text"] if "text" in choice else message.get("content")
            usage = data.get("usage") or {}
            return Answer(
                str(text or ""),
                str(choice.get("finish_reason") or "stop"),
                int(usage.get("prompt_tokens") or 0),
                int(usage.get("completion_tokens") or 0),
                tuple(message.get("tool_calls") or ()),
            )
        except (KeyError, TypeError, IndexError, AttributeError):
            raise self._strange("its answer", "choices") from None

    def _strange(self, what: str, lacking: str) -> ModelError:
        return ModelError(
            f"--{self.client.flags.url} {self.client.url}: {what} has no {lacking} as OpenAI's protocol has them; is it "
            "an OpenAI-compatible server?"
        )


def _likelihood(logprobs: Mapping[str, Any], length: int, start: int) -> Likelihood:
    values, top, tokens = (logprobs[name] for name in ("token_logprobs", "top_logprobs", "tokens"))
    if len(values) != length + 1:
        raise ValueError(f"{len(values)} log-probabilities for {length} tokens and one more")
    places = range(start, length)
    greedy = all(tokens[place] == max(top[place], key=top[place].get) for place in places)
    return Likelihood(sum(float(values[place]) for place in places), len(places), greedy)


def _message(message: Message) -> dict[str, Any]:
    data = message.to_json()
    data.pop("weight", None)
    return data


def _tool(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    return tool if "function" in tool else {"type": "function", "function": dict(tool)}


def _cut(answer: Answer, stops: Sequence[str]) -> Answer:
    """Apply stop texts beyond the four that OpenAI's protocol takes."""
    places = [place for stop in stops if (place := answer.text.find(stop)) >= 0]
    if not places:
        return answer
    return Answer(answer.text[: min(places)], "stop", answer.prompt_tokens, answer.generated_tokens)
