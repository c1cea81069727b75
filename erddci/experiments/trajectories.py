"""What happens along trajectories: errors, predicted noise, and estimates of the image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from erddci import toy
from erddci.experiments.measures import (
    IMAGE_MEASURES,
    CaptionedImages,
    image_error,
    latent_errors,
)
from erddci.experiments.reconstruction import ReconstructionConfig, reconstruct_images
from erddci.experiments.sweep import sweep
from erddci.guidance import Condition, Model
from erddci.images import ImageInput
from erddci.inversion import invert, reconstruct
from erddci.model import StableDiffusion


@dataclass(frozen=True)
class _Inverted:
    """A case of `error_accumulation`."""

    guidance_scale: float
    inverted: str


def error_accumulation(
    model: StableDiffusion,
    images: CaptionedImages,
    scales: Iterable[float] = (1, 3, 7.5),
    steps: int = 50,
) -> pd.DataFrame:
    """Error of DDIM inversion at every node of the reconstruction, by guidance scale.

    An image is inverted either at w = 1, as is usual, or at the scale of the reconstruction.

    Returns:
        one row per image, scale, inversion ("unguided" or "same scale") and node: the RMS and
        the largest latent error there, and at node 0 the measures of the image.
    """
    cases = [_Inverted(w, inverted) for w in scales for inverted in ("unguided", "same scale")]
    rows = sweep(partial(_errors_by_node, steps=steps), model, images, cases)
    first = ("image", "guidance_scale", "inverted", "node", "t", "latent_rms", "latent_max")
    return rows[[name for name in (*first, *IMAGE_MEASURES) if name in rows]]


def _errors_by_node(
    model: StableDiffusion, images: CaptionedImages, case: _Inverted, cache: dict, steps: int
) -> list[dict]:
    guided = case.inverted == "same scale"
    config = ReconstructionConfig("ddim", steps, case.guidance_scale, guided=guided)
    found = reconstruct_images(model, images, config, cache)
    rows = []
    for number, measured in enumerate(found.rows):
        at_image = {name: measured[name] for name in IMAGE_MEASURES if name in measured}
        for node in latent_errors(found.path, found.back, number):
            extra = at_image if node["node"] == 0 else {}
            rows.append({"image": number} | node | extra)
    return rows


def decoded_estimates(
    model: StableDiffusion,
    image: ImageInput,
    prompt: str,
    scales: Iterable[float] = (1, 3, 7.5),
    nodes: Sequence[int] = (50, 40, 30, 20, 10, 1),
    method: str = "ddim",
) -> dict[float, np.ndarray]:
    """Decoded estimates of the clean image at some nodes of a reconstruction, by guidance scale.

    The image is inverted at w = 1 in as many steps as the highest node; the last of `nodes`
    should be 1, whose estimate is the reconstruction.

    Returns:
        images [nodes, height, width, 3] by guidance scale.
    """
    x = model.encode(image)
    condition = model.condition(prompt)
    path = invert(model, x, condition, method, max(nodes))
    backs = {w: reconstruct(model, path, condition.with_guidance(w)) for w in scales}
    chosen = [node - 1 for node in nodes]
    return {w: model.decode(back.pred_x0[chosen, 0]) for w, back in backs.items()}


def noise_trajectories(
    model: Model, x: Tensor, condition: Condition, guidance_scale: float = 1, steps: int = 50
) -> pd.DataFrame:
    """Predicted noise of one latent along three trajectories, in three principal components.

    The trajectories are DDIM inversion at w = 1, and at `guidance_scale` DDIM inference and
    dual-chain inference.  The components are those of all three together.

    Returns:
        one row per trajectory and step, with columns trajectory, node, t, pc1, pc2 and pc3; in
        the attributes "explained", the share of variance that each component explains.

    Raises:
        ValueError: more than one latent.
    """
    if len(x) != 1:
        raise ValueError(f"expected one latent [1, C, H, W], got {len(x)}")
    unguided = condition.with_guidance(1)
    guided = condition.with_guidance(guidance_scale)
    path = invert(model, x, unguided, "ddim", steps)
    chains = invert(model, x, unguided, "dual-chain", steps)
    trajectories = {
        "DDIM inversion": path,
        "DDIM inference": reconstruct(model, path, guided),
        "dual-chain inference": reconstruct(model, chains, guided),
    }
    noise = torch.cat([each.eps.flatten(1) for each in trajectories.values()])  # [3N, C·H·W]
    left, strength, _ = torch.linalg.svd(noise - noise.mean(0), full_matrices=False)
    points = (left * strength)[:, :3].cpu()
    frame = pd.DataFrame(points.numpy(), columns=[f"pc{n + 1}" for n in range(points.shape[1])])
    frame.insert(0, "trajectory", np.repeat(list(trajectories), steps))
    frame.insert(1, "node", np.tile(np.arange(1, steps + 1), len(trajectories)))
    frame.insert(2, "t", np.tile(path.grid.t[1:].numpy(), len(trajectories)))
    frame.attrs["explained"] = (strength**2 / (strength**2).sum())[:3].tolist()
    return frame


def step_size(
    steps: Iterable[int] = (10, 20, 50, 100, 200, 500),
    methods: Iterable[str] = ("ddim", "dual-chain"),
    count: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """Error of methods on the toy mixture at w = 1, by number of steps."""
    model = toy.three_clusters()
    x = model.sample(count, "", torch.Generator().manual_seed(seed))
    rows = []
    for method in methods:
        for n in steps:
            path = invert(model, x, model.condition(), method, n)
            error = image_error(path, reconstruct(model, path))
            rows.append({"method": method, "steps": n} | error)
    return pd.DataFrame(rows)
