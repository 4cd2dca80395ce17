"""The device that a flag names."""

from __future__ import annotations

import torch

from ft_core.errors import UsageError


def device_of(name: str | None, flag: str) -> torch.device:
    """Return the device that a flag names.

    Args:
        name: ``cpu`` (also ``None``), ``auto`` for an accelerator if there is one, or a device of torch.
        flag: as the person wrote it.

    Raises:
        UsageError: this machine has no such device.
    """
    if name is None:
        return torch.device("cpu")
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"{flag} {name}: this machine has no such device ({reason}); use cpu or auto"
        ) from error
    return device
