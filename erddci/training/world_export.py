"""From checkpoints to a model folder of the world with named things."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from safetensors.torch import load_model, save_file

from erddci.grid import stable_diffusion_scheduler
from erddci.scenes.captions import tokenizer
from erddci.scenes.scene import WORLD_WORDS
from erddci.scenes.world_classifier import WorldClassifier
from erddci.training.denoiser import new_denoiser
from erddci.training.loop import Network
from erddci.training.vae import new_vae


def export(folder: Path, out: Path) -> None:
    """Save the trained networks in `folder` as a pipeline in half precision, with their curves.

    Raises:
        FileNotFoundError: the VAE or the denoiser was not trained yet.
    """
    vae, denoiser = trained_vae(folder / "vae"), trained(new_denoiser(), folder / "denoiser")
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=denoiser.text,
        tokenizer=tokenizer(WORLD_WORDS),
        unet=denoiser.unet,
        scheduler=stable_diffusion_scheduler(),
        safety_checker=None,  # type: ignore[arg-type]
        feature_extractor=None,  # type: ignore[arg-type]
        requires_safety_checker=False,
    ).to(torch.float16).save_pretrained(out)
    if (folder / "classifier" / "weights.safetensors").is_file():
        classifier = trained(WorldClassifier(), folder / "classifier")
        halves = {name: weight.half() for name, weight in classifier.state_dict().items()}
        save_file(halves, out / "classifier.safetensors")
    for curve in folder.glob("*/loss.csv"):
        shutil.copy(curve, out / f"loss-{curve.parent.name}.csv")


def trained(network: Network, folder: Path) -> Network:
    """Load the moving average that training left in a folder.

    Raises:
        FileNotFoundError: nothing was trained there yet.
    """
    path = folder / "weights.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"no {path}: run `erddci train {folder.name}` first")
    load_model(network, path)
    return network.eval()


def trained_vae(folder: Path) -> AutoencoderKL:
    """The trained VAE, with the scaling factor that `scale` measured, if it did."""
    vae, scale = trained(new_vae(), folder), folder / "scale.txt"
    if scale.is_file():
        vae.register_to_config(scaling_factor=float(scale.read_text()))
    return vae
