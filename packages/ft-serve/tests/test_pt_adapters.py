"""Several adapters on one model, against ``generate`` with each of them alone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, PreTrainedModel

from ft_core.engine import GenerationRequest, Sampling
from ft_core.errors import UsageError
from ft_core.testing import VOCABULARY_SIZE, tiny_model
from ft_core.tokenizer import Tokenizer
from ft_serve import PtEngine
from ft_serve.testing import EngineConformance, collect

END = 2
GREEDY = Sampling(max_new_tokens=16)
NAMES = ("first", "second", "third")


@dataclass(frozen=True)
class Setting:
    base: Path
    adapters: dict[str, Path]

    def plain(self) -> PreTrainedModel:
        model = AutoModelForCausalLM.from_pretrained(self.base)
        with torch.no_grad():
            for weight in model.parameters():
                if weight.dim() > 1:
                    weight.mul_(6)
        return model.eval()

    def tuned(self, name: str | None) -> PreTrainedModel:
        model = self.plain()
        return model if name is None else PeftModel.from_pretrained(model, self.adapters[name])

    def engine(self, **settings: object) -> PtEngine:
        return PtEngine(
            self.plain(),
            Tokenizer.from_directory(self.base),
            stop_token_ids=[END],
            adapters=self.adapters,
            **settings,  # type: ignore[arg-type]
        )


def write_adapter(base: Path, directory: Path, seed: int, **settings: object) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        targets = ["q_proj", "v_proj", "down_proj"]
        config = LoraConfig(
            r=2 + seed, lora_alpha=16, target_modules=targets, task_type="CAUSAL_LM", **settings
        )
        adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if "lora_" in name:
                    parameter.normal_(std=0.4)
        adapted.save_pretrained(str(directory))
    return directory


def make_setting(root: Path, **settings: object) -> Setting:
    base = tiny_model(root / "base", "llama")
    adapters = {
        name: write_adapter(base, root / name, seed, **settings) for seed, name in enumerate(NAMES)
    }
    return Setting(base, adapters)


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return make_setting(tmp_path_factory.mktemp("lora"))


@pytest.fixture(scope="module")
def dora(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    """Adapters that peft can't mix in one batch."""
    return make_setting(tmp_path_factory.mktemp("dora"), use_dora=True)


def prompts(count: int) -> list[list[int]]:
    source = random.Random(2)
    return [
        [source.randrange(3, VOCABULARY_SIZE) for _ in range(source.randrange(1, 40))]
        for _ in range(count)
    ]


async def tokens(engine: PtEngine, prompt: list[int], name: str | None) -> list[int]:
    events = await collect(engine, GenerationRequest(prompt, GREEDY, name))
    return [token for event in events for token in event.token_ids]


def reference(model: PreTrainedModel, prompt: list[int]) -> list[int]:
    with torch.inference_mode():
        output = model.generate(
            input_ids=torch.tensor([prompt]),
            attention_mask=torch.ones((1, len(prompt)), dtype=torch.long),
            max_new_tokens=16,
            do_sample=False,
            eos_token_id=END,
            pad_token_id=0,
        )
    return output[0, len(prompt) :].tolist()


class TestEngineWithAdapters(EngineConformance):
    @pytest.fixture
    async def engine(self, lora: Setting) -> AsyncIterator[PtEngine]:
        engine = lora.engine(max_rows=3)
        yield engine
        await engine.close()

    @pytest.fixture
    def prompts(self) -> list[list[int]]:
        return prompts(5)


@pytest.mark.parametrize("kind", ["lora", "dora"])
async def test_each_request_gets_its_own_adapter(kind: str, request: pytest.FixtureRequest) -> None:
    setting: Setting = request.getfixturevalue(kind)
    texts = prompts(12)
    asked = [(None, *NAMES)[index % 4] for index in range(12)]
    models = {name: setting.tuned(name) for name in (None, *NAMES)}
    want = [reference(models[name], text) for name, text in zip(asked, texts, strict=True)]
    assert want != [reference(models[None], text) for text in texts]
    engine = setting.engine(max_rows=6, prefill_tokens=48)
    jobs = [tokens(engine, text, name) for text, name in zip(texts, asked, strict=True)]
    got = await asyncio.gather(*jobs)
    again = await tokens(engine, texts[1], asked[1])
    await engine.close()
    assert got == want
    assert again == want[1]


async def test_one_prompt_is_answered_by_all_adapters(lora: Setting) -> None:
    text = prompts(3)[2] * 3
    engine = lora.engine()
    for _ in range(2):  # the second time what is known of the prompt is each adapter's own
        got = await asyncio.gather(*(tokens(engine, text, name) for name in (None, *NAMES)))
    await engine.close()
    assert got == [reference(lora.tuned(name), text) for name in (None, *NAMES)]


async def test_beams_scores_and_vectors_are_the_adapters(lora: Setting) -> None:
    text = prompts(1)[0]
    model = lora.tuned("second")
    engine = lora.engine()
    beams = Sampling(max_new_tokens=8, num_beams=2)
    events, beside, scores, vectors = await asyncio.gather(
        collect(engine, GenerationRequest(text, beams, "second")),
        tokens(engine, text, "third"),
        engine.score([text], adapter="second"),
        engine.embed([text], pooling="last", adapter="second"),
    )
    await engine.close()
    with torch.inference_mode():
        output = model(torch.tensor([text]), output_hidden_states=True)
        searched = model.generate(
            input_ids=torch.tensor([text]),
            attention_mask=torch.ones((1, len(text)), dtype=torch.long),
            num_beams=2,
            max_new_tokens=8,
            do_sample=False,
            eos_token_id=END,
            pad_token_id=0,
        )
    assert [t for event in events for t in event.token_ids] == searched[0, len(text) :].tolist()
    assert beside == reference(lora.tuned("third"), text)
    table = output.logits[0].log_softmax(-1)
    want = [0.0] + [table[i - 1, text[i]].item() for i in range(1, len(text))]
    assert scores[0].logprobs == pytest.approx(want, abs=1e-4)
    assert vectors[0] == pytest.approx(output.hidden_states[-1][0, -1].tolist(), abs=1e-4)


async def test_the_adapter_of_a_checkpoint_has_a_name_beside_the_base(lora: Setting) -> None:
    text = prompts(1)[0]
    engine = PtEngine(
        lora.tuned("first"),
        Tokenizer.from_directory(lora.base),
        stop_token_ids=[END],
        adapters={"other": lora.adapters["second"]},
        loaded_adapter="default-lora",
    )
    assert engine.adapters == ("default-lora", "other")
    got = await asyncio.gather(*(tokens(engine, text, n) for n in (None, *engine.adapters)))
    await engine.close()
    assert got == [reference(lora.tuned(name), text) for name in (None, "first", "second")]


def test_what_cannot_be_loaded_together_is_refused(lora: Setting, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_directory(lora.base)
    config = IA3Config(target_modules=["k_proj"], feedforward_modules=[], task_type="CAUSAL_LM")
    get_peft_model(lora.plain(), config).save_pretrained(str(tmp_path / "ia3"))
    for adapters, message in (
        ({"whole": lora.base}, "is a whole model"),
        ({"a": lora.adapters["first"], "b": tmp_path / "ia3"}, "b="),
    ):
        with pytest.raises(Exception, match=message) as caught:
            PtEngine(lora.plain(), tokenizer, stop_token_ids=[END], adapters=adapters)
        assert caught.type.__module__ == UsageError.__module__
