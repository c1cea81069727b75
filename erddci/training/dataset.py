"""Training images, rendered once and kept in a memory-mapped file beside the checkpoints."""

from __future__ import annotations

from multiprocessing import Pool
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from erddci.scenes.render import render
from erddci.scenes.scene import TRAIN_SEEDS, sample_scene


def scene_images(folder: Path, count: int, size: int = 128, workers: int = 2) -> np.ndarray:
    """Return the images of the first `count` training seeds, [count, size, size, 3] uint8.

    They are rendered on the first call only; a run that was interrupted continues where it was.
    """
    if count > len(TRAIN_SEEDS):
        raise ValueError(f"expected at most {len(TRAIN_SEEDS)} training scenes, got {count}")
    folder.mkdir(parents=True, exist_ok=True)
    path, done_path = folder / f"images-{size}.npy", folder / f"images-{size}.done"
    done = int(done_path.read_text()) if done_path.exists() else 0
    if done < count:
        shape = (count, size, size, 3)
        fresh = np.lib.format.open_memmap(folder / "growing.npy", "w+", np.uint8, shape)
        if done:
            fresh[:done] = np.load(path, mmap_mode="r")[:done]
        with Pool(workers) as pool:
            rendered = pool.imap(_image, ((s, size) for s in range(done, count)), chunksize=32)
            for seed, image in zip(tqdm(range(done, count), "rendering"), rendered, strict=True):
                fresh[seed] = image
        fresh.flush()
        (folder / "growing.npy").replace(path)
        done_path.write_text(str(count))
    return np.load(path, mmap_mode="r")[:count]


def _image(job: tuple[int, int]) -> np.ndarray:
    seed, size = job
    return render(sample_scene(TRAIN_SEEDS[seed]), size).image
