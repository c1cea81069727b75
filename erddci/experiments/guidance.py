"""What guidance does to reconstructions and edits, and what dynamic control undoes of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import pandas as pd

from erddci.editing import EditConfig
from erddci.experiments.gallery import measure_edits
from erddci.experiments.measures import CaptionedImages
from erddci.experiments.reconstruction import ReconstructionConfig, reconstruct_images
from erddci.experiments.sweep import sweep
from erddci.experiments.ways import SCHEDULES
from erddci.model import StableDiffusion
from erddci.registry import lookup
from erddci.scenes.examples import Example

# The dual chain under each form of dynamic control.  The forms are our own formulation: the
# formula of the paper's was not available to us.
FORMS = {
    named.form: ReconstructionConfig("dual-chain", schedule=named.schedule)
    for named in SCHEDULES.values()
    if named.form
}
BASELINES = {
    "DDIM": ReconstructionConfig("ddim"),
    "null-text": ReconstructionConfig("null-text"),
    "negative-prompt": ReconstructionConfig("negative-prompt"),
    "direct": ReconstructionConfig("direct"),
}
SETTINGS = FORMS | BASELINES


@dataclass(frozen=True)
class GuidedSetting:
    """A case of both sweeps: one of `SETTINGS` at a guidance scale."""

    setting: str
    guidance_scale: float

    def config(self, steps: int) -> ReconstructionConfig:
        """How images are reconstructed in this case."""
        config = lookup(SETTINGS, self.setting, "setting")
        return replace(config, guidance_scale=self.guidance_scale, steps=steps)

    def edit_config(self, steps: int) -> EditConfig:
        """How images are edited in this case."""
        config = self.config(steps)
        return EditConfig(
            method=config.method,
            schedule=config.schedule,
            guidance_scale=config.guidance_scale,
            steps=steps,
        )


def guidance_sweep(
    model: StableDiffusion,
    images: CaptionedImages,
    scales: Iterable[float] = (1, 2, 3, 5, 7.5, 10, 15),
    steps: int = 20,
    settings: Iterable[str] = tuple(SETTINGS),
) -> pd.DataFrame:
    """How well images come back by guidance scale, in some of `SETTINGS`.

    All images are inverted together, and once for all scales if the inversion is at w = 1.

    Returns:
        one row per image, setting and scale: measures against both references, latent errors,
        NFE, and seconds of one image.
    """
    settings = tuple(settings)
    cases = [GuidedSetting(setting, w) for w in scales for setting in settings]
    rows = sweep(partial(_reconstructed, steps=steps), model, images, cases)
    return rows.drop(columns=["stored_mb", "peak_mb", "batch"])


def _reconstructed(
    model: StableDiffusion, images: CaptionedImages, case: GuidedSetting, cache: dict, steps: int
) -> list[dict]:
    return reconstruct_images(model, images, case.config(steps), cache).rows


def edit_sweep(
    model: StableDiffusion,
    scenes: Sequence[Example],
    scales: Iterable[float] = (1, 2, 3, 5, 7.5, 10, 15),
    steps: int = 10,
    settings: Iterable[str] = tuple(FORMS),
) -> pd.DataFrame:
    """How near edits come to their true answers by guidance scale, without attention control.

    Returns:
        one row per scene, setting and scale: the columns of `edit_measures`, and NFE.
    """
    settings = tuple(settings)
    cases = [GuidedSetting(setting, w) for w in scales for setting in settings]
    return measure_edits(model, scenes, {case: case.edit_config(steps) for case in cases})[1]
