"""Pushing what an export made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ft_core.errors import UsageError
from ft_core.hub import Destination, open_destination, push
from ft_core.models.resolution import use_hugging_face
from ft_core.prepare import Prepared, Say
from ft_quant.export import Made
from ft_quant.export_arguments import PublishArguments

_NOT_PUSHED = (
    *("optimizer.pt", "optimizer/*", "scheduler.pt", "scaler.pt", "rng_state*.pth"),
    *("trainer_state.json", "training_args.bin", "*.log", "logging.jsonl", ".*"),
)
"""What belongs to training, or to nobody."""


def open_repository(arguments: PublishArguments) -> Destination | None:
    """Open the repository before time is spent; ``None`` where nothing is pushed.

    Raises:
        UsageError: there is no token, or nothing that could be pushed.
        HubError: the hub can't be reached or refuses.
    """
    if not arguments.push_to_hub:
        return None
    assert arguments.hub_model_id is not None
    return open_destination(
        arguments.hub_model_id,
        hub="huggingface" if use_hugging_face() else "modelscope",
        token=arguments.hub_token,
        private=arguments.hub_private_repo,
    )


def publish(
    destination: Destination,
    made: Sequence[Made],
    prepared: Prepared,
    *,
    message: str,
    say: Say,
) -> None:
    """Push what was made: the quantized model, else the merged one, else the adapter; a GGUF file into a folder.

    Without anything made the checkpoint itself is pushed, which also goes on with a push that broke off: hubs keep the
    files they have.

    Raises:
        HubError: the hub can't be reached or refuses; what was made is on disk.
    """
    paths = {item.kind: item.path for item in made}
    main = next((paths[kind] for kind in ("quantized", "merged", "peft") if kind in paths), None)
    if main is None and "gguf" not in paths:
        assert prepared.checkpoint is not None
        main = prepared.checkpoint.path
    if main is not None:
        _push(destination, main, "", message, say)
    if "gguf" in paths:
        _push(destination, paths["gguf"], "" if main is None else "gguf", message, say)


def check_pushable(prepared: Prepared, *, makes: bool) -> None:
    """Refuse to push a model that neither is a checkpoint nor becomes something.

    Raises:
        UsageError: there is nothing to push.
    """
    if not makes and prepared.checkpoint is None:
        raise UsageError(
            "--push_to_hub true has nothing to push: give --ckpt_dir, or make something of the model (--quant_bits, --to_gguf)"
        )


def _push(destination: Destination, directory: Path, under: str, message: str, say: Say) -> None:
    say(f"pushing {directory} to {destination}")
    push(destination, directory, message=message, under=under, leave_out=_NOT_PUSHED)
