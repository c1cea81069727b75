"""Where walks lead: the noise along them, and their error by the size of steps."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from erddci import toy
from erddci.experiments.measures import latent_errors
from erddci.guidance import Condition, Denoiser
from erddci.inversion import invert, reconstruct


def noise_trajectories(
    model: Denoiser, x: Tensor, condition: Condition, scale: float = 1, steps: int = 50
) -> pd.DataFrame:
    """Predicted noise of one latent along three walks, in their first principal components.

    The walks are DDIM inversion at w = 1, DDIM inference at `scale`, and dual-chain inference at
    `scale`.  The components are those of the three walks together.

    Returns:
        one row per walk and step, with columns walk, node, t, pc1, pc2, pc3 and `explained`, the
        share of variance that each component explains, in the attributes.
    """
    if len(x) != 1:
        raise ValueError(f"expected one latent [1, C, H, W], got {len(x)}")
    up = invert(model, x, condition.with_guidance(1), "ddim", steps)
    chains = invert(model, x, condition.with_guidance(1), "dual-chain", steps)
    walks = {
        "DDIM inversion": up,
        "DDIM inference": reconstruct(model, up, condition.with_guidance(scale)),
        "dual-chain inference": reconstruct(model, chains, condition.with_guidance(scale)),
    }
    noise = torch.cat([walk.eps.flatten(1) for walk in walks.values()])  # [3N, C·H·W]
    centred = noise - noise.mean(0)
    left, strength, _ = torch.linalg.svd(centred, full_matrices=False)
    points = (left * strength)[:, :3].cpu()
    frame = pd.DataFrame(points.numpy(), columns=[f"pc{n + 1}" for n in range(points.shape[1])])
    frame.insert(0, "trajectory", np.repeat(list(walks), up.grid.num_steps))
    frame.insert(1, "node", np.tile(np.arange(1, up.grid.num_steps + 1), len(walks)))
    frame.insert(2, "t", np.tile(up.grid.t[1:].numpy(), len(walks)))
    shares = (strength**2 / (strength**2).sum())[:3].tolist()
    frame.attrs["explained"] = shares
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
            error = latent_errors(path, reconstruct(model, path))[0]
            rows.append({"method": method, "steps": n} | error)
    return pd.DataFrame(rows).drop(columns=["node", "t"])
