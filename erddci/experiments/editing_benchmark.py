"""The editing benchmark: edits of scenes whose true answer is known, one row an image.

Every other benchmark of edits guesses how well one did.  Here the renderer knows: the edited
image is compared with the image of the changed scene.  `erddci.experiments.sweep` runs it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from erddci.attention import Control
from erddci.controls import CONTROLS, make_control
from erddci.editing import EditConfig, edit, sdedit_trajectory
from erddci.experiments import edit_rows
from erddci.experiments import sweep as runs
from erddci.experiments.timing import cached_inversion, synchronized_time
from erddci.guidance import DEFAULT_SCHEDULE, GuidanceSchedule
from erddci.inversion import METHODS, invert
from erddci.metrics import MEASURES, compare
from erddci.model import StableDiffusion
from erddci.scenes.examples import KINDS, Example, edits

# Seeds from here on: those before it served to choose defaults.
FIRST_SEED = 50_000

SCHEDULES: dict[str, GuidanceSchedule | None] = {
    "constant": None,
    "dynamic": DEFAULT_SCHEDULE,
    "dynamic-inverted-at-1": replace(
        DEFAULT_SCHEDULE, guide_inversion=False
    ),  # fading too, inverted at w = 1
}


@dataclass(frozen=True)
class Variant:
    """A method with other options than its defaults, for its inversion and for the edit."""

    method: str
    inversion: Mapping[str, Any] = field(default_factory=dict)
    edit: Mapping[str, Any] = field(default_factory=dict)


# Not inverted, and the true answer's own VAE round trip: what nothing should fall below or rise
# above.
SDEDIT, CEILING = "sdedit", "ceiling"

VARIANTS = {
    # These walk part of the walk again, as their authors do by default.
    SDEDIT: Variant(SDEDIT, edit={"strength": 0.6}),
    "edict": Variant("edict", edit={"strength": 0.8}),
    "edit-friendly": Variant("edit-friendly", edit={"strength": 0.64}),
    # The dual chain with rows shared between its chains, and with the other reading of an edit.
    "dual-chain (current timestep)": Variant("dual-chain", inversion={"timestep": "current"}),
    "dual-chain (evaluated at target)": Variant("dual-chain", edit={"evaluate_at": "target"}),
}


@dataclass(frozen=True)
class Case:
    """One way to edit: what is run on every scene.

    `inverted_at` is the guidance scale of the inversion and of the source row, `guidance_scale`
    that of the target row; `schedule` names one of `SCHEDULES`, `control` one of
    `erddci.attention.CONTROLS`.
    """

    method: str
    control: str
    schedule: str
    inverted_at: float
    guidance_scale: float
    steps: int


def case(method: str, control: str, schedule: str, w: float, steps: int) -> Case:
    """A way to edit at a guidance scale, inverted as the method is meant to be.

    Raises:
        ValueError: an unknown method, control or schedule.
    """
    known = {
        "method": [*(METHODS | VARIANTS), CEILING],
        "control": CONTROLS,
        "schedule": SCHEDULES,
    }
    for (name, values), value in zip(known.items(), (method, control, schedule), strict=True):
        if value not in values:
            raise ValueError(f"unknown {name} {value!r}: expected one of {', '.join(values)}")
    name = VARIANTS.get(method, Variant(method)).method
    config = EditConfig(name, guidance_scale=w, schedule=SCHEDULES[schedule])
    guided = method != CEILING and config.inverts_guided
    return Case(method, control, schedule, float(w if guided else 1), float(w), steps)


# The ways to edit that are compared by default: baselines as their papers have them, the dual
# chain with and without our dynamic control, and, to give credit where it is due, two baselines
# with the same fading guidance.
WAYS = (
    (CEILING, "none", "constant"),
    (SDEDIT, "none", "constant"),
    ("ddim", "none", "dynamic"),
    ("ddim", "refine", "constant"),
    ("negative-prompt", "refine", "constant"),
    ("null-text", "refine", "constant"),
    ("direct", "refine", "constant"),
    ("direct", "refine", "dynamic"),
    ("edict", "none", "constant"),
    ("bdia", "none", "constant"),
    ("edit-friendly", "none", "constant"),
    ("dual-chain", "none", "constant"),
    ("dual-chain", "none", "dynamic-inverted-at-1"),
    ("dual-chain", "none", "dynamic"),
    ("dual-chain (evaluated at target)", "none", "dynamic"),
    ("dual-chain (current timestep)", "none", "dynamic"),
    ("dual-chain", "refine", "dynamic"),
)

# How the dual chain does under each control, and without any.
CONTROLLED = tuple(("dual-chain", control, "dynamic") for control in CONTROLS)

# Few ways, to be followed over guidance scales and numbers of steps.
FEW = (
    ("ddim", "none", "dynamic"),
    ("ddim", "refine", "constant"),
    ("direct", "refine", "constant"),
    ("dual-chain", "none", "constant"),
    ("dual-chain", "none", "dynamic"),
    ("dual-chain", "refine", "dynamic"),
)

EVERY = (1.0, 3.0, 5.0, 7.5), (5, 10, 20, 50)

PROFILES: dict[str, dict] = {
    "small": {"ways": (FEW[1], FEW[4]), "scales": (7.5,), "steps": (5,), "scenes": 4},
    "table": {"ways": WAYS, "scales": (7.5,), "steps": (10,), "scenes": 200},
    "controls": {"ways": CONTROLLED, "scales": (7.5,), "steps": (10,), "scenes": 200},
    "sweep": {"ways": FEW, "scales": EVERY[0], "steps": EVERY[1], "scenes": 16},
    "full": {"ways": WAYS, "scales": EVERY[0], "steps": EVERY[1], "scenes": 200},
}

KEY = list(Case.__dataclass_fields__)
MEASURED = [*(f"{name}_truth" for name in MEASURES), "background", "edit_accuracy", "preservation"]
RENDERED = [f"{name}_rendered" for name in MEASURES]
COLUMNS = [*KEY, "image", "kind", *MEASURED, *RENDERED]
COLUMNS += [
    "nfe_inversion",
    "nfe_sampling",
    "seconds_inversion",
    "seconds_sampling",
    "batch",
    "problem",
]


def cases(
    ways: Iterable[tuple[str, str, str]], scales: Iterable[float], steps: Iterable[int]
) -> list[Case]:
    """All settings of a sweep over ways to edit, each once."""
    ways, scales = tuple(ways), tuple(scales)
    found = [case(*way, w, n) for n in steps for w in scales for way in ways]
    return list(dict.fromkeys(found))


def known_profile(name: str) -> dict:
    """A profile by its name; raises ValueError for an unknown one."""
    if name not in PROFILES:
        raise ValueError(f"unknown profile {name!r}: expected one of {', '.join(PROFILES)}")
    return PROFILES[name]


def run(
    model: StableDiffusion,
    scenes: Sequence[Example],
    todo: Sequence[Case],
    folder: Path,
    batch: int = 8,
) -> pd.DataFrame:
    """Edit every scene in every way, save each batch when it is done, and return all rows.

    Measures named "truth" are against the VAE round trip of the true answer, "rendered" against
    the true answer self_until, which the way named "ceiling" shows what can be reached of.

    Args:
        scenes: from `erddci.scenes.examples.edits`.
        folder: where rows go, one file a process; made if missing.
        batch: scenes that are walked together.

    Raises:
        ValueError: the folder holds rows of another model or of other scenes.
    """
    prompts = [f"{scene.source} > {scene.target}" for scene in scenes]
    runs.run(model, scenes, prompts, todo, _run_one, COLUMNS, folder, batch)
    return read(folder)


def read(folder: Path) -> pd.DataFrame:
    """All rows that a folder holds, sorted by steps and scale."""
    order = ["steps", "guidance_scale", "method", "control", "schedule", "image"]
    return runs.read(folder, COLUMNS).sort_values(order, ignore_index=True)


def profile(model: StableDiffusion, name: str, folder: Path, batch: int = 8) -> pd.DataFrame:
    """The rows of one of `PROFILES`: those of `folder`, the rest measured now.

    Raises:
        ValueError: an unknown profile, or a folder of other rows.
    """
    chosen = known_profile(name)
    todo = cases(chosen["ways"], chosen["scales"], chosen["steps"])
    rows = run(model, edits(chosen["scenes"], start=FIRST_SEED), todo, folder, batch)
    return runs.chosen(rows, todo, chosen["scenes"])


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean measures of each way to edit with bootstrap 95 % intervals, best mean rank first.

    The rank of a way is taken among all ways of the frame on one image, for each of PSNR, LPIPS,
    background, asked and kept, equal ones sharing theirs, and averaged.
    """
    frame = frame.assign(rank=ranks(frame), nfe=frame["nfe_inversion"] + frame["nfe_sampling"])
    frame["seconds"] = frame["seconds_inversion"] + frame["seconds_sampling"]
    columns = ["rank", *MEASURED, *RENDERED, "nfe", "seconds"]
    table = runs.summary(frame, KEY, columns, "mean")
    table.insert(0, "setting", [label(row) for row in table.to_dict("records")])
    return table.sort_values("rank", ignore_index=True)


