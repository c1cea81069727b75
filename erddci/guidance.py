"""Prompts as tensors, and classifier-free guidance: the only place where w appears."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from erddci.grid import Grid


@dataclass(frozen=True)
class Condition:
    """What the network is told: a prompt, what guidance pushes away from, and how hard.

    Args:
        text: encoded prompt [1 or B, L, D].
        null: encoded negative prompt, usually of the empty prompt [1 or B, L, D].
        guidance_scale: w in ε_u + w(ε_c − ε_u); 1 is plain conditional, 0 unconditional.
        prompt: the words, for labels.
    """

    text: Tensor
    null: Tensor
    guidance_scale: float = 1.0
    prompt: str = ""

    def at(self, guidance_scale: float) -> Condition:
        """The same prompt under another guidance scale."""
        return replace(self, guidance_scale=guidance_scale)

    def same(self, other: Condition) -> bool:
        """Whether the network gives the same noise under both."""
        if self.guidance_scale != other.guidance_scale:
            return False
        ends = [(self.text, other.text)] * (self.guidance_scale != 0)
        ends += [(self.null, other.null)] * (self.guidance_scale != 1)
        return all(torch.equal(mine, theirs) for mine, theirs in ends)


class Denoiser(Protocol):
    """What a method may know of a model."""

    rows: int  # network rows evaluated so far
    name: str  # tells two models apart

    def __call__(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Predict the guided noise ε [B, C, H, W] in x at timestep t ([] or [B])."""
        ...

    def grid(self, steps: int) -> Grid:
        """The noise levels of a walk of `steps` steps."""
        ...


Predict = Callable[[Tensor, Tensor, Tensor], Tensor]


def guide(predict: Predict, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
    """Guided noise ε_u + w(ε_c − ε_u) at one network row per sample if w is 0 or 1, else two.

    Args:
        predict: the network, (x [B, C, H, W], t [B], text [B, L, D]) to noise [B, C, H, W].
        x: latents [B, C, H, W].
        t: timesteps, [] or [B].

    Source: classifier-free guidance (Ho & Salimans 2022, 2207.12598), in the convention of
    diffusers, where w = 1 is unguided.
    """
    rows = len(x)
    w, t = condition.guidance_scale, t.expand(rows)
    text, null = _rows(condition.text, rows), _rows(condition.null, rows)
    if w == 1:
        return predict(x, t, text)
    if w == 0:
        return predict(x, t, null)
    both = predict(torch.cat([x, x]), torch.cat([t, t]), torch.cat([null, text]))
    unconditional, conditional = both.chunk(2)
    return guided(unconditional, conditional, w)


def guided(unconditional: Tensor, conditional: Tensor, w: float) -> Tensor:
    """Guided noise ε_u + w(ε_c − ε_u) of two predictions [B, C, H, W]."""
    return unconditional + w * (conditional - unconditional)


def _rows(text: Tensor, rows: int) -> Tensor:
    if rows % len(text):
        raise ValueError(
            f"expected one prompt or one for each of {rows} latents, got {len(text)} prompts"
        )
    return text.repeat(rows // len(text), 1, 1)
