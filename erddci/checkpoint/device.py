"""Whether a device is there, and computes in a dtype."""

from __future__ import annotations

import torch
from torch import nn

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_device(device: str | torch.device, dtype: torch.dtype) -> torch.device:
    """The device that is meant, after an operation on it in the dtype of the networks.

    Args:
        device: "auto" takes CUDA, then MPS, then the CPU.

    Raises:
        ValueError: it is not there, or does not compute in that dtype.
    """
    if dtype not in DTYPES:
        names = ", ".join(map(str, DTYPES))
        raise ValueError(f"expected a dtype of {names}, got {dtype!r}")
    here = _devices()
    device = here[0] if device == "auto" else device
    try:
        torch.zeros(1, device=torch.device(device)).item()
    except Exception as error:  # a misspelt device, one of another build, a busy one: all differ
        raise ValueError(
            f"expected a device of this machine ({', '.join(here)}), got {str(device)!r}: name "
            "one of these, or 'auto'"
        ) from error
    try:
        probe = torch.ones(1, 1, 3, 3, device=device, dtype=dtype)
        nn.functional.conv2d(probe, probe).item()
    except Exception as error:
        raise ValueError(
            f"expected a dtype that {device} computes in, got {dtype}: take torch.float32, or "
            "device='cpu'"
        ) from error
    return torch.device(device)


def _devices() -> list[str]:
    cuda = [f"cuda:{n}" for n in range(torch.cuda.device_count())]
    if cuda:
        cuda.insert(0, "cuda")
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return [*cuda, *mps, "cpu"]
