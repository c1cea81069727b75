"""How well images come back from noise: the reconstruction benchmark and what it measures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from erddci.experiments.measures import (
    IMAGE_MEASURES,
    CaptionedImages,
    Inputs,
    image_error,
    image_measures,
    read_inputs,
)
from erddci.experiments.sweep import Benchmark, Profile, summarize, sweep
from erddci.experiments.timing import cached_inversion, cost_of
from erddci.guidance import Condition, GuidanceSchedule
from erddci.images import ImageInput, open_image
from erddci.inversion import METHODS, invert, reconstruct
from erddci.model import StableDiffusion
from erddci.registry import lookup
from erddci.scenes.examples import held_out
from erddci.trajectory import Trajectory


@dataclass(frozen=True)
class ReconstructionConfig:
    """Everything that describes how an image is inverted and reconstructed.

    Args:
        method: one of `METHODS`.
        steps: N, the number of DDIM steps.
        guidance_scale, schedule: of the reconstruction.
        guided: overrides, where both are common, whether the inversion is under that guidance too.
    """

    method: str = "dual-chain"
    steps: int = 50
    guidance_scale: float = 1.0
    schedule: GuidanceSchedule | None = None
    guided: bool | None = None

    @property
    def inverts_guided(self) -> bool:
        """Whether the inversion is under the guidance of the reconstruction too."""
        method = lookup(METHODS, self.method, "method")
        guided = method.is_guided(self._guide(_ANY), self.guided)
        return guided and self.guidance_scale != 1

    @property
    def inversion(self) -> ReconstructionConfig:
        """What the inversion depends on, with all else at its default: a key for caches."""
        unguided = ReconstructionConfig(self.method, self.steps)
        return replace(self, guided=None) if self.inverts_guided else unguided

    def invert(self, model: StableDiffusion, x: Tensor, sources: Sequence[str]) -> Trajectory:
        """Invert latents [B, C, H, W] under their prompts."""
        condition = self._guide(model.condition(list(sources)))
        return invert(model, x, condition, self.method, self.steps, guided=self.guided)

    def reconstruct(
        self, model: StableDiffusion, path: Trajectory, sources: Sequence[str]
    ) -> Trajectory:
        """Reconstruct along a trajectory of `invert`."""
        return reconstruct(model, path, self._guide(model.condition(list(sources))))

    def _guide(self, condition: Condition) -> Condition:
        return condition.with_guidance(self.guidance_scale, self.schedule)


# What is measured of one reconstruction, without what depends on the machine.
ONE_IMAGE = (*IMAGE_MEASURES, "latent_rms", "latent_max", "nfe_inversion", "nfe_sampling")

_ANY = Condition(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1))


@dataclass(frozen=True)
class Reconstruction:
    """Images brought back together: trajectories both ways, decoded images, and a row for each."""

    path: Trajectory
    back: Trajectory
    images: np.ndarray
    rows: list[dict]


def reconstruct_images(
    model: StableDiffusion, images: CaptionedImages, config: ReconstructionConfig, cache: dict
) -> Reconstruction:
    """Invert and reconstruct images together, and measure each.

    Args:
        cache: of these images, for what several configurations need; may be empty.

    Returns:
        rows with `IMAGE_MEASURES`, or with what is wrong in "problem", latent errors at the
        image, NFE, seconds an image, MB stored beside the noise, and peak memory on a GPU.
    """
    inputs = _inputs(model, images, cache)
    prompts = [prompt for _, prompt in images]
    inverted = cached_inversion(config, model, inputs.x, prompts, cache)
    path = inverted.path
    with cost_of(model) as cost:
        back = config.reconstruct(model, path, prompts)
    shared = {
        "nfe_inversion": path.nfe,
        "nfe_sampling": back.nfe,
        "seconds_inversion": inverted.cost.seconds / len(images),
        "seconds_sampling": cost.seconds / len(images),
        "stored_mb": _stored_bytes(path) / len(images) / 1e6,
        "peak_mb": max(cost.peak_mb, inverted.cost.peak_mb),
        "batch": len(images),
    }
    decoded = model.decode(back.x0)
    rows = []
    for number, image in enumerate(decoded):
        row = {"image": number} | _measured(image, inputs, number)
        rows.append(row | image_error(path, back, number) | shared)
    return Reconstruction(path, back, decoded, rows)


def _inputs(model: StableDiffusion, images: CaptionedImages, cache: dict) -> Inputs:
    if "inputs" not in cache:
        cache["inputs"] = read_inputs(model, [image for image, _ in images])
    return cache["inputs"]


def _measured(image: np.ndarray, inputs: Inputs, number: int) -> dict:
    try:
        return image_measures(image, inputs.images[number], inputs.round_trips[number])
    except ValueError as error:  # the result is not finite
        return {"problem": str(error)}


def _stored_bytes(path: Trajectory) -> int:
    stored = [*path.per_node.values(), *path.per_step.values(), *path.constants.values()]
    return sum(tensor.nbytes for tensor in stored)


def reconstruct_one(
    model: StableDiffusion, image: ImageInput, prompt: str, config: ReconstructionConfig
) -> tuple[dict[str, float], Image.Image]:
    """Reconstruct one image: what the benchmark measures of it, and the result.

    Raises:
        ValueError: the result is not finite.
    """
    opened = open_image(image, model.resolution)
    found = reconstruct_images(model, [(opened, prompt)], config, {})
    row = found.rows[0]
    if "problem" in row:
        raise ValueError(row["problem"])
    # LPIPS is missing of images that are too small for it.
    row = {name: row[name] for name in ONE_IMAGE if name in row}
    return row, open_image(found.images[0], model.resolution)


@dataclass(frozen=True)
class ReconstructionCase:
    """A case of the benchmark.

    `inverted_at` is the guidance scale of the inversion, `guidance_scale` that of the
    reconstruction.
    """

    method: str
    guidance_scale: float
    inverted_at: float
    steps: int

    @property
    def config(self) -> ReconstructionConfig:
        """How images are reconstructed in this case."""
        config = ReconstructionConfig(self.method, self.steps, self.guidance_scale)
        if METHODS[self.method].both_common:
            return replace(config, guided=self.inverted_at == self.guidance_scale)
        return config


def reconstruction_cases(
    methods: Iterable[str] = tuple(METHODS),
    scales: Iterable[float] = (1.0,),
    steps: Iterable[int] = (50,),
) -> list[ReconstructionCase]:
    """All cases of a sweep: each method is inverted by its own rule, some in either way.

    Raises:
        ValueError: an unknown method.
    """
    methods = tuple(methods)
    scales = tuple(scales)
    found = []
    for n in steps:
        for w in scales:
            for name in methods:
                both = lookup(METHODS, name, "method").both_common
                for guided in (False, True) if both else (None,):
                    config = ReconstructionConfig(name, n, w, guided=guided)
                    inverted_at = w if config.inverts_guided else 1.0
                    found.append(ReconstructionCase(name, float(w), float(inverted_at), n))
    return list(dict.fromkeys(found))


def _measure_case(
    model: StableDiffusion, images: CaptionedImages, case: ReconstructionCase, cache: dict
) -> list[dict]:
    return reconstruct_images(model, images, case.config, cache).rows


CASE = ("method", "guidance_scale", "inverted_at", "steps")


def reconstruction_summary(
    rows: pd.DataFrame, columns: Sequence[str] = ("psnr_vae", "ssim_vae", "lpips_vae")
) -> pd.DataFrame:
    """Medians of some columns for each case, with bootstrap 95 % intervals."""
    return summarize(rows, CASE, columns)


_ALL = tuple(METHODS)
_CHEAP = tuple(name for name, method in METHODS.items() if not method.expensive)

RECONSTRUCTION = Benchmark(
    measure=_measure_case,
    columns=(
        *CASE,
        "image",
        *ONE_IMAGE,
        "seconds_inversion",
        "seconds_sampling",
        "stored_mb",
        "peak_mb",
        "batch",
        "problem",
    ),
    order=("steps", "guidance_scale", "method", "inverted_at", "image"),
    cases=reconstruction_cases,
    items=held_out,
    identify=lambda item: item[1],
    profiles={
        "small": Profile(_ALL, (1.0, 7.5), (10,), images=2),
        "table": Profile(_ALL, (1.0, 3.0, 7.5), (10,), images=100),
        "steps": Profile(_CHEAP, (1.0, 7.5), (10, 20, 50, 100), images=10),
        "full": Profile(_ALL, (1.0, 3.0, 7.5), (10, 20, 50, 100), images=100),
    },
    summarize=reconstruction_summary,
)


def reconstruction_sweep(
    model: StableDiffusion,
    images: CaptionedImages,
    methods: Iterable[str] = ("ddim", "dual-chain"),
    scales: Iterable[float] = (1,),
    steps: int = 50,
) -> pd.DataFrame:
    """How well methods bring images back at each scale, inverted at w = 1 where that is common.

    Returns:
        one row per image, method and scale: measures against both references, latent errors, NFE.
    """
    # Of methods with one way alone, `inverted_at` has no effect.
    cases = [ReconstructionCase(name, w, 1.0, steps) for name in methods for w in scales]
    rows = sweep(_measure_case, model, images, cases, batch=1)
    columns = ("image", "method", "guidance_scale", "steps", *ONE_IMAGE)
    return rows[[name for name in columns if name in rows]]


def reconstructions(
    model: StableDiffusion,
    image: ImageInput,
    prompt: str,
    methods: Iterable[str] = tuple(METHODS),
    guidance_scale: float = 1.0,
    steps: int = 50,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """One image by every method, each inverted by its own rule.

    Returns:
        the VAE round trip [height, width, 3], and the reconstruction of each method.
    """
    opened = [(open_image(image, model.resolution), prompt)]
    cache: dict = {}
    found = {}
    for name in methods:
        config = ReconstructionConfig(name, steps, guidance_scale)
        found[name] = reconstruct_images(model, opened, config, cache).images[0]
    return _inputs(model, opened, cache).round_trips[0], found
