"""What flags ask of a run: LISA, AdaLoRA, NEFTune, GaLore and LoRA+ in whole runs of tiny models."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback
from transformers.integrations.neftune import neftune_post_forward_hook

from ft_core.command import Command, Invocation
from ft_core.command.resolve import resolve
from ft_core.errors import UsageError
from ft_core.models.loading import load_model
from ft_core.samples import Sample, Tokens
from ft_core.sequences import join
from ft_core.testing import tiny_model
from ft_core.tuners import TUNERS
from ft_train import SftRecipe, TrainData, TrainingPlan, train
from ft_train.arguments import RunArguments, TrainingArguments
from ft_train.callbacks.adalora import adalora_model, orthogonality
from ft_train.callbacks.lisa import Lisa
from ft_train.callbacks.neftune import Neftune, document_bounds
from ft_train.looking import run_on_rows
from ft_train.optimizer_arguments import OPTIMIZER_GROUPS
from ft_train.optimizers import GaLoreAdamW
from ft_train.run_options import Extras
from ft_train.tuner_arguments import TUNER_GROUPS
from ft_train.tuner_settings import ModelFacts, tuner_settings
from ft_train.tuning import Tuning, projected_names, tuning_of

COMMAND = Command(
    "train",
    "A training command.",
    (*TUNER_GROUPS, *OPTIMIZER_GROUPS, TrainingArguments, RunArguments),
    "nowhere:run",
)


def read(text: str) -> Invocation:
    return resolve(COMMAND, text.split(), environ={}, warn=lambda _: None)


def samples(count: int) -> list[Sample]:
    generator = torch.Generator().manual_seed(0)
    rows = []
    for row in range(count):
        length = 6 + int(torch.randint(12, (), generator=generator))
        ids = torch.randint(3, 384, (length,), generator=generator).tolist()
        rows.append(Sample((Tokens(ids, [0.0] * 3 + [1.0] * (length - 3)),), row))
    return rows


def plan(**values: Any) -> TrainingPlan:
    settings = {
        "batch_size": 2,
        "gradient_accumulation_steps": 2,
        "steps": 6,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    return TrainingPlan(**{**settings, **values})


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"), num_hidden_layers=4)


def model_of(directory: Path, text: str, the_plan: TrainingPlan) -> Any:
    torch.manual_seed(0)
    invocation = read(text)
    base = load_model(directory, dtype=torch.float32, for_training=True)
    settings = tuner_settings(invocation, ModelFacts(total_steps=the_plan.steps))
    return TUNERS.get(invocation.values["sft_type"].value).apply(base, settings)


def run(
    model: Any,
    output: Path,
    text: str,
    the_plan: TrainingPlan,
    *watchers: TrainerCallback,
    **more: Any,
) -> Tuning:
    output.mkdir(exist_ok=True)
    invocation = read(text)
    tuning = tuning_of(invocation, the_plan)
    train(
        SftRecipe(),
        model,
        TUNERS.get(invocation.values["sft_type"].value),
        TrainData(samples(4)),
        the_plan,
        output,
        extras=Extras(optimizer=tuning.optimizer, penalty=tuning.penalty),
        callbacks=(*tuning.watchers, *watchers),
        **more,
    )
    return tuning


def losses(output: Path) -> list[float]:
    lines = (output / "logging.jsonl").read_text(encoding="utf-8").splitlines()
    return [row["loss"] for row in map(json.loads, lines) if "loss" in row]


class Spy(TrainerCallback):
    """Keeps the weights and the optimizer's states after each step."""

    def __init__(self) -> None:
        self.weights: list[dict[str, torch.Tensor]] = []
        self.remembered: list[set[str]] = []
        self.optimizer: Any = None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        model, self.optimizer = kwargs["model"], kwargs["optimizer"]
        named = dict(model.named_parameters())
        self.weights.append({name: p.detach().clone() for name, p in named.items()})
        states = self.optimizer.state
        self.remembered.append({name for name, p in named.items() if p in states})


LISA = "--sft_type full --lisa_activated_layers 2 --lisa_step_interval 2"


def layer_of(name: str) -> int | None:
    return int(name.split(".")[2]) if ".layers." in name else None


