"""From arguments to a model that is ready to work: the one path of training, inference and export.

``prepare`` is cheap and finds most mistakes: it resolves and fetches the model, reads its tokenizer and
chooses its chat format. ``Prepared.load`` then loads the weights.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ft_core.arguments import (
    LoadingArguments,
    MediaArguments,
    ModelArguments,
    QuantizationArguments,
    TemplateArguments,
)
from ft_core.checkpoints import SavedCheckpoint, open_checkpoint
from ft_core.errors import UsageError
from ft_core.hub import fetch
from ft_core.known_formats import registered_format
from ft_core.media import MediaLimits, MediaProcessor, MediaTemplate
from ft_core.media.choice import processor_of
from ft_core.models.how import How
from ft_core.models.registry import find_by_name
from ft_core.models.remote_code import check_remote_code
from ft_core.models.repositories import import_repository, use_repository
from ft_core.models.resolution import ModelSource, resolve_model
from ft_core.registry import run_register_file
from ft_core.templates import ChosenTemplate, choose_template
from ft_core.tokenizer import Tokenizer
from ft_core.tuner import WHOLE_MODEL

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel

    from ft_core.models.devices import Placement
    from ft_core.models.rope import RopeScaling

Say = Callable[[str], None]


def to_stderr(text: str) -> None:
    """Print a line for the person, apart from a command's output."""
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model that is fetched, with its tokenizer and chat format; its weights are not loaded yet.

    Attributes:
        source: where the model, or the base of an adapter, comes from.
        directory: its local directory.
        checkpoint: the checkpoint that was asked for, if one was.
        tokenizer: the checkpoint's or the model's.
        chosen: the chat format and why it was chosen.
        trust_remote_code: whether code of the model's repository may run.
        new_tokens: texts of tokens that the model itself doesn't have.
        media: the model's processor, if it sees or hears.
    """

    source: ModelSource
    directory: Path
    checkpoint: SavedCheckpoint | None
    tokenizer: Tokenizer
    chosen: ChosenTemplate
    trust_remote_code: bool = False
    new_tokens: tuple[str, ...] = ()
    media: MediaProcessor | None = None

    @property
    def new_token_ids(self) -> tuple[int, ...]:
        """Ids of ``new_tokens``."""
        ids = (self.tokenizer.token_to_id(text) for text in self.new_tokens)
        return tuple(token_id for token_id in ids if token_id is not None)

    @property
    def name(self) -> str:
        """What output directories call the model."""
        return self.source.name

    def how(
        self,
        arguments: ModelArguments,
        *,
        quantized: QuantizationArguments | None = None,
        loading: LoadingArguments | None = None,
        max_length: int = -1,
        sft_type: str | None = None,
    ) -> How:
        """Decide how the weights are loaded on this machine, and refuse what can't work before they are.

        Args:
            arguments: which model.
            quantized: whether its weights are quantized while they are loaded.
            loading: where its parts go, and whether its positions are stretched.
            max_length: longest text in tokens, which ``rope_scaling`` stretches to; -1 if not given.
            sft_type: what is trained; ``None`` where nothing is.

        Raises:
            UsageError: flags that can't work together, with this model or on this machine.
            DependencyError: what quantization needs is not installed.
        """
        from ft_core.models.attention import choose_attention
        from ft_core.models.dtype import choose_dtype
        from ft_core.models.quantization import settle_quantization

        placement, rope = self._layout(loading, max_length)
        device = default_device() if placement is None else placement.first
        quantization, stored = settle_quantization(
            None if quantized is None else quantized.wanted(),
            self.directory,
            device,
            sft_type=sft_type,
            divided=placement is not None and len(placement.devices) > 1,
        )
        spec = self.source.spec
        dtype = choose_dtype(
            arguments.dtype,
            spec,
            device,
            trains_all=sft_type in WHOLE_MODEL,
            weights=quantization or stored,
        )
        attention = choose_attention(
            arguments.use_flash_attn, spec, device, dtype.torch, self.directory
        )
        return How(device, dtype, attention, quantization, stored, placement, rope)

    def _layout(
        self, loading: LoadingArguments | None, max_length: int
    ) -> tuple[Placement | None, RopeScaling | None]:
        """Settle where parts of the model go and how its positions are stretched."""
        if loading is None:
            return None, None
        from ft_core.models.devices import choose_placement
        from ft_core.models.rope import choose_rope, read_config, trained_length

        placement = choose_placement(loading.device_map_config_path, loading.device_max_memory)
        if loading.rope_scaling is None:
            return placement, None
        rope = choose_rope(
            loading.rope_scaling,
            read_config(self.directory, trust_remote_code=self.trust_remote_code),
            max_length,
            trained_length=trained_length(self.checkpoint),
        )
        return placement, rope

    def generation_config(self) -> GenerationConfig:
        """Return the model's generation config with the stop tokens of the chat format."""
        from transformers import GenerationConfig

        for directory in (
            self.checkpoint.path if self.checkpoint else self.directory,
            self.directory,
        ):
            if (directory / "generation_config.json").is_file():
                config = GenerationConfig.from_pretrained(directory, local_files_only=True)
                break
        else:
            config = GenerationConfig()
        stops = sorted(self.chosen.template.stop_token_ids)
        config.eos_token_id = stops if len(stops) > 1 else stops[0] if stops else None
        config.pad_token_id = self.tokenizer.pad_token_id
        config.bos_token_id = self.tokenizer.bos_token_id
        return config

    def load(self, how: How, *, for_training: bool = False) -> PreTrainedModel:
        """Load the weights: the model's own, or with a checkpoint what that holds.

        Args:
            how: as ``self.how`` decided.
            for_training: with gradients on; an adapter of the checkpoint can then be trained on.
        """
        from ft_core.models.loading import load_checkpoint, load_model

        import_repository(self.source.spec)
        settings: dict[str, Any] = {
            "dtype": how.dtype.torch,
            "attention": how.attention.name,
            "device": how.device,
            "quantization": how.quantization,
            "placement": how.placement,
            "rope": how.rope,
            "trust_remote_code": self.trust_remote_code,
            "scores": how.scores,
        }
        if self.checkpoint is not None:
            return load_checkpoint(
                self.checkpoint, source=self.source, trainable=for_training, **settings
            )
        model = load_model(
            self.directory,
            for_training=for_training,
            name=self.source.base_name(self.directory),
            report=to_stderr,
            **settings,
        )
        return self._with_new_tokens(model)

    def shapes(self, how: How) -> PreTrainedModel:
        """Return the model with shapes but without weights, which takes no memory."""
        from ft_core.models.memory import meta_model

        import_repository(self.source.spec)
        model = meta_model(
            self.directory,
            how.dtype.torch,
            trust_remote_code=self.trust_remote_code,
            scores=how.scores,
        )
        return self._with_new_tokens(model)

    def _with_new_tokens(self, model: PreTrainedModel) -> PreTrainedModel:
        if ids := self.new_token_ids:
            from ft_core.models.vocabulary import add_tokens

            add_tokens(model, ids, known=self.tokenizer.vocab_size - len(ids))
        return model


