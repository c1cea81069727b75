"""Ways to edit by name: guidance schedules, variants of methods, and the cases of a benchmark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from erddci.controls import CONTROLS
from erddci.editing import SDEDIT, EditConfig
from erddci.guidance import DEFAULT_SCHEDULE, GuidanceSchedule
from erddci.inversion import METHODS
from erddci.registry import lookup


@dataclass(frozen=True)
class NamedSchedule:
    """A guidance schedule and how it is named.

    Args:
        schedule: None for constant guidance.
        label: in tables of edits, behind the method and the control.
        form: in sweeps over guidance scales, of the dual chain; empty if it is not part of them.
    """

    schedule: GuidanceSchedule | None
    label: str
    form: str = ""


def _form(label: str, **options: Any) -> NamedSchedule:  # noqa: ANN401
    return NamedSchedule(GuidanceSchedule(**options), label, label)


# D1, D2 and D3 are the three forms of dynamic control; see `GuidanceSchedule`.
SCHEDULES = {
    "constant": NamedSchedule(None, "", "dual chain"),
    "interval": _form("D1 interval [0, 400]", interval=(0, 400)),
    "power": _form("D1 power 4", power=4),
    "guided-inversion": _form("D2 guided inversion", guide_inversion=True),
    "anchored": _form("D3 anchored", anchor=0.2),
    "clipped": _form("D3 clipped", clip=0.05),
    "power-guided-inversion": _form("D1 + D2, power 4", power=4, guide_inversion=True),
    "interval-guided-inversion": _form(
        "D1 + D2, interval [900, 1000]", interval=(900, 1000), guide_inversion=True
    ),
    "dynamic": NamedSchedule(DEFAULT_SCHEDULE, "dynamic", "D1 + D2, the default"),
    "dynamic-inverted-at-1": NamedSchedule(
        replace(DEFAULT_SCHEDULE, guide_inversion=False), "dynamic (inverted at 1)"
    ),
}

# No edit: the VAE round trip of the true answer, which nothing should rise above.
CEILING = "ceiling"

# Methods as edits use them.  Those with a strength sample part of the trajectory, as their
# authors do by default.
EDITORS = {name: EditConfig(method=name) for name in METHODS} | {
    SDEDIT: EditConfig(method=SDEDIT, strength=0.6),
    "edict": EditConfig(method="edict", strength=0.8),
    "edit-friendly": EditConfig(method="edit-friendly", strength=0.64),
    "dual-chain (current timestep)": EditConfig(method="dual-chain", timestep="current"),
    "dual-chain (evaluated at target)": EditConfig(method="dual-chain", evaluate_at="target"),
}


class Way(NamedTuple):
    """A way to edit: one of `EDITORS` or `CEILING`, of `CONTROLS` and of `SCHEDULES`."""

    method: str
    control: str
    schedule: str


@dataclass(frozen=True)
class EditCase:
    """A way to edit under a guidance scale and in a number of steps.

    `inverted_at` is the guidance scale of the inversion, `guidance_scale` that of the targets.
    """

    method: str
    control: str
    schedule: str
    inverted_at: float
    guidance_scale: float
    steps: int

    @property
    def config(self) -> EditConfig:
        """The edit that the names stand for."""
        return edit_config(
            Way(self.method, self.control, self.schedule), self.guidance_scale, self.steps
        )


def edit_config(way: tuple[str, str, str], guidance_scale: float, steps: int) -> EditConfig:
    """The edit that a way's names stand for.

    Raises:
        ValueError: an unknown method, control or schedule.
    """
    method, control, schedule = way
    return replace(
        lookup(EDITORS, method, "method"),
        control=lookup(dict.fromkeys(CONTROLS, control), control, "control"),
        schedule=lookup(SCHEDULES, schedule, "schedule").schedule,
        guidance_scale=float(guidance_scale),
        steps=steps,
    )


def edit_cases(
    ways: Iterable[tuple[str, str, str]], scales: Iterable[float], steps: Iterable[int]
) -> list[EditCase]:
    """All cases of a sweep over ways to edit, each once.

    Raises:
        ValueError: an unknown method, control or schedule.
    """
    ways = tuple(ways)
    scales = tuple(scales)
    return list(dict.fromkeys(_case(way, w, n) for n in steps for w in scales for way in ways))


def _case(way: tuple[str, str, str], w: float, steps: int) -> EditCase:
    if way[0] == CEILING:
        return EditCase(*way, inverted_at=1.0, guidance_scale=float(w), steps=steps)
    guided = edit_config(way, w, steps).inverts_guided
    inverted_at = float(w) if guided else 1.0
    return EditCase(*way, inverted_at=inverted_at, guidance_scale=float(w), steps=steps)


def way_label(way: Mapping[str, Any]) -> str:
    """A way to edit in words, of the columns of a row."""
    label = way["method"]
    if way["control"] != "none":
        label += f" + {way['control']}"
    schedule = lookup(SCHEDULES, way["schedule"], "schedule").label
    return f"{label}, {schedule}" if schedule else label


# The ways that are compared by default: baselines as their papers have them, the dual chain with
# and without our dynamic control, and two baselines with the same dynamic control.
WAYS = (
    Way(CEILING, "none", "constant"),
    Way(SDEDIT, "none", "constant"),
    Way("ddim", "none", "dynamic"),
    Way("ddim", "refine", "constant"),
    Way("negative-prompt", "refine", "constant"),
    Way("null-text", "refine", "constant"),
    Way("direct", "refine", "constant"),
    Way("direct", "refine", "dynamic"),
    Way("edict", "none", "constant"),
    Way("bdia", "none", "constant"),
    Way("edit-friendly", "none", "constant"),
    Way("dual-chain", "none", "constant"),
    Way("dual-chain", "none", "dynamic-inverted-at-1"),
    Way("dual-chain", "none", "dynamic"),
    Way("dual-chain (evaluated at target)", "none", "dynamic"),
    Way("dual-chain (current timestep)", "none", "dynamic"),
    Way("dual-chain", "refine", "dynamic"),
)

# The dual chain under each control, and without any.
CONTROLLED = tuple(Way("dual-chain", control, "dynamic") for control in CONTROLS)

# Few ways, to be followed over guidance scales and numbers of steps.
FEW = (
    Way("ddim", "none", "dynamic"),
    Way("ddim", "refine", "constant"),
    Way("direct", "refine", "constant"),
    Way("dual-chain", "none", "constant"),
    Way("dual-chain", "none", "dynamic"),
    Way("dual-chain", "refine", "dynamic"),
)
