"""The noise levels of a trajectory, and the one formula that steps between them.

Notation, used throughout the package:

======  ==========================================================  ============
symbol  meaning                                                     shape
======  ==========================================================  ============
x       latents; x_0 of the image, x_T noise                        [B, C, H, W]
i       node, an index on the grid: 0 is the image, N is noise      0…N
t       the network's timestep at a node                            []
a, b    cumulative alpha (``alphas_cumprod``, ᾱ) where a step       []
        starts and ends
ε, eps  ``model(x, t, condition)``: guided noise, ε_u + w(ε_c − ε_u)  [B, C, H, W]
w       guidance scale; w = 1 is the plain conditional prediction   []
σ       √((1 − ᾱ)/ᾱ), the noise level of y = x/√ᾱ                   []
======  ==========================================================  ============

*Inversion* goes from the image to noise, *sampling* back; a *reconstruction* is sampling under the
prompt of the inversion.  *NFE* counts function evaluations, one for each sample in a call of the
network.  The *VAE round trip* of an image is encode, then decode; its error against the input
image is the *VAE floor*, below which no method can get.  The *latent error* at a node is the
largest absolute difference of two trajectories there.

Only this module does arithmetic with timesteps.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from diffusers import DDIMScheduler
from torch import Tensor
from tqdm.auto import tqdm

from erddci.registry import unknown


def ddim_step(x: Tensor, eps: Tensor, a: Tensor, b: Tensor, s: float | Tensor = 0.0) -> Tensor:
    """Step latents from noise level `a` to noise level `b` along the noise `eps`.

    One formula serves both directions: it removes noise where b > a and adds noise where b < a.
    In y = x/√ᾱ it reads y ← y + (σ_b − σ_a)·ε.  A sampling step that will be followed by fresh
    noise of standard deviation `s` leaves room for it; this is then the step's mean.

    Args:
        x, eps: latents [B, C, H, W].
        a, b: cumulative alphas in (0, 1], scalars.
        s: 0 for DDIM; at most √(1 − b).

    Source: DDIM (Song et al. 2021, 2010.02502), eq. 12, whose σ_t is s.
    """
    return (b / a).sqrt() * x + ((1 - b - s**2).sqrt() - (b * (1 - a) / a).sqrt()) * eps


def to_epsilon(output: Tensor, x: Tensor, a: Tensor, prediction_type: str) -> Tensor:
    """Turn what a network predicts at cumulative alpha `a` into the noise ε in `x`.

    Args:
        output, x: [B, C, H, W].
        a: cumulative alpha of the timestep that the network was given, scalar or [B, 1, 1, 1].
        prediction_type: "epsilon", "v_prediction" or "sample", as schedulers name it.

    Raises:
        ValueError: another prediction type.
    Source: v-prediction from Salimans & Ho 2022 (2202.00512), appendix D.
    """
    if prediction_type == "epsilon":
        return output
    if prediction_type == "v_prediction":
        return a.sqrt() * output + (1 - a).sqrt() * x
    if prediction_type == "sample":
        return (x - a.sqrt() * output) / (1 - a).sqrt()
    raise unknown(prediction_type, ("epsilon", "v_prediction", "sample"), "prediction type")


@dataclass(frozen=True)
class Grid:
    """N + 1 noise levels: node 0 is the image, node N is noise.

    Args:
        t: the network's timesteps [N + 1], increasing.
        alphas: their cumulative alphas ᾱ [N + 1], float64, decreasing (two may be equal).
    """

    t: Tensor
    alphas: Tensor

    def __post_init__(self) -> None:
        if self.t.shape != self.alphas.shape or self.t.ndim != 1 or len(self.t) < 2:
            raise ValueError(
                "expected as many timesteps as alphas, two or more, "
                f"got shapes {tuple(self.t.shape)} and {tuple(self.alphas.shape)}"
            )
        if (self.alphas.diff() > 0).any() or self.alphas[-1] <= 0:
            raise ValueError(
                "expected alphas that decrease from the image to noise and stay above 0: "
                "a schedule of zero terminal SNR leaves nothing to divide by"
            )

    @classmethod
    def from_scheduler(cls, config: dict, steps: int) -> Grid:
        """Read the nodes that a checkpoint's own scheduler visits in `steps` DDIM steps.

        Node i ≥ 1 is the i-th of the timesteps that `DDIMScheduler` lists, counted from the
        image; node 0 has its final alpha, which `set_alpha_to_one` decides, and t = 0.  With
        `steps_offset=0` and `set_alpha_to_one=False` nodes 0 and 1 coincide and the step between
        them does nothing.

        Raises:
            ValueError: `steps` is not between 1 and the number of training timesteps.
        """
        # What is written counts: of its private settings, one would bring defaults back.
        written = {name: value for name, value in config.items() if not name.startswith("_")}
        scheduler = DDIMScheduler.from_config(written)
        most = scheduler.config.num_train_timesteps  # type: ignore[attr-defined]
        if not 1 <= steps <= most:
            raise ValueError(f"expected between 1 and {most} steps, got {steps}")
        scheduler.set_timesteps(steps)
        # Rounding can give trailing spacing one timestep more, below the first.
        t = scheduler.timesteps[:steps].flip(0)
        # steps_offset can push the last timestep of a very fine grid past the end.
        t = t.clamp(max=most - 1)
        alphas = cumulative_alphas(scheduler)[t]
        image = scheduler.final_alpha_cumprod.double()
        return cls(torch.cat([torch.zeros(1, dtype=t.dtype), t]), torch.cat([image[None], alphas]))

    @property
    def num_steps(self) -> int:
        """N, the number of steps between image and noise."""
        return len(self.t) - 1

    @property
    def sigmas(self) -> Tensor:
        """Noise levels σ = √((1 − ᾱ)/ᾱ) [N + 1]."""
        return ((1 - self.alphas) / self.alphas).sqrt()

    def step(
        self, x: Tensor, eps: Tensor, start: int, end: int, s: float | Tensor = 0.0
    ) -> Tensor:
        """Step latents from node `start` to node `end` along `eps`; see `ddim_step`."""
        return ddim_step(x, eps, self.alphas[start], self.alphas[end], s)

    def ddpm_std(self, i: int) -> Tensor:
        """Standard deviation of the noise in a DDPM step from node i to node i − 1.

        Source: DDIM (Song et al. 2021, 2010.02502), eq. 16 with η = 1.
        """
        a, b = self.alphas[i], self.alphas[i - 1]
        return ((1 - b) / (1 - a) * (1 - a / b)).sqrt()

    def add_noise(self, x: Tensor, noise: Tensor, i: int) -> Tensor:
        """Bring clean latents to node i with fresh noise: √ᾱ·x + √(1 − ᾱ)·noise."""
        return self.alphas[i].sqrt() * x + (1 - self.alphas[i]).sqrt() * noise

    def inversion_nodes(self) -> Iterable[int]:
        """The nodes where the steps from the image to noise arrive, 1…N, with a progress bar."""
        return _bar(range(1, self.num_steps + 1), "to noise")

    def sampling_nodes(self) -> Iterable[int]:
        """The nodes where the steps from noise to the image start, N…1, with a progress bar."""
        return _bar(range(self.num_steps, 0, -1), "to image")


def cumulative_alphas(scheduler: DDIMScheduler) -> Tensor:
    """ᾱ at every training timestep [T], float64, all above 0.

    A schedule of zero terminal SNR ends at ᾱ = 0, where nothing is left to divide by.  The 2⁻²⁴
    in its place, σ = 4096, is that of diffusers' `EulerDiscreteScheduler`.

    Source: zero terminal SNR from Lin et al. 2023 (2305.08891).
    """
    alphas = scheduler.alphas_cumprod.double()
    least = alphas[alphas > 0].min().clamp(max=2**-24)
    return torch.where(alphas == 0, least, alphas)


def stable_diffusion_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule, as its checkpoints configure DDIM."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def _bar(nodes: range, label: str) -> Iterable[int]:
    # No bar for what is quick, nor in a thread, which would draw it under another cell;
    # TQDM_DISABLE=1 silences all of them.
    if threading.current_thread() is not threading.main_thread():
        return nodes
    return tqdm(nodes, label, leave=False, delay=1)