def prepare(
    model: ModelArguments,
    template: TemplateArguments,
    *,
    ckpt_dir: str | None = None,
    new_tokens: Sequence[str] = (),
    given: Container[str] = (),
    say: Say = to_stderr,
    weights: bool = True,
    media: MediaArguments | MediaLimits | None = None,
) -> Prepared:
    """Resolve and fetch a model, read its tokenizer, choose its chat format.

    Args:
        model: which model; with ``ckpt_dir`` they are what the checkpoint saved, unless a person said else.
        template: which chat format.
        ckpt_dir: a checkpoint to use instead of the plain model.
        new_tokens: texts to add to the vocabulary; those that are tokens already are told and left alone.
        given: names of flags a person set.
        say: is told what takes long and what was decided.
        weights: false for work on text alone: neither weights nor code of the model are needed then.
        media: what is read of images, videos and audios; ``None`` takes what suits a person's own rows.

    Raises:
        UsageError: unknown names, or a repository that loads the model is not given.
        ModelError: the checkpoint or the model's directory can't be used.
        HubError: the model can't be fetched.
    """
    if model.custom_register_path is not None:
        run_register_file(model.custom_register_path)
    checkpoint = None if ckpt_dir is None else open_checkpoint(ckpt_dir)
    source = _source(model, checkpoint)
    directory = _fetch(source, model, say, weights=weights)
    own = (
        checkpoint.path if checkpoint is not None and _has_tokenizer(checkpoint.path) else directory
    )
    tokenizer = Tokenizer.from_directory(own, trust_remote_code=model.trust_remote_code)
    added = tuple(text for text in new_tokens if tokenizer.token_to_id(text) is None)
    if added and checkpoint is not None:
        raise UsageError(
            f"--new_special_tokens {added[0]}: the checkpoint {checkpoint.path} was trained without it, and a resumed "
            "run keeps its vocabulary; leave it out"
        )
    if checkpoint is None and (known := [text for text in new_tokens if text not in added]):
        say(f"--new_special_tokens: {', '.join(known)} are tokens already")
    tokenizer = tokenizer.with_tokens(added)
    spec = source.spec
    registered, because = registered_format(source, directory, tokenizer)
    chosen = choose_template(
        template.template_type,
        tokenizer,
        registered=registered,
        prefers_record=spec is not None and spec.era == "v2",
        system=template.system,
        agent=template.tools_prompt if "tools_prompt" in given else None,
        model_agent=None if spec is None else spec.agent_template,
        because=because,
        variables=template.variables,
        today=template.date,
    )
    for name in chosen.template.ignored(template.variables):
        say(f"{name} has no effect: the chat format doesn't look at it")
    if "tools_prompt" in given and chosen.template.tools_prompt is None:
        say("--tools_prompt has no effect: the chat template has a form of its own for tools")
    processor = processor_of(own, directory, checkpoint, media)
    if processor is not None:
        chosen = replace(chosen, template=MediaTemplate(chosen.template, processor))
    return Prepared(
        source, directory, checkpoint, tokenizer, chosen, model.trust_remote_code, added, processor
    )


