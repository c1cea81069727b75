"""Edits against their true answers: the editing benchmark.

Other benchmarks of edits have to guess how well one did.  Here the renderer knows: the edited
image is compared with the image of the changed scene.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from PIL import Image

from erddci.editing import EditConfig, reconstruct_source
from erddci.experiments.measures import EDIT_MEASURES, edit_rows, image_measures, read_inputs
from erddci.experiments.sweep import Benchmark, Profile, interval, summarize
from erddci.experiments.timing import cached_inversion, cost_of
from erddci.experiments.ways import (
    CEILING,
    CONTROLLED,
    FEW,
    WAYS,
    EditCase,
    edit_cases,
    way_label,
)
from erddci.images import ImageInput, open_image
from erddci.metrics import MEASURES, compare
from erddci.model import StableDiffusion
from erddci.scenes.examples import KINDS, Example, edits
from erddci.scenes.scene import FirstSeed


def edit_one(
    model: StableDiffusion, image: ImageInput, source: str, target: str, config: EditConfig
) -> tuple[dict[str, float], Image.Image]:
    """Edit one image: measures of the source's reconstruction beside it, and the edited image.

    Args:
        source, target: what the image shows, and what it is to show.
    """
    config.check(model, [source], [target])
    inputs = read_inputs(model, [image])
    path = config.invert(model, inputs.x, [source])
    edited = config.edit(model, path, [source], [target])
    reconstruction = model.decode(reconstruct_source(model, edited).x0)[0]
    row = image_measures(reconstruction, inputs.images[0], inputs.round_trips[0])
    row |= {"nfe_inversion": path.nfe, "nfe_sampling": edited.nfe}
    return row, open_image(model.decode(edited.x0)[0], model.resolution)


def edit_images(
    model: StableDiffusion, scenes: Sequence[Example], config: EditConfig, cache: dict
) -> tuple[np.ndarray, dict[str, float]]:
    """Edit scenes together: decoded images [scenes, height, width, 3], and what each cost.

    Args:
        cache: of these scenes, for what several configurations need; may be empty.
    """
    if "x" not in cache:
        cache["x"] = model.encode([scene.image for scene in scenes])
    sources = [scene.source for scene in scenes]
    targets = [scene.target for scene in scenes]
    inverted = cached_inversion(config, model, cache["x"], sources, cache)
    with cost_of(model) as cost:
        edited = config.edit(model, inverted.path, sources, targets)
    return model.decode(edited.x0), {
        "nfe_inversion": inverted.path.nfe,
        "nfe_sampling": edited.nfe,
        "seconds_inversion": inverted.cost.seconds / len(scenes),
        "seconds_sampling": cost.seconds / len(scenes),
    }


def true_answers(model: StableDiffusion, scenes: Sequence[Example], cache: dict) -> np.ndarray:
    """VAE round trips of what edits of scenes should look like [scenes, height, width, 3]."""
    if "truths" not in cache:
        cache["truths"] = model.decode(model.encode([scene.truth for scene in scenes]))
    return cache["truths"]


def _measure_case(
    model: StableDiffusion, scenes: Sequence[Example], case: EditCase, cache: dict
) -> list[dict]:
    truths = true_answers(model, scenes, cache)
    images, cost = truths, {}
    if case.method != CEILING:
        images, cost = edit_images(model, scenes, case.config, cache)
    rows = edit_rows(scenes, images, truths)
    for scene, image, row in zip(scenes, images, rows, strict=True):
        row |= {"kind": scene.name, "batch": len(scenes)} | cost
        if "problem" not in row:
            rendered = compare(model.to_array(scene.truth), image)
            row |= {f"{name}_rendered": value for name, value in rendered.items()}
    return rows


CASE = ("method", "control", "schedule", "inverted_at", "guidance_scale", "steps")
RENDERED = tuple(f"{name}_rendered" for name in MEASURES)


def edit_summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean measures of each way to edit with bootstrap 95 % intervals, best mean rank first."""
    rows = rows.assign(
        rank=edit_ranks(rows),
        nfe=rows["nfe_inversion"] + rows["nfe_sampling"],
        seconds=rows["seconds_inversion"] + rows["seconds_sampling"],
    )
    columns = ("rank", *EDIT_MEASURES, *RENDERED, "nfe", "seconds")
    table = summarize(rows, CASE, columns, "mean")
    table.insert(0, "setting", [way_label(row) for row in table.to_dict("records")])
    return table.sort_values("rank", ignore_index=True)


