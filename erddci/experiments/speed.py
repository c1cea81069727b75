"""How long reconstructions and edits take: methods beside each other, batches, and processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from erddci.editing import EditConfig
from erddci.experiments.order import published_order
from erddci.experiments.timing import synchronized_time
from erddci.images import ImageInput
from erddci.inversion import invert, reconstruct
from erddci.model import StableDiffusion, load
from erddci.scenes.examples import Example, held_out

# What is timed: it returns what else is to be said of it, by column.
Run = Callable[[], dict[str, float]]


def time_runs(model: StableDiffusion, runs: Mapping[str, Run], repeats: int) -> pd.DataFrame:
    """Time several runs, all after each other in each repeat, so a busy machine slows all alike.

    Returns:
        one row per run, with medians over the repeats: seconds; "outside", the share of them not
        spent in the UNet (with gradients, their backward pass counts as outside); what the run
        returned; NFE; and "speedup", how many times faster than the first run.
    """
    rows = []
    for repeat in range(repeats + 1):
        for name, run in tqdm(runs.items(), "speed", leave=False, delay=1):
            before = model.nfe
            start = synchronized_time(model)
            with _unet_seconds(model) as in_unet:
                found = run()
            seconds = synchronized_time(model) - start
            row = {"run": name, "seconds": seconds, "outside": 1 - sum(in_unet) / seconds}
            if repeat:  # the first warms up
                rows.append(row | found | {"nfe": model.nfe - before})
    table = pd.DataFrame(rows).groupby("run", sort=False).median().reset_index()
    return table.assign(speedup=table["seconds"][0] / table["seconds"])


@contextmanager
def _unet_seconds(model: StableDiffusion) -> Iterator[list[float]]:
    """Seconds of every call of the UNet while the block runs."""
    seconds: list[float] = []
    starts: list[float] = []
    hooks = (
        model.unet.register_forward_pre_hook(lambda *_: starts.append(synchronized_time(model))),
        model.unet.register_forward_hook(
            lambda *_: seconds.append(synchronized_time(model) - starts.pop())
        ),
    )
    try:
        yield seconds
    finally:
        for hook in hooks:
            hook.remove()


def reconstruction_speed(
    model: StableDiffusion,
    image: tuple[ImageInput, str],
    steps: int = 50,
    repeats: int = 3,
    others: Iterable[str] = ("ddim", "aidi", "edict", "null-text", "spdinv"),
) -> pd.DataFrame:
    """Time the reconstruction of one image: the dual chain in three orders, and other methods.

    Everything is at w = 1 but null-text, which has nothing to optimise there: it is at w = 7.5.

    Returns:
        a table of `time_runs` with "latent_max", the largest latent error; speedups are over the
        authors' order of calls.
    """
    x = model.encode(image[0])
    condition = model.condition(image[1])

    def round_trip(method: str, w: float = 1.0, **options: Any) -> dict[str, float]:  # noqa: ANN401
        path = invert(model, x, condition.with_guidance(w), method, steps, **options)
        return {"latent_max": path.latent_error(reconstruct(model, path)).max().item()}

    def published() -> dict[str, float]:
        return {"latent_max": published_order(model, x, condition, steps)["latent_max"]}

    runs: dict[str, Run] = {
        "as published": published,
        "dual-chain, noise kept": partial(round_trip, "dual-chain"),
        "dual-chain, kept and shared": partial(round_trip, "dual-chain", timestep="current"),
    }
    runs |= {name: partial(round_trip, name) for name in others if name != "null-text"}
    if "null-text" in others:
        runs["null-text, w = 7.5"] = partial(round_trip, "null-text", 7.5)
    return time_runs(model, runs, repeats)


def edit_speed(
    model: StableDiffusion,
    scene: Example,
    guidance_scale: float = 7.5,
    steps: int = 50,
    repeats: int = 3,
) -> pd.DataFrame:
    """Time one edit, inversion included, by null-text, Direct Inversion and the dual chain.

    Returns:
        a table of `time_runs`; speedups are over null-text inversion with prompt-to-prompt.
    """
    x = model.encode(scene.image)
    constant = partial(EditConfig, guidance_scale=guidance_scale, steps=steps, schedule=None)
    dynamic = partial(EditConfig, guidance_scale=guidance_scale, steps=steps)
    configs = {
        "null-text + refine": constant("null-text", "refine"),
        "direct + refine": constant("direct", "refine"),
        "dual-chain, dynamic": dynamic(),
        "dual-chain (current timestep), dynamic": dynamic(timestep="current"),
        "dual-chain (current timestep) + refine, dynamic": dynamic(
            control="refine", timestep="current"
        ),
    }

    def edited(config: EditConfig) -> dict[str, float]:
        path = config.invert(model, x, [scene.source])
        config.edit(model, path, [scene.source], [scene.target])
        return {}

    return time_runs(
        model, {name: partial(edited, each) for name, each in configs.items()}, repeats
    )


def throughput(
    model: StableDiffusion,
    batches: Iterable[int] = (1, 2, 4, 8, 16),
    processes: Iterable[int] = (1, 2),
    steps: int = 20,
    repeats: int = 3,
) -> pd.DataFrame:
    """Images per second that the dual chain reconstructs at w = 1, by batch size and processes.

    Processes are measured on the CPU alone, each with one thread and batches of four.

    Returns:
        one row per setting: what is varied, its value, images per second, and the ideal: as many
        times those of the first setting as the value is larger.
    """
    rows = []
    for size in tqdm(list(batches), "batch sizes", leave=False, delay=1):
        seconds = float(np.median(_reconstruct_held_out(model, size, steps, repeats)))
        rows.append(("batch size", size, size / seconds))
    if model.device.type == "cpu":
        size = 4
        for count in processes:
            seconds = _slowest_process(model, count, size, steps, repeats)
            rows.append(("processes", count, count * repeats * size / seconds))
    table = pd.DataFrame(rows, columns=["varied", "value", "images_per_second"])
    first = table.groupby("varied").transform("first")
    return table.assign(ideal=first["images_per_second"] * table["value"] / first["value"])


def _reconstruct_held_out(
    model: StableDiffusion, size: int, steps: int, repeats: int
) -> list[float]:
    """Seconds of each of some reconstructions of a batch at w = 1."""
    images = held_out(size)
    x = model.encode([image for image, _ in images])
    condition = model.condition([prompt for _, prompt in images])
    seconds = []
    for _ in range(repeats):
        start = synchronized_time(model)
        reconstruct(model, invert(model, x, condition, "dual-chain", steps))
        seconds.append(synchronized_time(model) - start)
    return seconds


def _slowest_process(
    model: StableDiffusion, count: int, size: int, steps: int, repeats: int
) -> float:
    """Seconds of the slowest of some processes that reconstruct at the same time."""
    spawn = get_context("spawn")
    label = model.name.rsplit("@", 1)[0]
    options = {"initializer": _start_worker, "initargs": (label, spawn.Barrier(count))}
    with ProcessPoolExecutor(count, spawn, **options) as pool:
        work = [pool.submit(_work, size, steps, repeats) for _ in range(count)]
        return max(each.result() for each in work)


_worker: dict[str, Any] = {}


def _start_worker(label: str, barrier: Barrier) -> None:
    torch.set_num_threads(1)
    _worker.update(model=load(label, "cpu"), barrier=barrier)


def _work(size: int, steps: int, repeats: int) -> float:
    """Seconds of some reconstructions, begun when every process is warm."""
    _reconstruct_held_out(_worker["model"], size, 2, 1)
    _worker["barrier"].wait()
    return sum(_reconstruct_held_out(_worker["model"], size, steps, repeats))
