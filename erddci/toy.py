"""A denoiser that needs no training: the exact noise of a mixture of Gaussians.

Its data are points, latents of shape [B, D, 1, 1], so trajectories can be drawn in the plane and
every claim about a method can be checked against a formula.  A prompt is the names of some of the
components: "left", "left right", or "" for all of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from erddci.grid import Grid, stable_diffusion_scheduler
from erddci.guidance import Condition, guided_noise
from erddci.registry import unknown


def three_clusters() -> Mixture:
    """The mixture of the course: three clusters in the plane, named by where they lie."""
    return Mixture({"left": (-1.2, -0.5), "right": (1.2, -0.5), "top": (0.0, 1.2)})


class Mixture:
    """The ideal noise prediction for data drawn from a mixture of equal round Gaussians.

    Args:
        means: the centre of each component by name, each D numbers.
        std: standard deviation s of every component, positive.

    Source: the score of a Gaussian mixture in closed form; ε = −√(1 − ᾱ)·∇ log p(x).
    """

    def __init__(self, means: dict[str, tuple[float, ...]], std: float = 0.2) -> None:
        if not means or std <= 0:
            raise ValueError(f"expected at least one mean and a positive spread, got {std}")
        self.names = list(means)
        self.means = torch.tensor(list(means.values()), dtype=torch.float64)  # [K, D]
        self.std = std
        self.scheduler = stable_diffusion_scheduler()
        self.nfe = 0
        self.name = f"mixture of {', '.join(means)}"

    @property
    def fingerprint(self) -> str:
        """All that decides what it computes."""
        return f"{self.name} at {self.means.tolist()}, std {self.std}, {self.scheduler.config}"

    def difference(self, fingerprint: str) -> str | None:
        """Name what differs from the model of a fingerprint, or None if nothing does."""
        return None if fingerprint == self.fingerprint else "another model"

    def condition(self, prompt: str = "", guidance_scale: float = 1.0) -> Condition:
        """Encode a prompt as the log-weights of the components [1, 1, K].

        Raises:
            ValueError: a word names no component.
        """
        for word in prompt.split():
            if word not in self.names:
                raise unknown(word, self.names, "word")
        chosen = [float(not prompt.split() or name in prompt.split()) for name in self.names]
        text = torch.tensor(chosen, dtype=torch.float64)
        everything = torch.ones_like(text)
        return Condition(
            text.log()[None, None],
            everything.log()[None, None],
            guidance_scale,
            prompt,
        )

    def grid(self, steps: int) -> Grid:
        """The noise levels of `steps` steps, on Stable Diffusion's schedule."""
        return Grid.from_scheduler(dict(self.scheduler.config), steps)

    def __call__(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Guided noise in points x [B, D, 1, 1] at timestep t ([] or [B])."""
        return guided_noise(self._predict, x, t, condition)

    def _predict(self, x: Tensor, t: Tensor, text: Tensor) -> Tensor:
        self.nfe += len(x)
        alpha = self.scheduler.alphas_cumprod[t].double()[:, None]  # [B, 1]
        variance = alpha * self.std**2 + 1 - alpha
        away = x.flatten(1)[:, None] - alpha[..., None].sqrt() * self.means  # [B, K, D]
        weight = text[:, 0] - away.square().sum(2) / (2 * variance)  # [B, K]
        mean = (weight.softmax(1)[..., None] * away).sum(1)  # [B, D]
        return ((1 - alpha).sqrt() * mean / variance).reshape(x.shape).to(x.dtype)

    def sample(self, count: int, prompt: str, generator: torch.Generator) -> Tensor:
        """Draw points [count, D, 1, 1] of the prompted components, straight from the mixture."""
        weights = self.condition(prompt).text[0, 0].exp()
        which = torch.multinomial(weights, count, replacement=True, generator=generator)
        noise = torch.randn(count, self.means.shape[1], generator=generator, dtype=torch.float64)
        return (self.means[which] + self.std * noise)[..., None, None]