def base_model(model: ModelArguments, ckpt_dir: str | Path, *, say: Say = to_stderr) -> ModelSource:
    """Return where the base of an adapter comes from, with the code that loads it at hand.

    Args:
        model: names the base; where it names none, the checkpoint does.
        ckpt_dir: the adapter's checkpoint.
        say: is told which code will run.

    Raises:
        UsageError: unknown names, or a repository that loads the model is not given.
        ModelError: the checkpoint can't be used, or doesn't name its base.
    """
    from ft_core.models.loading import base_source

    checkpoint = open_checkpoint(ckpt_dir)
    if model.model_type or model.model_id_or_path:
        source = resolve_model(model.model_type, model.model_id_or_path, model.model_revision)
    else:
        source = base_source(checkpoint)
    use_repository(source.spec, model.local_repo_path, say)
    import_repository(source.spec)
    return replace(source, check_latest=model.check_model_is_latest)


def default_device() -> str:
    """Return the device this process works on: its own GPU, or the CPU."""
    import torch

    if torch.cuda.is_available():
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return "cpu"


def _source(model: ModelArguments, checkpoint: SavedCheckpoint | None) -> ModelSource:
    if checkpoint is not None and checkpoint.whole:
        named = model.model_type
        registered = named if named is not None and find_by_name(named) is not None else None
        return resolve_model(registered, str(checkpoint.path))
    source = resolve_model(model.model_type, model.model_id_or_path, model.model_revision)
    return replace(source, check_latest=model.check_model_is_latest)


def _fetch(source: ModelSource, model: ModelArguments, say: Say, *, weights: bool) -> Path:
    """Fetch a model whose code is there and may run; what is said twice is passed on once."""
    name = source.location if source.hub in ("huggingface", "modelscope") else source.name
    if not weights:
        directory = fetch(source, weights=False, report=say)
        if model.trust_remote_code:
            check_remote_code(directory, name, trusted=True, say=say)
        return directory
    said: set[str] = set()

    def once(text: str) -> None:
        if text not in said:
            said.add(text)
            say(text)

    use_repository(source.spec, model.local_repo_path, say)
    if source.spec is None or source.spec.repository is None:
        # The configuration first: a refusal should come before gigabytes do.
        configuration = fetch(source, weights=False, report=once)
        check_remote_code(configuration, name, trusted=model.trust_remote_code, say=say)
    return fetch(source, report=once)


def _has_tokenizer(directory: Path) -> bool:
    return any(
        (directory / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")
    )
