"""Train the VAE with 16 latent channels, on scenes of both worlds and on photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor

from erddci.metrics.lpips import LAYERS, SCALE, SHIFT, _unit, _weights
from erddci.training.loop import Recipe, train
from erddci.training.train import as_batch

CHANNELS = 16  # of the latents
PHOTOGRAPHS = 0.4  # their share of a batch


def new_vae() -> AutoencoderKL:
    """An untrained VAE: 128 px to 16 × 16 × 16 latents."""
    return AutoencoderKL(
        block_out_channels=(32, 64, 128, 192),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=128,
    )


class Pictures:
    """Batches of crops from scenes and photographs, [B, side, side, 3] uint8.

    Args:
        scenes: pictures [N, 128, 128, 3] uint8.
        photographs: a folder of pictures of any size from 128 px.
    """

    def __init__(self, scenes: np.ndarray, photographs: Path) -> None:
        self.scenes = scenes
        self.photographs = [
            Image.open(path).convert("RGB")
            for path in sorted(photographs.iterdir())
            if path.is_file()
        ]

    def batch(self, count: int, side: int, rng: np.random.Generator) -> np.ndarray:
        """Crops of scenes, and in their share resized crops of photographs in odd colours."""
        return np.stack(
            [
                self._photograph(side, rng)
                if rng.random() < PHOTOGRAPHS
                else self._scene(side, rng)
                for _ in range(count)
            ]
        )

    def _scene(self, side: int, rng: np.random.Generator) -> np.ndarray:
        image = self.scenes[rng.integers(len(self.scenes))]
        crops = []
        for _ in range(2):  # of two places the one with more to see
            row, column = rng.integers(129 - side, size=2)
            crops.append(image[row : row + side, column : column + side])
        return max(crops, key=np.std) if side < 128 else image

    def _photograph(self, side: int, rng: np.random.Generator) -> np.ndarray:
        image = self.photographs[rng.integers(len(self.photographs))]
        # A picture of 128 px is the whole photograph or down to a crop at its own scale.
        shorter = min(image.size)
        window = min(shorter, side * float(rng.uniform(1, max(1.0, shorter / 128))))
        left = float(rng.uniform(0, image.width - window))
        top = float(rng.uniform(0, image.height - window))
        box = (left, top, left + window, top + window)
        crop = np.asarray(image.resize((side, side), Image.Resampling.LANCZOS, box=box))
        crop = crop[:, :: rng.choice([-1, 1])]
        if rng.random() < 0.5:
            crop = crop[..., rng.permutation(3)]
        gain = rng.uniform(0.7, 1.2)
        return np.clip(crop * gain, 0, 255).astype(np.uint8)


def perceptual(images: Tensor, references: Tensor) -> Tensor:
    """LPIPS (AlexNet) of pictures [B, 3, H, W] in [-1, 1], [B], with a gradient."""
    weights = _weights("alex")
    with torch.no_grad():
        wanted = list(LAYERS["alex"]((references - SHIFT) / SCALE, weights))
    found = LAYERS["alex"]((images - SHIFT) / SCALE, weights)
    total = torch.zeros(len(images))
    for number, (one, other) in enumerate(zip(found, wanted, strict=True)):
        squares = (_unit(one.float()) - _unit(other.float())).square()
        total = total + (squares * weights[f"head{number}.weight"]).sum(1).mean((1, 2))
    return total


def loss(vae: AutoencoderKL, x: Tensor, generator: torch.Generator) -> Tensor:
    """Root mean square error and LPIPS of the round trips, and a little of the KL divergence.

    The root is taken a picture: between squares, in which photographs drown scenes, and
    decibels, in which empty floors would count most.
    """
    posterior = vae.encode(x).latent_dist
    mean, logvar = posterior.mean.float(), posterior.logvar.float()
    noise = torch.randn(mean.shape, generator=generator)
    back = vae.decode(mean + torch.exp(0.5 * logvar) * noise).sample.float()
    error = ((back - x).square().mean((1, 2, 3)) + 1e-5).sqrt()
    spread = mean**2 + logvar.exp() - 1 - logvar
    return error.mean() + 0.1 * perceptual(back, x).mean() + 5e-5 * spread.mean()


def train_vae(data: Pictures, folder: Path, steps: int = 8000) -> AutoencoderKL:
    """Train the VAE on whole pictures and on crops, which show more of them a step, by turns."""

    def step_loss(vae: AutoencoderKL, step: int) -> Tensor:
        side, count = (128, 4) if step % 2 else (64, 16)
        x = as_batch(data.batch(count, side, np.random.default_rng(step)))
        return loss(vae, x, torch.Generator().manual_seed(step))

    return train(new_vae(), step_loss, folder, Recipe(steps, learning_rate=1.5e-3))
