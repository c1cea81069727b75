"""Train the embedded model: its VAE, then its UNet and text encoder together, and the classifier.

One loop, `fit`, serves every network: it checkpoints, resumes, keeps an exponential moving average
and writes its loss curve.  A batch depends on the step alone, so a run that was interrupted draws
the batches it would have drawn.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    UNet2DConditionModel,
)
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm.auto import tqdm
from transformers import CLIPTextConfig, CLIPTextModel

from erddci.grid import stable_diffusion_scheduler
from erddci.scenes import classifier as questions
from erddci.scenes.captions import LENGTH, tokenizer
from erddci.scenes.scene import TRAIN_SEEDS, caption, sample_scene
from erddci.training.dataset import scene_images

SCENES = 24_000  # training scenes: more than the UNet sees in a few epochs
WIDTH = 128  # of the text embedding


def new_vae() -> AutoencoderKL:
    """An untrained VAE: 128 px to 4 × 16 × 16 latents."""
    return AutoencoderKL(
        block_out_channels=(16, 32, 64, 128),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=128,
    )


class Denoiser(nn.Module):
    """The two networks that are trained together: text encoder and UNet."""

    def __init__(self) -> None:
        super().__init__()
        words = tokenizer()
        self.text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(words),
                hidden_size=WIDTH,
                intermediate_size=4 * WIDTH,
                projection_dim=WIDTH,
                num_hidden_layers=3,
                num_attention_heads=4,
                max_position_embeddings=LENGTH,
                bos_token_id=words.bos_token_id,
                eos_token_id=words.eos_token_id,
                pad_token_id=words.pad_token_id,
            )
        )
        self.unet = UNet2DConditionModel(
            sample_size=16,
            block_out_channels=(64, 192),
            down_block_types=("CrossAttnDownBlock2D",) * 2,
            up_block_types=("CrossAttnUpBlock2D",) * 2,
            layers_per_block=1,
            cross_attention_dim=WIDTH,
            attention_head_dim=2,  # of heads, as diffusers reads it
            norm_num_groups=16,
        )

    def forward(self, x: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        text = self.text(tokens).last_hidden_state
        return self.unet(x, t, text).sample


Network = TypeVar("Network", bound=nn.Module)


def fit(
    network: Network,
    loss: Callable[[Network, torch.Generator], Tensor],
    folder: Path,
    *,
    steps: int,
    learning_rate: float,
    decay: float = 0.999,
    every: int = 250,
) -> Network:
    """Minimise `loss(network, generator)` and return the averaged network.

    `decay` is the moving average's: about 1 − 10/steps.  Adam with weight decay, 100 warm-up
    steps, then a cosine to zero; bfloat16 autocast.  Every `every` steps the whole state goes to
    `folder/checkpoint.pt` and the mean loss to `loss.csv`; if a checkpoint is there, training
    continues from it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    device = next(network.parameters()).device
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    optimizer = torch.optim.AdamW(network.parameters(), learning_rate, weight_decay=0.01)
    warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, total_iters=100)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps - 100, 1))
    rate = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm_up, cosine], [100])
    parts = {"network": network, "average": average, "optimizer": optimizer, "rate": rate}

    checkpoint, start = folder / "checkpoint.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        start = state["step"]
        for name, part in parts.items():
            part.load_state_dict(state[name])
    network.train()
    losses, began = [], time.monotonic()
    for step in tqdm(range(start, steps), folder.name, initial=start, total=steps):
        generator = torch.Generator().manual_seed(step)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            value = loss(network, generator)
        value.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        rate.step()
        average.update_parameters(network)
        losses.append(value.item())
        if (step + 1) % every == 0 or step + 1 == steps:
            state = {name: part.state_dict() for name, part in parts.items()}
            torch.save({"step": step + 1, **state}, checkpoint.with_suffix(".part"))
            checkpoint.with_suffix(".part").replace(checkpoint)
            _log(folder / "loss.csv", step + 1, float(np.mean(losses)), time.monotonic() - began)
            losses, began = [], time.monotonic()
    return average.module.eval()  # type: ignore[return-value]


def _log(path: Path, step: int, value: float, seconds: float) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(["step", "loss", "seconds"])
        writer.writerow([step, f"{value:.6f}", f"{seconds:.1f}"])


def as_batch(images: np.ndarray) -> Tensor:
    """Turn images [B, H, W, 3] uint8 into [B, 3, H, W] in [-1, 1]."""
    batch = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    return batch.float().div(127.5).sub(1).contiguous(memory_format=torch.channels_last)


