"""How methods, and ways to edit, look: alike in every figure, and none is ever left out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any

import pandas as pd

from erddci.controls import CONTROLS
from erddci.inversion import METHODS

NEUTRAL = "#999999"
MARKERS = "osD^v<>PpXd*h8H"
DASHES: tuple[Any, ...] = ((0, (1.2, 1.2)), "-", "--", "-.", (0, (5, 1.5, 1, 1.5, 1, 1.5)))
FILLS = ("none", "full", "left", "bottom", "right", "top")
# Paul Tol's muted colours, of which no method has one.
OTHERS = ("#332288", "#CC6677", "#117733", "#88CCEE", "#882255", "#44AA99", "#999933", "#AA4499")


@dataclass(frozen=True)
class Look:
    """How one line or one kind of point is drawn, in matplotlib's terms."""

    label: str
    color: str = NEUTRAL
    marker: str = "."
    dashes: Any = "-"
    fill: str = "full"

    @property
    def line(self) -> dict[str, Any]:
        """Keyword arguments of a `Line2D`."""
        return {"linestyle": self.dashes} | self.point

    @property
    def point(self) -> dict[str, Any]:
        """Keyword arguments of a `Line2D` without the line."""
        # A white face rather than none: what lies behind would be taken for a part of the marker.
        faces = {"markerfacecolor": "white"} if self.fill == "none" else {"fillstyle": self.fill}
        faces |= {"markerfacecoloralt": "white"}
        return {"color": self.color, "marker": self.marker} | faces


def look(method: str) -> Look:
    """The look of a method, by its name or its label; grey if `METHODS` has no such method."""
    for name, known in METHODS.items():
        if method in (name, known.label):
            return Look(known.label, known.color, known.marker)
    return Look(method)


def setting_looks(settings: Iterable[str]) -> dict[str, Look]:
    """Looks of settings that are methods, and of others in the order in which they are given."""
    settings = list(dict.fromkeys(settings))
    rest = zip(cycle(MARKERS), [*OTHERS, *[NEUTRAL] * len(settings)], strict=False)
    found = {}
    for setting in settings:
        found[setting] = look(setting)
        if found[setting].color == NEUTRAL:
            marker, color = next(rest)
            found[setting] = Look(setting, color, marker)
    return found


def edit_looks(table: pd.DataFrame, schedules: Iterable[str] = ()) -> dict[str, Look]:
    """The look of each way to edit, by its setting.

    The colour is the method's, the marker says the control; dashes, and how a marker is filled,
    the schedule.  Of ways that are alike in all three, such as a method under other options, the
    later ones get markers of their own.

    Args:
        table: with columns setting, method, control and schedule.
        schedules: the known schedules in their order; others follow them.
    """
    ways = table[["method", "control", "schedule", "setting"]].drop_duplicates()
    markers = dict(zip(_in_order(CONTROLS, ways["control"]), cycle(MARKERS), strict=False))
    order = _in_order(schedules, ways["schedule"])
    dashes = dict(zip(order, cycle(DASHES), strict=False))
    fills = dict(zip(order, cycle(FILLS), strict=False))
    found: dict[str, Look] = {}
    for method, control, schedule, setting in sorted(ways.itertuples(index=False, name=None)):
        color = look(method.partition(" (")[0]).color
        each = Look(setting, color, markers[control], dashes[schedule], fills[schedule])
        found[setting] = _apart(each, found.values())
    return found


def _in_order(known: Iterable[str], values: Iterable[str]) -> list[str]:
    known = list(known)
    return [*known, *sorted(set(values) - set(known))]


def _apart(each: Look, taken: Iterable[Look]) -> Look:
    """A look, with the next free marker if it is taken."""
    bare = {replace(other, label="") for other in taken}
    for marker in (each.marker, *MARKERS[len(CONTROLS) :]):
        if replace(each, label="", marker=marker) not in bare:
            return replace(each, marker=marker)
    return each
