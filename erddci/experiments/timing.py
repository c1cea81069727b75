"""What walks cost: seconds, memory and network rows; no inversion is paid for twice."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from erddci.guidance import Condition
from erddci.inversion import METHODS, invert
from erddci.model import StableDiffusion
from erddci.trajectory import Trajectory


@dataclass(frozen=True)
class CachedInversion:
    """A path to noise and what it took: seconds of all samples together, and peak memory."""

    path: Trajectory
    seconds: float
    peak: dict[str, float]


def cached_inversion(
    model: StableDiffusion,
    x: Tensor,
    condition: Condition,
    method: str,
    steps: int,
    kept: dict[Any, Any],
    **options: object,
) -> CachedInversion:
    """Invert some samples, once for all cases that climb alike.

    Args:
        kept: inversions of these samples that are known already; a new one is added.
        options: keyword arguments of the method.
    """
    guided = METHODS[method].is_guided(condition, options.get("guided"))
    # Where guidance is 1 no schedule has an effect.
    under = (condition.guidance_scale, condition.schedule) if guided else (1.0, None)
    under = (1.0, None) if under[0] == 1 else under
    key = ("inversion", method, under, steps, *options.items())
    if key not in kept:
        start = synchronized_time(model)
        with peak_memory(model) as high:
            path = invert(model, x, condition, method, steps, **options)
            seconds = synchronized_time(model) - start
        kept[key] = CachedInversion(path, seconds, high)
    return kept[key]


def synchronized_time(model: StableDiffusion) -> float:
    """Seconds, after all that a GPU was asked to do is done."""
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter()


@contextmanager
def peak_memory(model: StableDiffusion) -> Iterator[dict[str, float]]:
    """Peak memory in MB while the block runs: of the GPU, or of the process where Linux tells."""
    found: dict[str, float] = {}
    high = Path("/proc/self/status")
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(model.device)
    elif sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM back to what is in use
    yield found
    if model.device.type == "cuda":
        found["peak_mb"] = torch.cuda.max_memory_allocated(model.device) / 1e6
    elif sys.platform == "linux":
        line = next(line for line in high.read_text().splitlines() if line.startswith("VmHWM"))
        found["peak_mb"] = int(line.split()[1]) / 1e3
