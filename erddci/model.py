"""Loading checkpoints, and Stable Diffusion as a denoiser."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from erddci.attention import AttentionState, Control, attention_control
from erddci.checkpoint.device import check_device
from erddci.checkpoint.hub import locate
from erddci.checkpoint.networks import NETWORKS, load_network, load_tokenizer, quiet
from erddci.checkpoint.reading import read, read_configs
from erddci.checkpoint.weights import weight_files
from erddci.grid import Grid, cumulative_alphas, to_epsilon
from erddci.guidance import Condition, guided_noise
from erddci.identity import (
    Identity,
    fingerprint,
    scheduler_settings,
    stamp,
    tokenizer_fingerprint,
)
from erddci.images import ImageInput, open_image
from erddci.notices import check_finite, half_precision, notify
from erddci.prompts import check_prompt


class ModelChanged(UserWarning):
    """Says what of a checkpoint was taken in another way than it was written."""


def load(
    name: str | Path = "scenes",
    device: str | torch.device = "auto",
    dtype: torch.dtype = torch.float32,
) -> StableDiffusion:
    """Load a text-to-image latent diffusion model.

    Everything that the files tell is checked before weights are read; a `ModelChanged` warning
    says what is taken in another way than it was written.  Weights are safetensors, never
    pickled, and no code of a checkpoint is run.

    Args:
        name: "scenes" for the embedded model, a folder in diffusers' `StableDiffusionPipeline`
            layout, or a hub id such as "CompVis/stable-diffusion-v1-4", which needs a network
            the first time.  Of a hub repository only the networks used here are fetched.
        device: "auto" takes CUDA, then MPS, then the CPU.
        dtype: of the networks; latents are float64 whatever it is, where the device has it.

    Raises:
        FileNotFoundError: no such model, or files of it are missing.
        ValueError: a damaged model or one of another kind, or a device or dtype that is not there.
        ConnectionError: the hub cannot be reached, and keeps no copy on this machine.
    """
    device = check_device(device, dtype)
    checkpoint = read(locate(name, read_configs, weight_files))
    with quiet():
        vae, unet, text_encoder = (load_network(n, checkpoint, dtype) for n in NETWORKS)
        tokenizer = load_tokenizer(checkpoint, text_encoder)
    unet.register_to_config(sample_size=checkpoint.sample_size)
    if checkpoint.changes:
        notify(f"{name}: {'; '.join(checkpoint.changes)}", ModelChanged)
    try:
        return StableDiffusion(
            vae, unet, text_encoder, tokenizer, checkpoint.scheduler, str(name), device
        )
    except torch.OutOfMemoryError as error:
        raise ValueError(
            f"expected a device with room for {name}, got {device}, which is full: load it in "
            "half precision (dtype=torch.float16) or on the CPU"
        ) from error


class StableDiffusion:
    """A latent diffusion model as a `Denoiser`, with the way from images to latents and back.

    `nfe` counts the network rows evaluated so far; `identity` is all that decides what the model
    computes, and `name` a label with its short form.
    """

    def __init__(  # noqa: PLR0913 (the parts of a StableDiffusionPipeline)
        self,
        vae: AutoencoderKL,
        unet: UNet2DConditionModel,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        scheduler: DDIMScheduler,
        label: str = "model",
        device: str | torch.device = "cpu",
    ) -> None:
        for network in (vae, unet, text_encoder):
            network.to(device).eval().requires_grad_(False)  # type: ignore[call-arg]
        self.vae, self.unet, self.text_encoder = vae, unet, text_encoder
        self.tokenizer, self.scheduler = tokenizer, scheduler
        self.device, self.dtype = torch.device(device), unet.dtype
        # Arithmetic on latents costs nothing beside the network, so it is done in float64.
        self.latent_dtype = torch.float64
        if self.device.type == "mps":
            self.latent_dtype = torch.float32
            warnings.warn("MPS has no float64: exact means 1e-5 in latents here", stacklevel=2)
        self.resolution = unet.config["sample_size"] * 2 ** (
            len(vae.config["block_out_channels"]) - 1
        )
        self.alphas_cumprod = cumulative_alphas(scheduler).to(self.device, self.latent_dtype)
        self.nfe, self.label = 0, label
        self._known: dict[str, tuple[Any, str]] = {}

    @property
    def name(self) -> str:
        """The label that the model was loaded under, and the short form of its identity."""
        return f"{self.label}@{self.identity.short}"

    @property
    def identity(self) -> Identity:
        """What decides all that the model computes, as it is now: adapters count once loaded.

        Weights are hashed again only after a change: some 50 ms for the embedded model and a
        second for Stable Diffusion on a CPU.
        """
        parts = {
            part: self._remember(part, stamp(getattr(self, part)), fingerprint)
            for part in ("unet", "text_encoder", "vae")
        }
        vocabulary = id(self.tokenizer), len(self.tokenizer)
        words = self._remember("tokenizer", vocabulary, tokenizer_fingerprint)
        settings = scheduler_settings(self.scheduler)
        dtype = str(self.unet.dtype).removeprefix("torch.")
        return Identity(**parts, tokenizer=words, scheduler=settings, dtype=dtype)

    @property
    def fingerprint(self) -> str:
        """The identity as text, for what is saved."""
        return self.identity.to_json()

    def difference(self, fingerprint: str) -> str | None:
        """Name what differs from the model of a fingerprint, or None if nothing does."""
        return self.identity.difference(Identity.from_json(fingerprint))

    def _remember(self, part: str, state: object, compute: Callable[[Any], str]) -> str:
        if part not in self._known or self._known[part][0] != state:
            self._known[part] = (state, compute(getattr(self, part)))
        return self._known[part][1]

    def __call__(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Predict the guided noise ε [B, C, H, W] in latents x at timestep t ([] or [B])."""
        return guided_noise(self._predict, x, t.to(x.device), condition)

    def _predict(self, x: Tensor, t: Tensor, text: Tensor) -> Tensor:
        if self.unet.encoder_hid_proj is not None:
            raise ValueError(
                "expected a UNet of latents, timestep and text, got one with an IP-Adapter: "
                "call unload_ip_adapter() of its pipeline first"
            )
        self.nfe += len(x)
        # An optimised embedding is float32 whatever the network is.
        output = self.unet(x.to(self.dtype), t, text.to(self.dtype)).sample.to(x.dtype)
        a = self.alphas_cumprod[t][:, None, None, None]
        return to_epsilon(output, x, a, self.scheduler.config["prediction_type"])

    def attention_control(
        self, control: Control, shape: tuple[int, int]
    ) -> AbstractContextManager[AttentionState]:
        """Control the UNet's attention to latents of some height and width while a block runs."""
        return attention_control(self.unet, control, shape)

    def grid(self, steps: int) -> Grid:
        """The noise levels that the checkpoint's own scheduler visits in `steps` steps."""
        return Grid.from_scheduler(dict(self.scheduler.config), steps)

    @torch.no_grad()
    def condition(
        self, prompt: str | list[str], negative_prompt: str = "", guidance_scale: float = 1.0
    ) -> Condition:
        """Encode a prompt, or one for each latent of a batch, and what guidance pushes away from.

        Raises:
            ValueError: a prompt with more tokens than the text encoder takes, or a word that the
                embedded model was not trained on.
        """
        prompts = [prompt] if isinstance(prompt, str) else prompt
        text = torch.cat([self._encode_text(each) for each in prompts])
        null = self._encode_text(negative_prompt)
        words = " | ".join(prompts)
        return Condition(text, null, float(guidance_scale), words, negative_prompt=negative_prompt)

    def _encode_text(self, prompt: str) -> Tensor:
        embeddings = self.text_encoder.get_input_embeddings().num_embeddings  # type: ignore[union-attr]
        check_prompt(self.tokenizer, prompt, embeddings)
        padded = self.tokenizer(prompt, padding="max_length", return_tensors="pt").input_ids
        return self.text_encoder(padded.to(self.device)).last_hidden_state

    def to_array(self, image: ImageInput) -> np.ndarray:
        """Read an image as the model sees it: [size, size, 3], floats in [0, 1]."""
        return np.asarray(open_image(image, self.resolution), dtype=np.float32) / 255

    @torch.no_grad()
    def encode(self, image: ImageInput | list[ImageInput]) -> Tensor:
        """Encode one image or several as latents [B, C, H, W], the mean of the VAE's posterior.

        Images are read by `erddci.images.open_image`, which says what it had to convert.
        """
        images = image if isinstance(image, list) else [image]
        images = torch.from_numpy(np.stack([self.to_array(each) for each in images]))
        pixels = images.permute(0, 3, 1, 2).to(self.device, self.dtype)
        mean = self.vae.encode(pixels * 2 - 1).latent_dist.mean
        check_finite(mean, "from the VAE's encoder", half_precision(self.dtype))
        return mean.to(self.latent_dtype) * self.vae.config["scaling_factor"]

    @torch.no_grad()
    def decode(self, x: Tensor) -> np.ndarray:
        """Decode latents [B, C, H, W] to images [B, height, width, 3], floats in [0, 1]."""
        scaled = (x / self.vae.config["scaling_factor"]).to(self.dtype)
        pixels = torch.cat([self.vae.decode(part).sample for part in scaled.split(8)])
        check_finite(pixels, "from the VAE's decoder", half_precision(self.dtype))
        return pixels.permute(0, 2, 3, 1).div(2).add(0.5).clamp(0, 1).float().cpu().numpy()

    @torch.no_grad()
    def sample(
        self, condition: Condition, steps: int, generator: torch.Generator, count: int = 1
    ) -> Tensor:
        """Draw latents [count, C, H, W] for a prompt by DDIM from noise of a CPU generator."""
        grid, side = self.grid(steps), self.unet.config["sample_size"]
        shape = (count, self.unet.config["in_channels"], side, side)
        x = torch.randn(shape, generator=generator, dtype=torch.float64)
        x = x.to(self.device, self.latent_dtype)
        for i in grid.sampling_nodes():
            x = grid.step(x, self(x, grid.t[i], condition), i, i - 1)
        return x
