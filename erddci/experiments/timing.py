"""What inversion and sampling cost in seconds and memory, and a cache of inversions."""

from __future__ import annotations

import math
import time
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from erddci.model import StableDiffusion
from erddci.trajectory import Trajectory


class Invertible(Protocol):
    """How an image is inverted, as a part of `EditConfig` or `ReconstructionConfig`."""

    @property
    def inversion(self) -> Hashable:
        """What the inversion depends on: a key for caches."""
        ...

    def invert(self, model: StableDiffusion, x: Tensor, sources: Sequence[str]) -> Trajectory:
        """Invert latents [B, C, H, W] under their prompts."""
        ...


@dataclass
class Cost:
    """Seconds, and on a GPU peak memory in MB; not a number until the block that is timed ends."""

    seconds: float = math.nan
    peak_mb: float = math.nan


@dataclass(frozen=True)
class CachedInversion:
    """A trajectory to noise and what it cost, all samples together."""

    path: Trajectory
    cost: Cost


def cached_inversion(
    config: Invertible, model: StableDiffusion, x: Tensor, prompts: Sequence[str], cache: dict
) -> CachedInversion:
    """Invert latents, once for all configurations that invert alike.

    Args:
        cache: of these latents; a new inversion is added.
    """
    key = config.inversion
    if key not in cache:
        with cost_of(model) as cost:
            path = config.invert(model, x, prompts)
        cache[key] = CachedInversion(path, cost)
    return cache[key]


@contextmanager
def cost_of(model: StableDiffusion) -> Iterator[Cost]:
    """What a block costs, once it has ended."""
    on_gpu = model.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(model.device)
    cost = Cost()
    start = synchronized_time(model)
    yield cost
    cost.seconds = synchronized_time(model) - start
    if on_gpu:
        cost.peak_mb = torch.cuda.max_memory_allocated(model.device) / 1e6


def synchronized_time(model: StableDiffusion) -> float:
    """Seconds, after all that a GPU was asked to do is done."""
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter()