def edit_table(rows: pd.DataFrame) -> pd.DataFrame:
    """The summary of some rows as tables print it, without seconds: the machine may be shared."""
    table = edit_summary(rows)
    hidden = ("mse", "ssim_rendered", "lpips_rendered", "seconds")
    return table.drop(columns=[*CASE, "failed", *(c for c in table if c.startswith(hidden))])


def edit_by_kind(rows: pd.DataFrame, column: str = "psnr_truth") -> pd.DataFrame:
    """The mean of a column for each way to edit (rows) and kind of edit (columns)."""
    settings = [way_label(row) for row in rows[list(CASE)].to_dict("records")]
    table = rows.assign(setting=settings).pivot_table(column, "setting", "kind", sort=False)
    return table[[kind for kind in KINDS if kind in table]]


# Measures that ways are ranked by, and whether more is better.
RANKED = {
    "psnr_truth": True,
    "lpips_truth": False,
    "background": True,
    "edit_accuracy": True,
    "preservation": True,
}


def edit_ranks(rows: pd.DataFrame) -> pd.Series:
    """Mean rank of each row among all ways on its image, steps and scale; the ceiling has none.

    A row has a rank for each measure of `RANKED`; equal ones share theirs.
    """
    ways = rows[rows["method"] != CEILING]
    groups = ways.groupby(["image", "steps", "guidance_scale"])
    ranks = [groups[name].rank(ascending=not more) for name, more in RANKED.items()]
    return pd.concat(ranks, axis=1).mean(axis=1).reindex(rows.index)


def edit_gain(
    rows: pd.DataFrame,
    way: tuple[str, str, str],
    over: tuple[str, str, str],
    column: str = "psnr_truth",
) -> dict[str, float]:
    """Mean gain of one way over another, edit by edit, with its bootstrap 95 % interval.

    Args:
        way, over: method, control and schedule.
    """
    index = ["steps", "guidance_scale", "image"]
    by_way = rows.set_index(["method", "control", "schedule"]).sort_index()
    values = [by_way.loc[[tuple(each)]].set_index(index)[column] for each in (way, over)]
    return interval(column, (values[0] - values[1]).dropna().to_numpy(), "mean")


_SCALES = (1.0, 3.0, 5.0, 7.5)
_STEPS = (5, 10, 20, 50)

# Measures named "truth" are against the VAE round trip of the true answer, those named "rendered"
# against the true answer itself, of which the way named "ceiling" shows how much can be reached.
EDITING = Benchmark(
    measure=_measure_case,
    columns=(
        *CASE,
        "image",
        "kind",
        *EDIT_MEASURES,
        *RENDERED,
        "nfe_inversion",
        "nfe_sampling",
        "seconds_inversion",
        "seconds_sampling",
        "batch",
        "problem",
    ),
    order=("steps", "guidance_scale", "method", "control", "schedule", "image"),
    cases=edit_cases,
    items=lambda count: edits(count, start=FirstSeed.EDITING_BENCHMARK),
    identify=lambda scene: f"{scene.source} > {scene.target}",
    profiles={
        "small": Profile((FEW[1], FEW[4]), (7.5,), (5,), images=4),
        "table": Profile(WAYS, (7.5,), (10,), images=200),
        "controls": Profile(CONTROLLED, (7.5,), (10,), images=200),
        "sweep": Profile(FEW, _SCALES, _STEPS, images=16),
        "full": Profile(WAYS, _SCALES, _STEPS, images=200),
    },
    summarize=edit_summary,
    batch=8,
)
