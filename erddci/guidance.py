"""Prompts as tensors, and classifier-free guidance: the only place where w appears."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from erddci.grid import Grid


@dataclass(frozen=True)
class GuidanceSchedule:
    """How guidance changes over a trajectory: dynamic control, in three forms that combine.

    This is our own formulation: the paper names a dynamic control strategy for high guidance, but
    its formula was not available to us.

    Args:
        interval: D1, the timesteps (lowest, highest) between which guidance acts; outside, w = 1.
        power: D1, guidance is scaled by (t/T) to this power: 0 for not at all; the larger, the
            earlier in sampling guidance ends.
        guide_inversion: D2, whether inversion is guided by this schedule too; without it a dual
            chain is inverted at w = 1.
        anchor: D3, the share in [0, 1] of the distance to the inverted trajectory by which every
            sampling step is pulled towards it.
        clip: D3, the most that guidance may add to the noise, in units of the RMS of ε_c.

    Source: the interval is that of Kynkäänniemi et al. 2024 (2404.07724), in timesteps.
    """

    interval: tuple[float, float] = (0.0, 1000.0)
    power: float = 0.0
    guide_inversion: bool = False
    anchor: float = 0.0
    clip: float = math.inf

    def __post_init__(self) -> None:
        low, high = self.interval
        if not (low <= high and self.power >= 0 and 0 <= self.anchor <= 1 and self.clip > 0):
            raise ValueError(
                "expected interval = (lowest, highest), power ≥ 0, anchor in [0, 1] and clip > 0, "
                f"got {self}"
            )

    def weight(self, t: Tensor) -> Tensor:
        """How much of w − 1 acts at timesteps t, in [0, 1]."""
        low, high = self.interval
        return (t / 1000) ** self.power * ((t >= low) & (t <= high))


# Among the best for edits of the schedules measured, and exact at any w.  Below t = 600 what the
# power leaves of guidance changes edits too little to pay for a second function evaluation.
DEFAULT_SCHEDULE = GuidanceSchedule(interval=(600.0, 1000.0), power=4.0, guide_inversion=True)


@dataclass(frozen=True)
class Condition:
    """What the network is conditioned on: a prompt, what guidance pushes away from, and how hard.

    Args:
        text: encoded prompt [1 or B, L, D].
        null: encoded negative prompt, usually of the empty prompt [1 or B, L, D].
        guidance_scale: w in ε_u + w(ε_c − ε_u); 1 is plain conditional, 0 unconditional.
        prompt: the words, for labels.
        schedule: how w changes over a trajectory; by default it does not.
        negative_prompt: the words of `null`, for labels.
    """

    text: Tensor
    null: Tensor
    guidance_scale: float = 1.0
    prompt: str = ""
    schedule: GuidanceSchedule | None = None
    negative_prompt: str = ""

    def with_guidance(
        self, guidance_scale: float, schedule: GuidanceSchedule | None = None
    ) -> Condition:
        """The same prompt under another guidance scale, constant unless `schedule` is given."""
        return replace(self, guidance_scale=guidance_scale, schedule=schedule)

    def clone(self) -> Condition:
        """The same with tensors of its own."""
        return replace(self, text=self.text.clone(), null=self.null.clone())

    def samples(self, start: int, stop: int, of: int) -> Condition:
        """The part for samples `start` to `stop` of a batch `of` so many."""
        text = _expand_prompts(self.text, of)[start:stop]
        null = _expand_prompts(self.null, of)[start:stop]
        return replace(self, text=text, null=null)

    def scale(self, t: Tensor) -> Tensor:
        """The guidance scale w at timesteps t, float64 on the CPU."""
        if self.schedule is None:
            return torch.full(t.shape, self.guidance_scale, dtype=torch.float64)
        return 1 + (self.guidance_scale - 1) * self.schedule.weight(t.cpu().double())

    @property
    def clipped(self) -> bool:
        """Whether what guidance may add to the noise is bounded."""
        return self.schedule is not None and self.schedule.clip != math.inf

    def guided(self, unconditional: Tensor, conditional: Tensor, t: Tensor) -> Tensor:
        """Guided noise ε_u + w(ε_c − ε_u) [B, C, H, W] at timesteps t, [] or [B]."""
        w, change = self.scale(t).to(conditional), conditional - unconditional
        w = w.reshape(-1, 1, 1, 1)
        if self.schedule is None or not self.clipped:
            return unconditional + w * change
        push = (w - 1) * change
        most = self.schedule.clip * _rms(conditional) / _rms(push)
        return conditional + push * most.nan_to_num(1.0, 1.0).clamp(max=1)

    def equivalent(self, other: Condition) -> bool:
        """Whether the network predicts the same noise under both."""
        if self.guidance_scale != other.guidance_scale:
            return False
        if self.guidance_scale == 1:
            return torch.equal(self.text, other.text)
        if self.schedule != other.schedule or not torch.equal(self.null, other.null):
            return False
        # A schedule may raise w = 0 to 1, and then the prompt matters.
        prompt_matters = self.guidance_scale != 0 or self.schedule is not None
        return not prompt_matters or torch.equal(self.text, other.text)


# All that a method may know of a model: guided noise ε in x [B, C, H, W] at timestep t ([] or [B])
# under a condition.
Denoiser = Callable[[Tensor, Tensor, Condition], Tensor]


class Model(Protocol):
    """A denoiser, its noise levels, and what tells it from others."""

    @property
    def name(self) -> str:
        """What a trajectory remembers it by."""
        ...

    @property
    def fingerprint(self) -> str:
        """All that decides what it computes, as text; the place it was loaded from is no part."""
        ...

    def difference(self, fingerprint: str) -> str | None:
        """Name what differs from the model of a fingerprint, or None if nothing does."""
        ...

    @property
    def nfe(self) -> int:
        """Function evaluations so far: one for each sample in a call of the network."""
        ...

    def __call__(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Predict the guided noise ε [B, C, H, W] in x at timestep t ([] or [B])."""
        ...

    def grid(self, steps: int) -> Grid:
        """The noise levels of `steps` steps."""
        ...