def train_vae(folder: Path, steps: int = 5000, scenes: int = SCENES) -> AutoencoderKL:
    """Train the VAE on whole images and on crops, which show more of the training set a step."""
    images = scene_images(folder, scenes)

    def loss(vae: AutoencoderKL, generator: torch.Generator) -> Tensor:
        whole = torch.rand((), generator=generator) < 0.4
        side, count = (128, 4) if whole else (64, 16)
        index = torch.randint(len(images), (count,), generator=generator).tolist()
        corners = torch.randint(129 - side, (count, 2), generator=generator).tolist()
        places = zip(index, corners, strict=True)
        x = as_batch(np.stack([images[i, r : r + side, c : c + side] for i, (r, c) in places]))
        posterior = vae.encode(x).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator)
        back = vae.decode(posterior.mean + posterior.std * noise).sample.float()
        spread = posterior.mean.float() ** 2 + posterior.var.float() - 1 - posterior.logvar.float()
        return F.mse_loss(back, x) + 0.05 * F.l1_loss(back, x) + 1e-5 * spread.mean()

    vae = fit(new_vae(), loss, folder / "vae", steps=steps, learning_rate=1.5e-3, decay=0.998)
    vae.register_to_config(scaling_factor=1 / _latents(vae, images[:512]).std().item())
    vae.save_pretrained(folder / "vae" / "trained")
    return vae


@torch.no_grad()
def _latents(vae: AutoencoderKL, images: np.ndarray) -> Tensor:
    batches = [images[i : i + 32] for i in range(0, len(images), 32)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        means = [vae.encode(as_batch(batch)).latent_dist.mean for batch in batches]
    return torch.cat(means).float()


def train_denoiser(
    folder: Path, steps: int = 5600, scenes: int = SCENES, size: int = 48
) -> Denoiser:
    """Train the UNet and the text encoder to predict the noise in latents of training scenes.

    One caption in ten is empty, for classifier-free guidance; one in ten is brief, naming only
    colours and shapes.  Three in four name the thing on the left first: with even odds, sides
    would be the parity of two words, which training did not begin to learn in 2,400 steps.
    The weight of the error of x_0 is the signal-to-noise ratio between 0.1 and 5: the upper bound
    is min-SNR (Hang et al. 2023, 2303.09556); the lower keeps the noisiest steps in play, where
    a sample's layout is settled.
    """
    cache = folder / "latents.pt"
    if not cache.exists():
        vae = AutoencoderKL.from_pretrained(folder / "vae" / "trained")
        latents = _latents(vae, scene_images(folder, scenes)) * vae.config["scaling_factor"]
        torch.save(latents, cache)
    latents = torch.load(cache, weights_only=True)
    words = tokenizer()
    drawn = [sample_scene(seed) for seed in TRAIN_SEEDS[: len(latents)]]
    ordered = [replace(scene, right_first=False) for scene in drawn]

    def tokens_of(texts: list[str]) -> Tensor:
        return words(texts, padding="max_length", return_tensors="pt").input_ids

    full, brief = (
        torch.stack([tokens_of([caption(s, short) for s in part]) for part in (drawn, ordered)])
        for short in (False, True)
    )
    empty = tokens_of([""])
    noiser = DDPMScheduler.from_config(stable_diffusion_scheduler().config)
    signal = noiser.alphas_cumprod / (1 - noiser.alphas_cumprod)
    weight = signal.clamp(0.1, 5) / signal

    def loss(network: Denoiser, generator: torch.Generator) -> Tensor:
        index = torch.randint(len(latents), (size,), generator=generator)
        x = latents[index]
        t = torch.randint(1000, (size,), generator=generator)
        luck = torch.rand(size, 1, generator=generator)
        order = torch.randint(2, (size,), generator=generator)
        named = torch.where(luck < 0.2, brief[order, index], full[order, index])
        tokens = torch.where(luck < 0.1, empty, named)
        noise = torch.randn(x.shape, generator=generator)
        x = noiser.add_noise(x, noise, t).contiguous(memory_format=torch.channels_last)
        error = (network(x, t, tokens).float() - noise).square().mean((1, 2, 3))
        return (weight[t] * error).mean()

    return fit(Denoiser(), loss, folder / "denoiser", steps=steps, learning_rate=1e-3, decay=0.996)


def train_classifier(
    folder: Path, steps: int = 1200, scenes: int = SCENES
) -> questions.AttributeClassifier:
    """Train the scene reader on renders, some of them softened as a VAE softens them."""
    images = scene_images(folder, scenes)
    truth = questions.targets([sample_scene(seed) for seed in TRAIN_SEEDS[: len(images)]])

    def loss(classifier: questions.AttributeClassifier, generator: torch.Generator) -> Tensor:
        index = torch.randint(len(images), (48,), generator=generator)
        x = as_batch(images[index.numpy()])
        soft = F.avg_pool2d(x, 3, stride=1, padding=1)
        blur = torch.rand(48, 1, 1, 1, generator=generator) * 0.8
        noise = 0.03 * torch.randn(x.shape, generator=generator)
        return questions.loss(
            classifier, x.lerp(soft, blur) + noise, {q: y[index] for q, y in truth.items()}
        )

    return fit(
        questions.AttributeClassifier(),
        loss,
        folder / "classifier",
        steps=steps,
        learning_rate=1e-3,
        decay=0.98,
    )