def printed(frame: pd.DataFrame) -> pd.DataFrame:
    """The summary of some rows as tables print it, without seconds: the machine may be shared."""
    found = summary(frame)
    bare = ("mse", "ssim_rendered", "lpips_rendered", "seconds")
    left_out = [name for name in found if name.startswith(bare)]
    return found.drop(columns=[*KEY, "failed", *left_out])


def by_kind(frame: pd.DataFrame, column: str = "psnr_truth") -> pd.DataFrame:
    """The mean of a column for each way to edit (rows) and kind of edit (columns)."""
    way = [label(row) for row in frame[KEY].to_dict("records")]
    table = frame.assign(setting=way).pivot_table(column, "setting", "kind", sort=False)
    return table[[kind for kind in KINDS if kind in table]]


def ranks(frame: pd.DataFrame) -> pd.Series:
    """Mean rank of each row among those of its image, steps and scale; the ceiling has none."""
    ways = frame[frame["method"] != CEILING]
    groups = ways.groupby(["image", "steps", "guidance_scale"])
    better = {
        "psnr_truth": 1,
        "lpips_truth": -1,
        "background": 1,
        "edit_accuracy": 1,
        "preservation": 1,
    }
    each = [groups[name].rank(ascending=sign < 0) for name, sign in better.items()]
    return pd.concat(each, axis=1).mean(axis=1).reindex(frame.index)