Predict = Callable[[Tensor, Tensor, Tensor], Tensor]


def guided_noise(predict: Predict, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
    """Guided noise ε_u + w(ε_c − ε_u): an evaluation a sample if all w are 0 or 1, else two.

    Args:
        predict: the network, (x [B, C, H, W], t [B], text [B, L, D]) to noise [B, C, H, W].
        x: latents [B, C, H, W].
        t: timesteps, [] or [B].

    Source: classifier-free guidance (Ho & Salimans 2022, 2207.12598), in the convention of
    diffusers, where w = 1 is unguided.
    """
    samples = len(x)
    t = t.expand(samples)
    w = condition.scale(t)
    text = _expand_prompts(condition.text, samples)
    null = _expand_prompts(condition.null, samples)
    if (w == 1).all():
        return predict(x, t, text)
    if (w == 0).all() and not condition.clipped:  # clipping needs both predictions
        return predict(x, t, null)
    both = predict(torch.cat([x, x]), torch.cat([t, t]), torch.cat([null, text]))
    unconditional, conditional = both.chunk(2)
    return condition.guided(unconditional, conditional, t)


def guide_known(
    model: Denoiser, x: Tensor, t: Tensor, condition: Condition, conditional: Tensor
) -> Tensor:
    """Guided noise where ε_c is known: one function evaluation a sample if w ≠ 1 at t ([])."""
    if condition.scale(t) == 1:
        return conditional
    return condition.guided(model(x, t, condition.with_guidance(0)), conditional, t)


def _expand_prompts(text: Tensor, samples: int) -> Tensor:
    if samples % len(text):
        raise ValueError(
            f"expected one prompt or one for each of {samples} latents, got {len(text)} prompts"
        )
    return text.repeat(samples // len(text), 1, 1)


def _rms(x: Tensor) -> Tensor:
    return x.square().mean((1, 2, 3), keepdim=True).sqrt()
