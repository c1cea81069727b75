"""Edits side by side with what they should look like."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from erddci.editing import EditConfig
from erddci.experiments.editing import edit_images, true_answers
from erddci.experiments.measures import TRUTH, edit_rows
from erddci.experiments.sweep import sweep
from erddci.model import StableDiffusion
from erddci.scenes.examples import Example
from erddci.trajectory import Trajectory


def invert_scenes(
    model: StableDiffusion, scenes: Sequence[Example], config: EditConfig
) -> Trajectory:
    """Invert scenes together under their source prompts, for `edit_scenes`."""
    x = model.encode([scene.image for scene in scenes])
    return config.invert(model, x, [scene.source for scene in scenes])


def edit_scenes(
    model: StableDiffusion, scenes: Sequence[Example], path: Trajectory, config: EditConfig
) -> np.ndarray:
    """Edit scenes along a trajectory of `invert_scenes`: images [scenes, height, width, 3]."""
    sources = [scene.source for scene in scenes]
    targets = [scene.target for scene in scenes]
    return model.decode(config.edit(model, path, sources, targets).x0)


def measure_edits(
    model: StableDiffusion, scenes: Sequence[Example], configs: Mapping[Hashable, EditConfig]
) -> tuple[dict[Hashable, np.ndarray], pd.DataFrame]:
    """Edit scenes in several ways, and measure each edit against its true answer.

    Args:
        configs: by case, a frozen dataclass.

    Returns:
        images [scenes, height, width, 3] by case, and one row per scene and case, with the
        columns of `edit_measures` and NFE.
    """
    images: dict[Hashable, np.ndarray] = {}

    def measure(
        model: StableDiffusion, scenes: Sequence[Example], case: Hashable, cache: dict
    ) -> list[dict]:
        images[case], cost = edit_images(model, scenes, configs[case], cache)
        rows = edit_rows(scenes, images[case], true_answers(model, scenes, cache))
        return [row | {name: cost[name] for name in NFE} for row in rows]

    return images, sweep(measure, model, scenes, list(configs))


NFE = ("nfe_inversion", "nfe_sampling")


@dataclass(frozen=True)
class _Named:
    """A case of `edit_gallery`."""

    setting: str


def edit_gallery(
    model: StableDiffusion, scenes: Sequence[Example], ways: Mapping[str, EditConfig]
) -> tuple[dict[str, np.ndarray], pd.DataFrame]:
    """Edit scenes in several ways, beside what each edit should look like.

    Returns:
        images [scenes, height, width, 3] by way, the first named "input" and the last `TRUTH`,
        and of all but the last one row per scene and way with the columns of `edit_measures`.
    """
    inputs = np.stack([model.to_array(scene.image) for scene in scenes])
    truths = true_answers(model, scenes, {})
    edited, rows = measure_edits(model, scenes, {_Named(n): way for n, way in ways.items()})
    unedited = [{"setting": "input"} | row for row in edit_rows(scenes, inputs, truths)]
    images = {name: edited[_Named(name)] for name in ways}
    frame = pd.concat([pd.DataFrame(unedited), rows.drop(columns=list(NFE))], ignore_index=True)
    return {"input": inputs, **images, TRUTH: truths}, frame


@dataclass(frozen=True)
class _Injected:
    """A case of `injection_sweep`."""

    cross_until: float
    self_until: float


def injection_sweep(
    model: StableDiffusion,
    scenes: Sequence[Example],
    shares: Sequence[float] = (0, 0.2, 0.4, 0.6, 0.8),
    config: EditConfig | None = None,
) -> tuple[dict[tuple[float, float], np.ndarray], pd.DataFrame]:
    """Edit scenes by the progress up to which attention is the source's.

    Args:
        config: of all edits, by default of the dual chain under the control "refine", in 20 steps.

    Returns:
        images [scenes, height, width, 3] by the progress up to which cross-attention and
        self-attention are the source's, and one row per scene and pair with "cross_until",
        "self_until" and the columns of `edit_measures`.
    """
    config = config or EditConfig(control="refine", steps=20)
    pairs = [(cross_until, self_until) for cross_until in shares for self_until in shares]
    configs: dict[Hashable, EditConfig] = {}
    for cross_until, self_until in pairs:
        control = config.control if cross_until or self_until else "none"
        configs[_Injected(cross_until, self_until)] = replace(
            config, control=control, cross_until=cross_until, self_until=self_until
        )
    edited, rows = measure_edits(model, scenes, configs)
    images = {pair: edited[_Injected(*pair)] for pair in pairs}
    return images, rows.drop(columns=list(NFE))