def gain(
    frame: pd.DataFrame,
    way: tuple[str, str, str],
    over: tuple[str, str, str],
    column: str = "psnr_truth",
) -> dict[str, float]:
    """Mean gain of one way over another, edit by edit, with its bootstrap 95 % interval.

    Args:
        way, over: method, control and schedule.
    """
    index = ["steps", "guidance_scale", "image"]
    values = frame.set_index(["method", "control", "schedule"]).sort_index()
    first, second = (values.loc[[each]].set_index(index)[column] for each in (way, over))
    return runs.interval(column, (first - second).dropna().to_numpy(), "mean")


def speed(
    model: StableDiffusion, scene: Example, w: float = 7.5, steps: int = 50, repeats: int = 3
) -> pd.DataFrame:
    """Time one edit, inversion included, by null-text, Direct Inversion and the dual chain.

    Returns:
        one row per run: median seconds, network rows, and `speedup`, how many times faster than
        null-text inversion with prompt-to-prompt.
    """
    x, prompts = model.encode(scene.image), ([scene.source], [scene.target])
    source, target = (model.condition(each[0]) for each in prompts)
    refine = make_control("refine", model.tokenizer, *prompts)

    def go(
        name: str, schedule: GuidanceSchedule | None, control: Control | None, **options: object
    ) -> float:
        path = invert(model, x, source.with_guidance(w, schedule), name, steps, **options)
        return path.nfe + edit(model, path, target.with_guidance(w, schedule), control).nfe

    ways = {
        "null-text + refine": partial(go, "null-text", None, refine),
        "direct + refine": partial(go, "direct", None, refine),
        "dual-chain, dynamic": partial(go, "dual-chain", DEFAULT_SCHEDULE, None),
        "dual-chain (current timestep), dynamic": partial(
            go, "dual-chain", DEFAULT_SCHEDULE, None, timestep="current"
        ),
        "dual-chain (current timestep) + refine, dynamic": partial(
            go, "dual-chain", DEFAULT_SCHEDULE, refine, timestep="current"
        ),
    }
    found = []
    for repeat in range(repeats + 1):
        for name, edited in ways.items():
            start = synchronized_time(model)
            rows = edited()
            if repeat:  # the first warms up
                found.append(
                    {"run": name, "seconds": synchronized_time(model) - start, "nfe": rows}
                )
    table = pd.DataFrame(found).groupby("run", sort=False).median().reset_index()
    return table.assign(speedup=table["seconds"][0] / table["seconds"])


