"""Latents of the training scenes, encoded once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from erddci.training.train import as_batch
from erddci.training.world_export import trained_vae


@torch.no_grad()
def latents(folder: Path, pictures: np.ndarray) -> Tensor:
    """Latents [N, 16, 16, 16] of pictures [N, 128, 128, 3], scaled to unit spread.

    The scale is measured on the first call and kept beside the VAE's weights.
    """
    path = folder / "latents.safetensors"
    if path.is_file():
        return load_file(path)["latents"]
    vae = trained_vae(folder / "vae")
    batches = range(0, len(pictures), 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        means = [
            vae.encode(as_batch(pictures[i : i + 32])).latent_dist.mean
            for i in tqdm(batches, "latents")
        ]
    raw = torch.cat(means).float()
    scale = 1 / raw.std().item()
    (folder / "vae" / "scale.txt").write_text(f"{scale:.6f}\n")
    save_file({"latents": raw * scale}, path)
    return raw * scale
