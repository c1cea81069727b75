"""Train the embedded model: its VAE, then its UNet and text encoder together, and the classifier.

One loop, `fit`, serves every network: it checkpoints, resumes, keeps an exponential moving average
and writes its loss curve.  A batch depends on the step alone, so a run that was interrupted draws
the batches it would have drawn.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Sequence
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
from erddci.scenes.scene import TRAIN_SEEDS, WORDS, caption, sample_scene
from erddci.training.dataset import scene_images

SCENES = 24_000  # training scenes: more than the UNet sees in a few epochs
WIDTH = 128  # of the text embedding
CHECKPOINT_EVERY = 250  # steps
STATES = ("network", "average", "optimizer", "rate")  # of a checkpoint


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

    def __init__(self, vocabulary: Sequence[str] = WORDS, channels: int = 4) -> None:
        super().__init__()
        self.text = CLIPTextModel(_text_config(vocabulary))
        self.unet = UNet2DConditionModel(
            sample_size=16,
            in_channels=channels,
            out_channels=channels,
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


def _text_config(vocabulary: Sequence[str]) -> CLIPTextConfig:
    words = tokenizer(vocabulary)
    return CLIPTextConfig(
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


Network = TypeVar("Network", bound=nn.Module)
Loss = Callable[[Network, torch.Generator], Tensor]


def fit(
    network: Network,
    loss: Loss[Network],
    folder: Path,
    *,
    steps: int,
    learning_rate: float,
    decay: float = 0.999,
) -> Network:
    """Minimise `loss(network, generator)` and return the averaged network.

    `decay` is the moving average's: about 1 − 10/steps.  Adam with weight decay, 100 warm-up
    steps, then a cosine to zero; bfloat16 autocast.  Every `CHECKPOINT_EVERY` steps the whole
    state goes to `folder/checkpoint.pt` and the mean loss to `loss.csv`; if a checkpoint is there,
    training continues from it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    training = _Training(network, steps, learning_rate, decay)
    start = training.resume(folder / "checkpoint.pt")
    network.train()
    losses = []
    began = time.monotonic()
    for step in tqdm(range(start, steps), folder.name, initial=start, total=steps):
        losses.append(training.step(loss, torch.Generator().manual_seed(step)))
        if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == steps:
            training.save(folder / "checkpoint.pt", step + 1)
            _log(folder / "loss.csv", step + 1, float(np.mean(losses)), time.monotonic() - began)
            losses = []
            began = time.monotonic()
    return training.average.module.eval()  # type: ignore[return-value]


class _Training:
    """A network, its moving average and its optimizer: what a step changes and a file keeps."""

    def __init__(self, network: nn.Module, steps: int, learning_rate: float, decay: float) -> None:
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.device = next(network.parameters()).device
        self.average = AveragedModel(
            network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True
        )
        self.optimizer = torch.optim.AdamW(network.parameters(), learning_rate, weight_decay=0.01)
        warm_up = torch.optim.lr_scheduler.LinearLR(self.optimizer, 0.01, total_iters=100)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, max(steps - 100, 1))
        self.rate = torch.optim.lr_scheduler.SequentialLR(self.optimizer, [warm_up, cosine], [100])

    def step(self, loss: Loss, generator: torch.Generator) -> float:
        """Take one step down the loss, and return the loss before it."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            value = loss(self.network, generator)
        value.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.rate.step()
        self.average.update_parameters(self.network)
        return value.item()

    def resume(self, checkpoint: Path) -> int:
        """Take up what a checkpoint holds, if there is one; returns the steps it had done."""
        if not checkpoint.exists():
            return 0
        state = torch.load(checkpoint, map_location=self.device, weights_only=True)
        for name in STATES:
            getattr(self, name).load_state_dict(state[name])
        return state["step"]

    def save(self, checkpoint: Path, step: int) -> None:
        """Write a checkpoint whole or not at all."""
        state = {name: getattr(self, name).state_dict() for name in STATES}
        torch.save({"step": step, **state}, checkpoint.with_suffix(".part"))
        checkpoint.with_suffix(".part").replace(checkpoint)


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
    latents = _cached_latents(folder, scenes)
    full, brief, empty = _prompts(len(latents))
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


def _cached_latents(folder: Path, scenes: int) -> Tensor:
    """Latents [B, 4, 16, 16] of the training scenes, computed once."""
    cache = folder / "latents.pt"
    if not cache.exists():
        vae = AutoencoderKL.from_pretrained(folder / "vae" / "trained")
        latents = _latents(vae, scene_images(folder, scenes)) * vae.config["scaling_factor"]
        torch.save(latents, cache)
    return torch.load(cache, weights_only=True)


def _prompts(scenes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens of the captions [2, B, L], in full and in brief, and of the empty prompt [1, L].

    The first of two names things in the order of the scene, the second from left to right.
    """
    words = tokenizer()
    drawn = [sample_scene(seed) for seed in TRAIN_SEEDS[:scenes]]
    ordered = [replace(scene, right_first=False) for scene in drawn]

    def tokens(texts: list[str]) -> Tensor:
        return words(texts, padding="max_length", return_tensors="pt").input_ids

    full, brief = (
        torch.stack([tokens([caption(s, short) for s in part]) for part in (drawn, ordered)])
        for short in (False, True)
    )
    return full, brief, tokens([""])


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
