"""Lines with their intervals: those that coincide stay visible, and infinity has a place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from erddci.plots.looks import Look

Curve = tuple[Look, pd.DataFrame]  # by the index x, columns low, middle and high


def draw_curves(ax: Axes, curves: Sequence[Curve], alpha: float = 0.1) -> None:
    """Draw lines with intervals; where lines coincide, all of them are seen.

    Lines that coincide take turns along the line that they share, and with their markers.  Where
    only points coincide, those of the earlier lines are drawn around those of the later ones.
    """
    near = _hardly_apart([frame["middle"] for _, frame in curves])
    for number, (look, frame) in enumerate(curves):
        alike = [n for n, (_, other) in enumerate(curves) if _coincide(frame, other, 2 * near)]
        turn, sharing, middle = alike.index(number), len(alike), frame["middle"]
        style: dict[str, Any] = look.line | _stripes(turn, sharing) | {"marker": ""}
        ax.plot(frame.index, middle, label=look.label, **style)
        ax.fill_between(
            frame.index, frame["low"], frame["high"], color=look.color, alpha=alpha, linewidth=0
        )
        others = [curves[n][1] for n in range(number + 1, len(curves)) if n not in alike]
        rounds = (sharing - 1 - turn) // len(frame)
        around = _points_hidden(middle, others, near).clip(upper=2) + rounds
        own = slice(turn % len(frame), None, sharing)
        _draw_markers(ax, look, middle.iloc[own], around.iloc[own])


def _hardly_apart(lines: Sequence[pd.Series]) -> float:
    """The difference up to which values coincide: a two-hundredth of their range."""
    values = pd.concat(lines) if lines else pd.Series(dtype=float)
    finite = values[np.isfinite(values)]
    return 0.005 * (finite.max() - finite.min()) if len(finite) else 0.0


def _coincide(frame: pd.DataFrame, other: pd.DataFrame, near: float) -> bool:
    first, second = frame["middle"], other["middle"]
    return first.index.equals(second.index) and np.allclose(first, second, rtol=0, atol=near)


def _stripes(turn: int, sharing: int, length: float = 5) -> dict[str, Any]:
    """Dashes of one of several lines that lie on each other, which together leave no gap."""
    if sharing == 1:
        return {}
    return {"linestyle": ((sharing - turn) * length, (length, (sharing - 1) * length))}


def _points_hidden(values: pd.Series, others: Sequence[pd.DataFrame], near: float) -> pd.Series:
    """How many of some other curves have a point where a curve has one."""
    hidden = pd.Series(0, values.index)
    for other in others:
        hidden += (other["middle"].reindex(values.index) - values).abs() <= near
    return hidden


def _draw_markers(ax: Axes, look: Look, values: pd.Series, around: pd.Series) -> None:
    """Draw markers, the larger the more they are to be drawn around."""
    for count in sorted(set(around)):
        part = values[around == count]
        size = mpl.rcParams["lines.markersize"] + 2.5 * count
        ax.plot(part.index, part, linestyle="", markersize=size, **look.point)


def top_of(values: pd.Series, exact: float = math.inf) -> float:
    """Where to draw values from `exact` on: above all others, in dB."""
    rough = values[values < exact]
    return 10 * math.ceil(rough.max() / 10) + 10 if len(rough) else 20.0


def mark_top(ax: Axes, top: float, label: str = "∞") -> None:
    """Name the height at which infinite values are drawn; ticks near it give way."""
    low, high = ax.get_ylim()
    ticks = [tick for tick in ax.get_yticks() if low <= tick < top - 0.04 * (high - low)]
    ax.set_yticks([*ticks, top], [*(f"{tick:g}" for tick in ticks), label])
    ax.set_ylim(low, high)


def nfe_axis(ax: Axes) -> None:
    """Show function evaluations on the horizontal axis, logarithmic, with plain numbers."""
    ax.set(xscale="log", xlabel="NFE, inversion and sampling")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_locator(NullLocator())


def steps_axis(ax: Axes, steps: Sequence[int]) -> None:
    """Show numbers of steps on the horizontal axis, logarithmic, each with its tick."""
    ax.set(xscale="log", xlabel="steps N")
    ax.set_xticks(steps, map(str, steps))
    ax.xaxis.set_minor_locator(NullLocator())