def label(way: Mapping[str, Any]) -> str:
    """A way to edit in words, of a row or a case's fields."""
    control = "" if way["control"] == "none" else f" + {way['control']}"
    names = {
        "constant": "",
        "dynamic": ", dynamic",
        "dynamic-inverted-at-1": ", dynamic (inverted at 1)",
    }
    return f"{way['method']}{control}{names[way['schedule']]}"


@torch.no_grad()
def _run_one(model: StableDiffusion, scenes: list[Example], way: Case, kept: dict) -> list[dict]:
    """Edit some scenes together in one way: a row for each."""
    if "x" not in kept:
        kept["x"] = model.encode([scene.image for scene in scenes])
        kept["truths"] = model.decode(model.encode([scene.truth for scene in scenes]))
    if way.method == CEILING:
        images, spent = kept["truths"], {}
    else:
        images, spent = _edited(model, scenes, way, kept)
    rows = edit_rows(scenes, images, kept["truths"])
    for scene, image, row in zip(scenes, images, rows, strict=True):
        row |= {"kind": scene.name, "batch": len(scenes)} | spent
        if "problem" not in row:
            rendered = compare(model.to_array(scene.truth), image)
            row |= {f"{name}_rendered": value for name, value in rendered.items()}
    return rows


def _edited(
    model: StableDiffusion, scenes: list[Example], way: Case, kept: dict
) -> tuple[np.ndarray, dict]:
    """The edited images, and what they cost."""
    x, schedule = kept["x"], SCHEDULES[way.schedule]
    sources, targets = ([getattr(s, end) for s in scenes] for end in ("source", "target"))
    source, target = model.condition(sources), model.condition(targets)
    variant = VARIANTS.get(way.method, Variant(way.method))
    if way.method == SDEDIT:
        path, up = sdedit_trajectory(model, x, source, way.steps), 0.0
    else:
        told = source.with_guidance(way.guidance_scale, schedule)
        climb = cached_inversion(
            model, x, told, variant.method, way.steps, kept, **variant.inversion
        )
        path, up = climb.path, climb.seconds
    start = synchronized_time(model)
    control = make_control(way.control, model.tokenizer, sources, targets)
    wish = target.with_guidance(way.guidance_scale, schedule)
    options = dict(variant.edit)
    path = path.with_strength(options.pop("strength", 1.0))
    found = edit(model, path, wish, control, **options)
    seconds = (synchronized_time(model) - start) / len(x)
    spent = {"nfe_inversion": path.nfe, "nfe_sampling": found.nfe}
    spent |= {"seconds_inversion": up / len(x), "seconds_sampling": seconds}
    return model.decode(found.x0), spent
