"""The reconstruction benchmark: methods × guidance scales × steps × images, one row an image.

`erddci.experiments.sweep` does the running: a run that was stopped goes on where it was, and
several processes
share one when `accelerate launch` starts it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from erddci.experiments import CaptionedImages, latent_errors, measures, published_order
from erddci.experiments import sweep as runs
from erddci.experiments.timing import cached_inversion, peak_memory, synchronized_time
from erddci.images import ImageInput
from erddci.inversion import METHODS, invert, reconstruct
from erddci.metrics import MEASURES
from erddci.model import StableDiffusion, load
from erddci.scenes.examples import held_out
from erddci.trajectory import Trajectory

# What iterates or optimises in every step.
EXPENSIVE = ("fixed-point", "aidi", "null-text", "spdinv")

PROFILES: dict[str, dict] = {
    "small": {"scales": (1.0, 7.5), "steps": (10,), "scenes": 2},
    "table": {"scales": (1.0, 3.0, 7.5), "steps": (10,), "scenes": 100},
    "steps": {
        "scales": (1.0, 7.5),
        "steps": (10, 20, 50, 100),
        "scenes": 10,
        "methods": tuple(name for name in METHODS if name not in EXPENSIVE),
    },
    "full": {"scales": (1.0, 3.0, 7.5), "steps": (10, 20, 50, 100), "scenes": 100},
}

MEASURED = [f"{name}_{of}" for of in ("vae", "input") for name in MEASURES]
COLUMNS = [
    *("method", "guidance_scale", "inverted_at", "steps", "image"),
    *MEASURED,
    *(
        "latent_rms",
        "latent_max",
        "nfe_inversion",
        "nfe_sampling",
        "seconds_inversion",
        "seconds_sampling",
    ),
    *("stored_mb", "peak_mb", "batch", "problem"),
]

# Both ways of climbing are common for these: at w = 1, and at the w of the way back.
BOTH_INVERSIONS = ("ddim", "dual-chain")


@dataclass(frozen=True)
class Case:
    """One setting of the benchmark: what is run on every image.

    `inverted_at` is the guidance scale of the inversion, `guidance_scale` that of the way back.
    """

    method: str
    guidance_scale: float
    inverted_at: float
    steps: int


def cases(
    methods: Iterable[str] = tuple(METHODS),
    scales: Iterable[float] = (1.0,),
    steps: Iterable[int] = (50,),
) -> list[Case]:
    """All settings of a sweep: each method climbs as its paper has it, some in either way.

    Raises:
        ValueError: an unknown method.
    """
    methods, scales, found = tuple(methods), tuple(scales), []
    unknown = [name for name in methods if name not in METHODS]
    if unknown:
        raise ValueError(f"unknown method {unknown[0]!r}: expected some of {', '.join(METHODS)}")
    for n in steps:
        for w in scales:
            for name in methods:
                ways = (
                    [1.0, w]
                    if name in BOTH_INVERSIONS
                    else [w if METHODS[name].inverts == "guided" else 1.0]
                )
                found += [Case(name, float(w), float(way), n) for way in dict.fromkeys(ways)]
    return found


def known_profile(name: str) -> dict:
    """A profile by its name; raises ValueError for an unknown one."""
    if name not in PROFILES:
        raise ValueError(f"unknown profile {name!r}: expected one of {', '.join(PROFILES)}")
    return PROFILES[name]


def profile(model: StableDiffusion, name: str, folder: Path, batch: int = 4) -> pd.DataFrame:
    """The rows of one of `PROFILES` on held-out scenes: those of `folder`, the rest measured now.

    Raises:
        ValueError: an unknown profile, or a folder of other rows.
    """
    chosen = known_profile(name)
    todo = cases(chosen.get("methods", METHODS), chosen["scales"], chosen["steps"])
    rows = run(model, held_out(chosen["scenes"]), todo, folder, batch)
    return runs.chosen(rows, todo, chosen["scenes"])


def run(
    model: StableDiffusion,
    images: CaptionedImages,
    todo: Sequence[Case],
    folder: Path,
    batch: int = 4,
) -> pd.DataFrame:
    """Run every case on every image, save each batch when it is done, and return all rows.

    Args:
        images: images with their prompts.
        folder: where rows go, one file a process; made if missing.
        batch: images that are walked together.

    Raises:
        ValueError: the folder holds rows of another model or of other images.
    """
    prompts = [prompt for _, prompt in images]
    runs.run(model, images, prompts, todo, _run_one, COLUMNS, folder, batch)
    return read(folder)


def read(folder: Path) -> pd.DataFrame:
    """All rows that a folder holds, sorted by steps, scale and method."""
    order = ["steps", "guidance_scale", "method", "inverted_at", "image"]
    return runs.read(folder, COLUMNS).sort_values(order, ignore_index=True)


def summary(
    frame: pd.DataFrame, columns: Sequence[str] = ("psnr_vae", "ssim_vae", "lpips_vae")
) -> pd.DataFrame:
    """Median of some columns for each case, with a bootstrap 95 % interval; see `runs.summary`."""
    return runs.summary(frame, list(Case.__dataclass_fields__), columns)


def speed(
    model: StableDiffusion,
    image: tuple[ImageInput, str],
    steps: int = 50,
    repeats: int = 3,
    others: Iterable[str] = ("ddim", "aidi", "edict", "null-text", "spdinv"),
) -> pd.DataFrame:
    """Time the reconstruction of one image: the dual chain in three orders, and other methods.

    All runs of one repeat follow each other, so a busy machine slows all of them.  Everything is
    at w = 1 but null-text, which has nothing to optimise there: it runs at w = 7.5.

    Returns:
        one row per run: median seconds, `outside`, the share of them not spent in the UNet (with
        gradients, their backward pass counts as outside), network rows, the largest latent error,
        and `speedup`, how many times faster than the authors' order of calls.
    """
    x, condition = model.encode(image[0]), model.condition(image[1])

    def there_and_back(method: str, w: float = 1.0, **options: object) -> float:
        path = invert(model, x, condition.with_guidance(w), method, steps, **options)
        return path.latent_error(reconstruct(model, path)).max().item()

    runs: dict[str, Callable[[], float]] = {
        "as published": lambda: published_order(model, x, condition, steps)["latent_max"],
        "dual-chain, noise kept": partial(there_and_back, "dual-chain"),
        "dual-chain, kept and shared": partial(there_and_back, "dual-chain", timestep="current"),
        **{name: partial(there_and_back, name) for name in others if name != "null-text"},
    }
    if "null-text" in others:
        runs["null-text, w = 7.5"] = partial(there_and_back, "null-text", 7.5)
    found = []
    for repeat in range(repeats + 1):
        for name, go in tqdm(runs.items(), "speed", leave=False, delay=1):
            before, start = model.nfe, synchronized_time(model)
            with _network_time(model) as network:
                error = go()
            seconds = synchronized_time(model) - start
            outside = 1 - sum(network) / seconds
            row = {"run": name, "seconds": seconds, "outside": outside, "latent_max": error}
            if repeat:  # the first warms up
                found.append(row | {"nfe": model.nfe - before})
    table = pd.DataFrame(found).groupby("run", sort=False).median().reset_index()
    published = table.loc[table["run"] == "as published", "seconds"].item()
    return table.assign(speedup=published / table["seconds"])


@contextmanager
def _network_time(model: StableDiffusion) -> Iterator[list[float]]:
    """Seconds of every call of the UNet while the block runs."""
    calls: list[float] = []
    starts: list[float] = []
    before = model.unet.register_forward_pre_hook(
        lambda *_: starts.append(synchronized_time(model))
    )
    after = model.unet.register_forward_hook(
        lambda *_: calls.append(synchronized_time(model) - starts.pop())
    )
    try:
        yield calls
    finally:
        before.remove()
        after.remove()


def throughput(
    model: StableDiffusion,
    batches: Iterable[int] = (1, 2, 4, 8, 16),
    processes: Iterable[int] = (1, 2),
    steps: int = 20,
    repeats: int = 3,
) -> pd.DataFrame:
    """Images per second that the dual chain brings back at w = 1, by batch size and processes.

    Processes are measured on the CPU alone, each with one thread and batches of four.

    Returns:
        one row a setting: what is varied, its value, images per second, and the ideal: as many
        times those of the first setting as the value is larger.
    """
    rows = []
    for size in tqdm(list(batches), "batch sizes", leave=False, delay=1):
        seconds = np.median(_reconstruct_held_out(model, size, steps, repeats))
        rows.append(("batch size", size, size / float(seconds)))
    if model.device.type == "cpu":
        label, size = model.name.rsplit("@", 1)[0], 4
        for count in processes:
            with ProcessPoolExecutor(
                count,
                get_context("spawn"),
                initializer=_start_worker,
                initargs=(label, get_context("spawn").Barrier(count)),
            ) as pool:
                work = [pool.submit(_work, size, steps, repeats) for _ in range(count)]
                slowest = max(each.result() for each in work)
            rows.append(("processes", count, count * repeats * size / slowest))
    table = pd.DataFrame(rows, columns=["varied", "value", "images_per_second"])
    first = table.groupby("varied").transform("first")
    return table.assign(ideal=first["images_per_second"] * table["value"] / first["value"])


def _reconstruct_held_out(
    model: StableDiffusion, size: int, steps: int, repeats: int
) -> list[float]:
    """Seconds of each of some reconstructions of a batch at w = 1."""
    images, seconds = held_out(size), []
    x = model.encode([image for image, _ in images])
    condition = model.condition([prompt for _, prompt in images])
    for _ in range(repeats):
        start = synchronized_time(model)
        reconstruct(model, invert(model, x, condition, "dual-chain", steps))
        seconds.append(synchronized_time(model) - start)
    return seconds


_worker: dict[str, Any] = {}


def _start_worker(label: str, barrier: Barrier) -> None:
    torch.set_num_threads(1)
    _worker.update(model=load(label, "cpu"), barrier=barrier)


def _work(size: int, steps: int, repeats: int) -> float:
    """Seconds of some reconstructions, begun when every process is warm."""
    _reconstruct_held_out(_worker["model"], size, 2, 1)
    _worker["barrier"].wait()
    return sum(_reconstruct_held_out(_worker["model"], size, steps, repeats))


def _stored(path: Trajectory) -> list[Tensor]:
    return [*path.per_node.values(), *path.per_step.values(), *path.constants.values()]


@torch.no_grad()
def _run_one(
    model: StableDiffusion, images: CaptionedImages, case: Case, kept: dict
) -> list[dict]:
    """Run one case on some images together: a row for each."""
    if "x" not in kept:
        kept["x"] = model.encode([image for image, _ in images])
        kept["round trips"] = model.decode(kept["x"])
    x, condition = kept["x"], model.condition([prompt for _, prompt in images])
    told = condition.with_guidance(case.guidance_scale)
    guided = case.inverted_at != 1 if case.method in BOTH_INVERSIONS else None
    up = cached_inversion(model, x, told, case.method, case.steps, kept, guided=guided)
    path = up.path
    start = synchronized_time(model)
    with peak_memory(model) as high:
        back = reconstruct(model, path, condition.with_guidance(case.guidance_scale))
        end = synchronized_time(model)
    shared = {
        "nfe_inversion": path.nfe,
        "nfe_sampling": back.nfe,
        "seconds_inversion": up.seconds / len(x),
        "seconds_sampling": (end - start) / len(x),
        "stored_mb": sum(tensor.nbytes for tensor in _stored(path)) / len(x) / 1e6,
        "batch": len(x),
        **{name: max(value, up.peak[name]) for name, value in high.items()},
    }
    rows, decoded = [], model.decode(back.x0)
    for number, (image, _) in enumerate(images):
        row: dict = latent_errors(path, back, number)[0]
        del row["node"], row["t"]
        try:
            row |= measures(decoded[number], model.to_array(image), kept["round trips"][number])
        except ValueError as error:  # The walk left the numbers that an image can have.
            row["problem"] = str(error)
        rows.append(row | shared)
    return rows
