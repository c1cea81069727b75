"""What the package says without stopping, and the error of numbers that cannot be."""

from __future__ import annotations

import sys
import warnings

import torch
from torch import Tensor

# Packages whose lines are not the user's: this one, and what wraps its functions.
INSIDE = ("erddci", "torch")


class NoEffect(UserWarning):
    """Says that something was asked for and changes nothing."""


class NotFinite(ValueError):
    """Says where numbers became infinite or NaN, and what helps."""


def notify(message: str, category: type[Warning] = NoEffect) -> None:
    """Warn of `message` at the nearest line on the stack that is not the package's own."""
    frame = sys._getframe(1)
    level = 2
    while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] in INSIDE:
        frame = frame.f_back
        level += 1
    warnings.warn(message, category, stacklevel=level)


def check_finite(x: Tensor, what: str, remedy: str) -> Tensor:
    """Return a tensor of finite numbers.

    Raises:
        NotFinite: infinite or NaN numbers in it.
    """
    if x.isfinite().all():
        return x
    kind = "NaN" if x.isnan().any() else "infinite"
    raise NotFinite(f"expected finite numbers, got {kind} ones {what}: {remedy}")


def half_precision(dtype: torch.dtype) -> str:
    """What to do about numbers that a network of this dtype cannot hold."""
    if dtype == torch.float16:
        return "float16 ends at 65504; load the model with dtype=torch.bfloat16 or torch.float32"
    return f"the network computes in {str(dtype).removeprefix('torch.')}; check its weights"