def test_lisa_trains_the_drawn_layers_and_what_is_around_them(
    directory: Path, tmp_path: Path
) -> None:
    the_plan, spy = plan(), Spy()
    model = model_of(directory, LISA, the_plan)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    run(model, tmp_path / "run", LISA, the_plan, spy)
    drawn = []
    for step, weights in enumerate(spy.weights):
        changed = {name for name in weights if not torch.equal(weights[name], before[name])}
        layers = {layer_of(name) for name in changed} - {None}
        assert len(layers) == 2
        around = {name for name in weights if layer_of(name) is None}
        assert around <= changed
        assert spy.remembered[step] == around | {n for n in weights if layer_of(n) in layers}
        drawn.append(layers)
        before = weights
    assert drawn[0] == drawn[1] and drawn[2] == drawn[3] and drawn[4] == drawn[5]
    assert len({frozenset(layers) for layers in drawn}) > 1
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_lisa_resumes_exactly(directory: Path, tmp_path: Path) -> None:
    whole = plan(save_strategy="steps", save_steps=3, save_only_model=False, save_total_limit=None)
    first = model_of(directory, LISA, whole)
    run(first, tmp_path / "run", LISA, whole)
    checkpoint = tmp_path / "run" / "checkpoint-3"
    resumed = load_model(checkpoint, dtype=torch.float32, for_training=True)
    again = tmp_path / "again"
    run(resumed, again, LISA, whole, resume=checkpoint)
    for one, other in zip(first.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_lisa_refuses_more_layers_than_there_are(directory: Path, tmp_path: Path) -> None:
    text = "--sft_type full --lisa_activated_layers 5"
    with pytest.raises(UsageError, match="--lisa_activated_layers 5: the model has 4 layers"):
        run(model_of(directory, text, plan()), tmp_path / "run", text, plan())


def test_lisa_draws_all_layers_alike(directory: Path) -> None:
    lisa = Lisa(2, 1, seed=3)
    lisa._layers = [torch.nn.Linear(1, 1) for _ in range(4)]
    counts = torch.bincount(torch.tensor([lisa.drawn_at(step) for step in range(400)]).flatten())
    assert counts.min() > 150 and counts.sum() == 800


ADALORA = "--sft_type adalora --adalora_init_r 6 --adalora_target_r 3 --lora_dropout 0"


def test_adalora_ends_with_the_wanted_ranks(directory: Path, tmp_path: Path) -> None:
    the_plan = plan(steps=8, save_strategy="steps", save_steps=8)
    model = model_of(directory, ADALORA, the_plan)
    matrices = sum("lora_A" in name for name, _ in model.named_parameters())
    run(model, tmp_path / "run", ADALORA, the_plan)
    pattern = model.peft_config["default"].rank_pattern
    ranks = [sum(kept) for kept in pattern.values()]
    assert len(ranks) == matrices and sum(ranks) == 3 * matrices
    assert len(set(ranks)) > 1  # shared out by importance, not alike
    assert losses(tmp_path / "run")[-1] < losses(tmp_path / "run")[0]
    base = load_model(directory, dtype=torch.float32)
    loaded = TUNERS.get("adalora").load(base, tmp_path / "run" / "checkpoint-8")
    ids = torch.arange(5, 20)[None]
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded.eval()(ids).logits, model(ids).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("step", [3, 5])
def test_adalora_saves_what_it_computes_also_between_decisions(
    step: int, directory: Path, tmp_path: Path
) -> None:
    text = f"{ADALORA} --adalora_deltaT 4"
    the_plan = plan(steps=8, save_strategy="steps", save_steps=step, save_total_limit=None)
    model, spy = model_of(directory, text, the_plan), Spy()
    run(model, tmp_path / "run", text, the_plan, spy)
    base = load_model(directory, dtype=torch.float32)
    loaded = TUNERS.get("adalora").load(base, tmp_path / "run" / f"checkpoint-{step}")
    there = copy.deepcopy(model_of(directory, text, the_plan))
    there.load_state_dict(spy.weights[step - 1], strict=False)
    ids = torch.arange(5, 20)[None]
    with torch.no_grad():
        torch.testing.assert_close(
            loaded.eval()(ids).logits, there.eval()(ids).logits, rtol=0, atol=1e-5
        )


def test_the_penalty_is_the_distance_from_orthogonal_and_counts_once_a_step(
    directory: Path, tmp_path: Path
) -> None:
    the_plan = plan(steps=1, learning_rate=0.0)
    model = model_of(directory, ADALORA, the_plan)
    tuner = adalora_model(model)
    distances = []
    for name, p in tuner.named_parameters():
        if "lora_A" in name:
            distances.append((p @ p.T - torch.eye(6)).pow(2).sum().sqrt())
        if "lora_B" in name:
            distances.append((p.T @ p - torch.eye(6)).pow(2).sum().sqrt())
    expected = 0.5 * sum(distances) / len(distances)
    torch.testing.assert_close(orthogonality(model), expected)

    gradients: list[dict[str, torch.Tensor]] = []

    class Look(TrainerCallback):
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            named = kwargs["model"].named_parameters()
            gradients.append({n: p.grad.clone() for n, p in named if p.grad is not None})

    data = TrainData(samples(4))
    for weight, accumulation in ((0.5, 1), (0.5, 2), (0.0, 1)):
        tuner.peft_config["default"].orth_reg_weight = weight
        model.zero_grad()
        output = tmp_path / f"{weight}-{accumulation}"
        output.mkdir()
        train(
            SftRecipe(),
            model,
            TUNERS.get("adalora"),
            data,
            plan(
                steps=1,
                learning_rate=0.0,
                max_grad_norm=0.0,
                batch_size=4 // accumulation,
                gradient_accumulation_steps=accumulation,
            ),
            output,
            extras=Extras(penalty=orthogonality),
            callbacks=(Look(),),
        )
    tuner.peft_config["default"].orth_reg_weight = 0.5
    model.zero_grad()
    orthogonality(model).backward()
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    for name, parameter in named.items():
        alone = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for with_penalty in gradients[:2]:
            torch.testing.assert_close(
                with_penalty[name] - gradients[2][name], alone, rtol=0, atol=1e-5
            )
    assert losses(tmp_path / "0.5-1") == pytest.approx(losses(tmp_path / "0.0-1"), abs=1e-5)


def noisy(directory: Path, backend: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the noise that a model's embeddings get."""
    model = load_model(directory, dtype=torch.float32, for_training=True)
    plain = model.get_input_embeddings()(batch["input_ids"]).detach()
    watcher = Neftune(5.0, backend)
    watcher.on_train_begin(None, None, None, model=model)
    found: list[torch.Tensor] = []
    model.model.layers[0].register_forward_pre_hook(
        lambda module, inputs: found.append(inputs[0].detach())
    )
    inputs = {n: batch[n] for n in ("input_ids", "position_ids", "attention_mask") if n in batch}
    torch.manual_seed(4)
    model(**inputs, use_cache=False)
    model.eval()
    model(**inputs, use_cache=False)
    watcher.on_train_end(None, None, None)
    model.train()
    model(**inputs, use_cache=False)
    assert torch.equal(found[1], plain) and torch.equal(found[2], plain)
    return found[0] - plain


def test_one_document_gets_the_noise_of_transformers(directory: Path) -> None:
    batch = join([samples(1)[0].sequences[0]])
    model = load_model(directory, dtype=torch.float32, for_training=True)
    embedding = model.get_input_embeddings()
    plain = embedding(batch["input_ids"]).detach()
    embedding.neftune_noise_alpha = 5.0
    torch.manual_seed(4)
    expected = neftune_post_forward_hook(embedding, (), plain) - plain
    for backend in ("transformers", "swift"):
        torch.testing.assert_close(noisy(directory, backend, batch), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("backend", ["transformers", "swift"])
def test_joined_documents_get_noise_by_their_own_length(backend: str, directory: Path) -> None:
    documents = [Tokens([7] * length, [1.0] * length) for length in (400, 25)]
    noise = noisy(directory, backend, join(documents))[0]
    for part, length in ((noise[:400], 400), (noise[400:], 25)):
        size = 5.0 / (length * 32) ** 0.5
        assert part.abs().max() <= size + 1e-6
        assert part.abs().max() > 0.9 * size
        assert part.std() == pytest.approx(size / 3**0.5, rel=0.1)


def test_padding_is_no_text_for_the_own_noise(directory: Path) -> None:
    batch = {
        "input_ids": torch.full((2, 64), 7),
        "attention_mask": torch.tensor([[1] * 64, [1] * 16 + [0] * 48]),
    }
    noise = noisy(directory, "swift", batch)
    assert noise[1, :16].std().item() == pytest.approx(2 * noise[0].std().item(), rel=0.15)


def test_bounds_of_documents() -> None:
    assert document_bounds(torch.tensor([[0, 1, 2, 0, 1, 0]]), 6) == [(0, 3), (3, 5), (5, 6)]
    assert document_bounds(None, 4) == [(0, 4)]
    assert document_bounds(torch.tensor([[3, 4]]), 2) == [(0, 2)]


@pytest.mark.parametrize(
    "text",
    [
        "--galore_rank 4",
        "--galore_rank 4 --galore_with_embedding true --galore_optim_per_parameter true",
        "--galore_rank 4 --galore_quantization true --galore_proj_quant true --galore_update_proj_gap 2",
        "--galore_rank 4 --galore_target_modules q_proj --galore_proj_type full --galore_scale 0.5",
    ],
)
def test_galore_by_its_flags(text: str, directory: Path, tmp_path: Path) -> None:
    text = f"--sft_type full --use_galore true {text}"
    the_plan, spy = plan(), Spy()
    model = model_of(directory, text, the_plan)
    run(model, tmp_path / "run", text, the_plan, spy)
    optimizer = spy.optimizer.optimizer
    assert isinstance(optimizer, GaLoreAdamW)
    assert losses(tmp_path / "run")[-1] < losses(tmp_path / "run")[0]
    low = {
        name
        for name, p in model.named_parameters()
        if optimizer.state[p]["exp_avg"].shape != p.shape
    }
    if "q_proj" in text:
        assert low == {f"model.layers.{layer}.self_attn.q_proj.weight" for layer in range(4)}
    else:
        assert sum("proj" in name for name in low) == 4 * 7
        assert ("lm_head.weight" in low) == ("embedding" in text)
    if "proj_quant" in text:
        state = optimizer.state[model.model.layers[0].mlp.up_proj.weight]
        assert state["right_codes"].dtype == torch.uint8 and state["right_codes"].max() < 16


def test_galore_flags_that_can_not_work(directory: Path) -> None:
    model = load_model(directory, dtype=torch.float32, for_training=True)
    with pytest.raises(UsageError, match="--galore_target_modules wte: no layer"):
        projected_names(model, ["wte"], embeddings=False)
    tuning = tuning_of(read("--sft_type full --use_galore true"), plan())
    assert tuning.optimizer is not None
    with pytest.raises(UsageError, match="--galore_rank 128 projects nothing"):
        tuning.optimizer(model, plan(), frozenset())


def test_lora_plus_by_its_flag(directory: Path, tmp_path: Path) -> None:
    text = "--lora_lr_ratio 16 --lora_dropout 0"
    the_plan, spy = plan(lr_scheduler_type="constant"), Spy()
    run(model_of(directory, text, the_plan), tmp_path / "run", text, the_plan, spy)
    rates = sorted({group["lr"] for group in spy.optimizer.param_groups})
    assert rates == pytest.approx([1e-2, 16e-2])


def test_fp16_adapters_are_refused_where_gradients_are_scaled() -> None:
    with pytest.raises(UsageError, match="--lora_dtype fp16"):
        tuning_of(read("--lora_dtype fp16"), plan(mixed_precision="fp16"))


def test_rows_are_looked_at_without_changing_the_model(directory: Path) -> None:
    model = load_model(directory, dtype=torch.float32, for_training=True)
    seen: list[int] = []
    model.register_forward_pre_hook(
        lambda module, inputs, named: seen.append(named["input_ids"].shape[1]), with_kwargs=True
    )
    rows = samples(100)
    run_on_rows(model, SftRecipe(), TrainData(rows))
    assert seen == [row.length for row in rows[:64]]
    assert model.training and all(p.grad is None for p in model.parameters())
