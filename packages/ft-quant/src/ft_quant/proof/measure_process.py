"""A script, not a module: loads a model with transformers alone, scores texts and answers prompts.

``measure`` runs it in a fresh process, perhaps of another environment, so it imports nothing of ft.

Usage: ``python measure_process.py REQUEST.json RESULT.json``. The request holds

- ``directory``, and ``gguf_file`` for a GGUF file in it; ``dtype`` of the computation,
- ``sequences``: token ids of held-out texts, and ``scored``: for each token whether its prediction counts,
- ``questions``: what the model is asked, each through the tokenizer's chat template if it has one,
- ``new_tokens``: of each greedy answer, and ``threads`` of torch.

The result holds the summed negative log-likelihood and the most likely token at each position, text and ids of
each prompt and of its answer, times and the largest memory of the process.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any


def main(request_file: str, result_file: str) -> None:
    """Read the request, measure, write the result."""
    request = json.loads(Path(request_file).read_text(encoding="utf-8"))
    import torch

    if request["threads"]:
        torch.set_num_threads(request["threads"])
    started = time.perf_counter()
    model, tokenizer = load(request)
    loaded = time.perf_counter()
    rows = zip(request["sequences"], request["scored"], strict=True)
    scored = [score(model, ids, counts) for ids, counts in rows]
    generating = time.perf_counter()
    prompts = [prompt_of(tokenizer, question) for question in request["questions"]]
    prompt_ids = [ids_of(tokenizer, text) for text in prompts]
    answers = [answer(model, ids, request["new_tokens"]) for ids in prompt_ids]
    ended = time.perf_counter()
    result = {
        "class": type(model).__name__,
        "nll": sum(nll for nll, _ in scored),
        "tokens": sum(len(choices) for _, choices in scored),
        "choices": [choices for _, choices in scored],
        "prompts": prompts,
        "prompt_ids": prompt_ids,
        "answers": answers,
        "texts": [tokenizer.decode(ids, skip_special_tokens=True) for ids in answers],
        "loading_seconds": loaded - started,
        "scoring_seconds": generating - loaded,
        "generating_seconds": ended - generating,
        "new_tokens": sum(map(len, answers)),
        "peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    Path(result_file).write_text(json.dumps(result), encoding="utf-8")


def load(request: dict[str, Any]) -> tuple[Any, Any]:
    """Load model and tokenizer as anybody would."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    directory, gguf = request["directory"], request["gguf_file"]
    extra = {"gguf_file": gguf} if gguf else {}
    tokenizer = AutoTokenizer.from_pretrained(directory, **extra)
    if gguf and not tokenizer.chat_template:  # transformers leaves it in the file
        tokenizer.chat_template = template_in(Path(directory) / gguf)
    dtype = getattr(torch, request["dtype"])
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype, **extra)
    return model.eval(), tokenizer


def template_in(file: Path) -> str | None:
    """Return the chat template that a GGUF file holds."""
    from gguf import GGUFReader

    field = GGUFReader(file).get_field("tokenizer.chat_template")
    return None if field is None else str(field.contents())


def score(model: Any, ids: list[int], counts: list[int]) -> tuple[float, list[int]]:
    """Return the summed negative log-likelihood of the tokens that count, and the most likely token in place of each."""
    import torch

    tokens = torch.tensor([ids], device=model.device)
    chosen = torch.tensor(counts[1:], dtype=torch.bool, device=model.device)
    with torch.no_grad():
        logits = model(input_ids=tokens, use_cache=False).logits[0, :-1][chosen].float()
    loss = torch.nn.functional.cross_entropy(logits, tokens[0, 1:][chosen], reduction="sum")
    return float(loss), logits.argmax(-1).tolist()


def prompt_of(tokenizer: Any, question: str) -> str:
    """Return the text that a chat client would make of a question."""
    if not tokenizer.chat_template:
        return question
    messages = [{"role": "user", "content": question}]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def ids_of(tokenizer: Any, prompt: str) -> list[int]:
    """Return a prompt's tokens; a chat template writes the special ones itself."""
    return list(tokenizer(prompt, add_special_tokens=not tokenizer.chat_template)["input_ids"])


def answer(model: Any, ids: list[int], new_tokens: int) -> list[int]:
    """Return a greedy answer."""
    import torch

    tokens = torch.tensor([ids], device=model.device)
    with torch.no_grad():
        output = model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=new_tokens,
            do_sample=False,
            num_beams=1,
            temperature=None,
            top_p=None,
            top_k=None,
        )
    return list(output[0, len(ids) :].tolist())


if __name__ == "__main__":
    main(*sys.argv[1:3])
