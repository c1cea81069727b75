"""Training scenes, rendered once: their pictures, and the share of each region in each cell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from erddci.scenes.render import Rendering, render
from erddci.scenes.scene import TRAIN_SEEDS, sample_named_scene

CELLS = 16  # of the latents, each way: a region's mask is known as finely as attention is
REGIONS = 3  # two things at most, and the floor


def rendered(folder: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `count` training scenes: pictures and regions, memory-mapped.

    What is there already is not rendered again.

    Returns:
        pictures [count, 128, 128, 3] uint8, and regions [count, 3, 16, 16] uint8: how much of a
        cell is a thing, from the left, or floor, of 255.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = _grown(folder / "pictures.npy", (count, 128, 128, 3))
    regions = _grown(folder / "regions.npy", (count, REGIONS, CELLS, CELLS))
    # A region of a scene that was rendered has a floor; the file is born with zeros.
    missing = np.flatnonzero(~regions[:count].any((1, 2, 3)))
    for number in tqdm(missing, "rendering"):
        scene = render(sample_named_scene(TRAIN_SEEDS[number]))
        pictures[number] = scene.image
        regions[number] = shares(scene)
    return pictures[:count], regions[:count]


def shares(rendering: Rendering) -> np.ndarray:
    """Regions [3, 16, 16] uint8 of a rendering, as `rendered` returns them."""
    masks = np.zeros((REGIONS, *rendering.masks.shape[1:]), np.float32)
    masks[: len(rendering.masks)] = rendering.masks
    masks[len(rendering.masks)] = ~rendering.masks.any(0)
    side = rendering.masks.shape[-1] // CELLS
    cells = masks.reshape(REGIONS, CELLS, side, CELLS, side).mean((2, 4))
    return np.round(255 * cells).astype(np.uint8)


def _grown(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """A file of zeros of at least this shape that keeps what it held."""
    if path.exists():
        held = np.load(path, mmap_mode="r+")
        if len(held) >= shape[0]:
            return held
    new = np.lib.format.open_memmap(path.with_suffix(".part"), "w+", np.uint8, shape)
    if path.exists():
        new[: len(held)] = held
    path.with_suffix(".part").replace(path)
    return new
