"""What is trained whole beside an adapter: chosen modules, and the rows of new tokens.

peft wraps such modules. What it saves is plain peft; what it doesn't do by itself is done here: exact
names, tied embeddings, float32 for training, and folding them into the model.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, load_peft_weights, set_peft_model_state_dict
from peft.utils.other import ModulesToSaveWrapper, TrainableTokensWrapper
from transformers import PreTrainedModel

from ft_core.errors import ModelError, UsageError
from ft_core.models.classes import gives_scores
from ft_core.models.modules import endings, find_whole
from ft_core.models.vocabulary import resize_vocabulary, vocabulary_rows
from ft_core.tuners.targets import TargetSettings

SCORE_HEAD = "score"
"""What transformers calls the head of a decoder that gives scores."""

_TIED_NAMES = frozenset({"embed_tokens", "lm_head"})
"""Names by which peft notices that what is trained whole is tied."""


@dataclass(frozen=True, slots=True)
class Whole:
    """What is trained whole.

    Attributes:
        modules: full names of modules; of a tied pair both.
        tokens: for the embedding and the head, ids of the rows that are trained.
        names: what peft calls ``modules``.
        tied: whether the embedding and the head are among ``modules`` and share their weights.
        notes: sentences for the person.
    """

    modules: tuple[str, ...] = ()
    tokens: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    tied: bool = False
    notes: tuple[str, ...] = ()

    def config(self, *, ties: bool = True) -> dict[str, Any]:
        """Return the values of peft's configuration that say so.

        Args:
            ties: whether the configuration is one that knows tied modules, as ``peft.LoraConfig``.
        """
        values: dict[str, Any] = {}
        if self.names:
            values["modules_to_save"] = list(self.names)
        if self.tied and ties:
            values["ensure_weight_tying"] = True
        if self.tokens:
            values["trainable_token_indices"] = {
                name: list(ids) for name, ids in self.tokens.items()
            }
        return values


def find_whole_parts(model: PreTrainedModel, settings: TargetSettings) -> Whole:
    """Decide what is trained whole; the head of a model that gives scores is.

    Raises:
        UsageError: a module that doesn't exist or can't be trained whole, or a head with a bias that is
            tied to the embedding.
    """
    named = (*settings.modules_to_save, *((SCORE_HEAD,) if gives_scores(model) else ()))
    modules = list(find_whole(model, named))
    names = {module: name for name, module in model.named_modules()}
    head = model.get_output_embeddings()
    embedding_name, head_name = names[model.get_input_embeddings()], names.get(head)
    tied = head is not None and head.weight is model.get_input_embeddings().weight
    biased = head is not None and getattr(head, "bias", None) is not None
    notes = []
    saves_tied = tied and (embedding_name in modules or head_name in modules)
    if tied and biased and (saves_tied or settings.new_token_ids):
        raise UsageError(
            f"--modules_to_save and --new_special_tokens: {head_name} has a bias and shares the weights of "
            f"{embedding_name}, and adapters can't train such a pair; use --sft_type full"
        )
    if saves_tied:
        if not {embedding_name.rpartition(".")[2], str(head_name)} & _TIED_NAMES:
            raise UsageError(
                f"--modules_to_save: {embedding_name} shares its weights with {head_name}, which peft can't keep tied "
                "under these names; leave them out, or use --sft_type full"
            )
        modules += [name for name in (embedding_name, str(head_name)) if name not in modules]
    parts = [] if saves_tied else [embedding_name]
    if settings.new_token_ids and head_name is not None and not tied:
        if biased and head_name not in modules:
            modules.append(head_name)
            notes.append(
                f"{head_name} is trained whole: it has a bias, and peft's rows leave it out"
            )
        parts.append(head_name)
    tokens = {
        name: settings.new_token_ids
        for name in parts
        if settings.new_token_ids and name not in modules
    }
    return Whole(tuple(modules), tokens, endings(model, modules), saves_tied, tuple(notes))


def settle(adapted: PeftModel, whole: Whole) -> None:
    """Finish what peft began: check what it wrapped, name tied modules, and train in float32.

    Raises:
        ModelError: peft wrapped other modules than it was told to.
    """
    base = adapted.get_base_model()
    wrapped = {
        name for name, item in base.named_modules() if isinstance(item, ModulesToSaveWrapper)
    }
    if wrapped != set(whole.modules):
        raise ModelError(
            f"peft trains {', '.join(sorted(wrapped))} whole instead of {', '.join(whole.modules)}; name the modules "
            "of --modules_to_save in full"
        )
    if whole.tied:
        # It takes the head off the list, and without it wouldn't find the tie again when it loads.
        adapted.active_peft_config.modules_to_save = list(whole.names)
    _widen(adapted)
    tie_copies(adapted)


def tie_copies(adapted: PeftModel) -> None:
    """Let modules that are trained whole share weights where those they were made from do."""
    first: dict[torch.nn.Parameter, torch.nn.Parameter] = {}
    for wrapper in adapted.modules():
        if not isinstance(wrapper, ModulesToSaveWrapper):
            continue
        trained = wrapper.modules_to_save[wrapper.active_adapters[0]]
        for name, parameter in list(trained.named_parameters()):
            owner, _, leaf = name.rpartition(".")
            original = getattr(wrapper.original_module.get_submodule(owner), leaf)
            setattr(trained.get_submodule(owner), leaf, first.setdefault(original, parameter))


def fit_rows(model: PreTrainedModel, directory: Path) -> None:
    """Give a base model as many rows as an adapter was trained with, so that it can be attached."""
    config = json.loads((directory / "adapter_config.json").read_text(encoding="utf-8"))
    indices = config.get("trainable_token_indices") or {}
    lists = indices.values() if isinstance(indices, dict) else [indices]
    needed = max((index + 1 for ids in lists for index in ids), default=0)
    if needed > vocabulary_rows(model):
        resize_vocabulary(model, needed)
    if not config.get("modules_to_save"):
        return
    names = {module: name for name, module in model.named_modules()}
    key = f"base_model.model.{names[model.get_input_embeddings()]}.weight"
    saved = load_peft_weights(str(directory), device="cpu").get(key)
    if saved is not None:
        resize_vocabulary(model, saved.shape[0])


def restore_float32(adapted: PeftModel, directory: Path) -> None:
    """Make an adapter that was attached for training as precise as it was saved."""
    if _widen(adapted):
        set_peft_model_state_dict(adapted, load_peft_weights(str(directory), device="cpu"))


def fold(adapted: PeftModel) -> None:
    """Put what was trained whole in place of what it was made from, rounded once to the model's data type.

    Raises:
        ModelError: it holds numbers that aren't finite.
    """
    weights: dict[torch.nn.Parameter, torch.nn.Parameter] = {}
    for name, wrapper in adapted.named_modules():
        if (
            isinstance(wrapper, TrainableTokensWrapper)
            and wrapper.token_adapter.tied_adapter is None
        ):
            try:
                wrapper.token_adapter.merge(safe_merge=True)
            except ValueError as error:
                raise ModelError(f"the rows of {name} can't be merged: {error}") from error
        if isinstance(wrapper, ModulesToSaveWrapper):
            adapter = wrapper.active_adapters[0]
            trained = wrapper.modules_to_save[adapter]
            if not all(bool(item.isfinite().all()) for item in trained.parameters()):
                raise ModelError(f"{name} can't be merged: it holds numbers that aren't finite")
            wrapper.modules_to_save[adapter] = _plain(wrapper.original_module, trained, weights)


def settle_tie(base: PreTrainedModel) -> None:
    """Note in the configuration where the head no longer shares the weights of the embedding."""
    head = base.get_output_embeddings()
    if head is not None and head.weight is not base.get_input_embeddings().weight:
        base.config.tie_word_embeddings = False


def _plain(
    original: torch.nn.Module,
    trained: torch.nn.Module,
    weights: dict[torch.nn.Parameter, torch.nn.Parameter],
) -> torch.nn.Module:
    """Return a module like ``original`` with the trained weights; what they shared they share again."""
    plain = copy.deepcopy(original)
    plain.load_state_dict(trained.state_dict())
    for name, parameter in trained.named_parameters():
        owner, _, leaf = name.rpartition(".")
        holder = plain.get_submodule(owner)
        same = weights.setdefault(parameter, getattr(holder, leaf))
        setattr(holder, leaf, same)
    return plain


def _widen(adapted: PeftModel) -> bool:
    """Hold single layers that are trained whole in float32, where their small steps count.

    They compute in float32 and give back the data type of the model around them. Returns whether one was
    less precise before.
    """
    changed = False
    for wrapper in adapted.modules():
        if not isinstance(wrapper, ModulesToSaveWrapper):
            continue
        dtype = next(wrapper.original_module.parameters()).dtype
        layer = wrapper.modules_to_save[wrapper.active_adapters[0]]
        if dtype == torch.float32 or any(True for _ in layer.children()):
            continue
        layer.to(torch.float32)
        layer.register_forward_pre_hook(_to_float32, with_kwargs=True)
        layer.register_forward_hook(partial(_to_dtype, dtype))
        changed = True
    return changed


def _to_float32(
    layer: torch.nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return tuple(_cast(item, torch.float32) for item in inputs), {
        name: _cast(item, torch.float32) for name, item in named.items()
    }


def _to_dtype(dtype: torch.dtype, layer: torch.nn.Module, inputs: Any, output: Any) -> Any:
    return _cast(output, dtype)


def _cast(item: Any, dtype: torch.dtype) -> Any:
    floating = isinstance(item, torch.Tensor) and item.is_floating_point()
    return item.to(dtype) if floating else item
