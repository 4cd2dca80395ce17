"""Several adapters on one model: which rows of a batch get which, without merging any."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper
from safetensors import SafetensorError
from transformers import PreTrainedModel

from ft_core.checkpoints import open_checkpoint
from ft_core.errors import ModelError, UsageError
from ft_core.tuners import TUNERS
from ft_core.tuners.older_layout import as_peft
from ft_core.tuners.peft_adapter import quiet_peft

BASE = "__base__"
"""What peft calls the rows that no adapter changes."""

LOADED = "default"
"""What peft calls the first adapter."""

PROBE_TOLERANCE = 1e-3
"""Share of the largest logit by which a row may differ in a mixed batch."""


class RowAdapters:
    """Puts adapters on the rows of a forward pass.

    A pass whose rows all have one adapter runs with that one alone; others give each row its own, where
    the adapters can be mixed.

    Args:
        model: a plain model, or one of peft's with all the adapters attached.
        names: for each name a request may give, what peft calls it.
        plain: whether a request without a name gets the base; otherwise it gets the model as it is.
    """

    def __init__(
        self, model: PreTrainedModel, names: Mapping[str, str] | None = None, *, plain: bool = False
    ) -> None:
        self.model = model
        self._names = dict(names or {})
        self._without = BASE if plain and self._names else LOADED
        self._active = LOADED
        self._mixed: list[str] | None = None
        self._hand_rows_to_layers()
        self.mixes = self._can_mix()

    @property
    def names(self) -> tuple[str, ...]:
        """Names a request may give."""
        return tuple(self._names)

    def check(self, name: str | None) -> None:
        """Refuse an unknown name.

        Raises:
            UsageError: naming those there are.
        """
        if name is not None and name not in self._names:
            known = ", ".join(self._names) or "none"
            raise UsageError(f"adapter {name!r} is not loaded; there are: {known}")

    def use(self, rows: Sequence[str | None]) -> None:
        """Make the next forward pass use these adapters."""
        self._use([self._without if name is None else self._names[name] for name in rows])

    def _use(self, wanted: list[str]) -> None:
        if not self._names:
            return
        self._mixed = wanted if len(set(wanted)) > 1 else None
        self._activate(next((name for name in wanted if name != BASE), BASE))

    def _activate(self, name: str) -> None:
        if name == self._active:
            return
        tuner = cast(PeftModel, self.model).base_model
        if name == BASE:
            tuner.disable_adapter_layers()
        else:
            tuner.enable_adapter_layers()
            cast(PeftModel, self.model).set_adapter(name)
        self._active = name

    def _hand_rows_to_layers(self) -> None:
        # peft itself would add and remove these hooks in each pass, and leave them after one that fails.
        for module in self.model.modules():
            if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper):
                module.register_forward_pre_hook(self._add_rows, with_kwargs=True)

    def _add_rows(
        self, module: torch.nn.Module, values: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        return None if self._mixed is None else (values, {**named, "adapter_names": self._mixed})

    @torch.inference_mode()
    def _can_mix(self) -> bool:
        """Try it: methods and layers that can't mix raise an error, or give a row another one's numbers."""
        mixed = list(dict.fromkeys([self._without, *self._names.values()]))
        if not self._names or len(mixed) == 1:
            return False
        ids = torch.tensor([[1, 2, 3]], device=self.model.device)
        alone = []
        for name in mixed:
            self._use([name])
            alone.append(self.model(input_ids=ids).logits[0])
        self._use(mixed)
        try:
            together = self.model(input_ids=ids.expand(len(mixed), -1)).logits
        except (ValueError, TypeError, RuntimeError, IndexError):
            return False
        expected = torch.stack(alone)
        bound = PROBE_TOLERANCE * float(expected.abs().max())
        return bool(((together - expected).abs() <= bound).all())


def attach_adapters(
    model: PreTrainedModel, adapters: Mapping[str, str | Path], *, loaded: str | None = None
) -> RowAdapters:
    """Load adapters beside each other.

    Args:
        model: the base, or the base with one adapter of peft.
        adapters: name and checkpoint of each.
        loaded: name of the adapter that the model has already; with it, requests without a name get the base.

    Raises:
        UsageError: a name is taken, or the methods of two adapters exclude each other.
        ModelError: a checkpoint can't be used.
    """
    names: dict[str, str] = {} if loaded is None else {loaded: LOADED}
    for name, directory in adapters.items():
        if name in names:
            raise UsageError(f"--lora_modules {name}={directory}: that name is taken")
        checkpoint = open_checkpoint(str(directory))
        if checkpoint.whole:
            raise UsageError(
                f"--lora_modules {name}={directory} is a whole model; give the checkpoint of an adapter"
            )
        if isinstance(model, PeftModel):
            names[name] = f"adapter{len(names)}"
            _load_beside(model, name, checkpoint.path, names[name])
        else:
            model = TUNERS.get(checkpoint.kind).load(model, checkpoint.path)
            if not isinstance(model, PeftModel):
                raise UsageError(
                    f"--lora_modules {name}={directory}: a checkpoint of --sft_type {checkpoint.kind} can't be "
                    "taken off the model again; give it as --ckpt_dir"
                )
            names[name] = LOADED
    model.eval()
    return RowAdapters(model, names, plain=True)


def _load_beside(model: PeftModel, name: str, directory: Path, internal: str) -> None:
    try:
        with as_peft(directory) as plain, quiet_peft():
            warnings.filterwarnings("error", message="Found missing adapter keys")
            model.load_adapter(str(plain), adapter_name=internal)
    except (OSError, ValueError, KeyError, RuntimeError, UserWarning, SafetensorError) as error:
        raise ModelError(
            f"--lora_modules {name}={directory} can't be loaded beside the other adapters: {error}"
        ) from error
