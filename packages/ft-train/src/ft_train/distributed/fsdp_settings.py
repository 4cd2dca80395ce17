"""Settings of FSDP2, read from the flags of transformers' FSDP."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ft_core.errors import UsageError, suggest

_WORDS = (
    "full_shard",
    "shard_grad_op",
    "hybrid_shard",
    "hybrid_shard_zero2",
    "offload",
    "auto_wrap",
)
_KEYS = {
    *(
        "reshard_after_forward",
        "cpu_offload",
        "transformer_layer_cls_to_wrap",
        "activation_checkpointing",
    ),
    *(
        "version",
        "fsdp_version",
        "sync_module_states",
        "cpu_ram_efficient_loading",
        "state_dict_type",
    ),
    *(
        "backward_prefetch",
        "forward_prefetch",
        "limit_all_gathers",
        "use_orig_params",
        "min_num_params",
    ),
    *("auto_wrap_policy", "mixed_precision_policy"),
}
_WITHOUT_EFFECT = {
    *(
        "backward_prefetch",
        "forward_prefetch",
        "limit_all_gathers",
        "use_orig_params",
        "min_num_params",
    ),
    *(
        "auto_wrap_policy",
        "mixed_precision_policy",
        "sync_module_states",
        "cpu_ram_efficient_loading",
    ),
}


@dataclass(frozen=True, slots=True)
class FsdpSettings:
    """How FSDP2 divides a model.

    Attributes:
        reshard_after_forward: give back a layer's weights after its forward pass (ZeRO-3), or keep them until
            the backward pass is done with them (ZeRO-2).
        within_nodes: divide over the processes of a node, and copy over the nodes.
        offload: keep the parts on the CPU while they aren't used.
        layers: names of classes whose modules are gathered one at a time; empty takes the decoder layers.
        ignored: keys of the configuration that FSDP2 has no use for.
    """

    reshard_after_forward: bool = True
    within_nodes: bool = False
    offload: bool = False
    layers: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


def read_fsdp(words: str, config: str | Mapping[str, Any] | None) -> FsdpSettings | None:
    """Return what ``--fsdp`` and ``--fsdp_config`` mean; ``None`` for no FSDP.

    Raises:
        UsageError: an unknown word or key, or a configuration that can't be read.
    """
    named = words.replace(",", " ").split()
    if not named:
        return None
    if named in (["true"], ["fsdp"], ["fsdp2"]):
        named = ["full_shard"]
    for word in named:
        if word == "no_shard":
            raise UsageError(
                "--fsdp no_shard divides nothing, which is what happens without --fsdp; leave it out"
            )
        if word not in _WORDS:
            raise UsageError(
                f"--fsdp {words}: {word} is unknown; use some of {', '.join(_WORDS)}.{suggest(word, _WORDS)}"
            )
    strategies = [word for word in named if word not in ("offload", "auto_wrap")]
    if len(strategies) != 1:
        raise UsageError(
            f"--fsdp {words}: give exactly one of full_shard, shard_grad_op, hybrid_shard and hybrid_shard_zero2"
        )
    values = {key.removeprefix("fsdp_"): item for key, item in _read(config).items()}
    unknown = sorted(set(values) - {key.removeprefix("fsdp_") for key in _KEYS})
    if unknown:
        raise UsageError(
            f"--fsdp_config: {unknown[0]} is unknown.{suggest(unknown[0], _KEYS) or ' Leave it out.'}"
        )
    if values.get("version", 2) not in (2, "2"):
        raise UsageError(
            f"--fsdp_config: version {values['version']} is no longer maintained by torch; leave it out for version 2"
        )
    layers = values.get("transformer_layer_cls_to_wrap") or ()
    reshard = strategies[0] in ("full_shard", "hybrid_shard")
    return FsdpSettings(
        reshard_after_forward=bool(values.get("reshard_after_forward", reshard)),
        within_nodes=strategies[0].startswith("hybrid"),
        offload="offload" in named or bool(values.get("cpu_offload", False)),
        layers=(layers,) if isinstance(layers, str) else tuple(layers),
        ignored=tuple(sorted(_WITHOUT_EFFECT & set(values))),
    )


def _read(config: str | Mapping[str, Any] | None) -> dict[str, Any]:
    if config is None:
        return {}
    if not isinstance(config, str):
        return dict(config)
    text = config
    if not config.lstrip().startswith("{"):
        file = Path(config).expanduser()
        if not file.is_file():
            raise UsageError(f"--fsdp_config {config}: no such file; give a JSON file, or JSON")
        text = file.read_text(encoding="utf-8")
    try:
        values = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--fsdp_config {config}: can't be read as JSON: {error}") from error
    if not isinstance(values, dict):
        raise UsageError(f"--fsdp_config {config}: holds no JSON object")
    return values
