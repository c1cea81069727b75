"""Figures of reconstruction: its quality by method, by guidance and by steps, and its cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from erddci.inversion import APPROXIMATE, EXACT, METHODS, STORED
from erddci.plots.curves import Curve, draw_curves, mark_top, nfe_axis, steps_axis, top_of
from erddci.plots.looks import NEUTRAL, Look, look, setting_looks
from erddci.plots.style import BARE, CELL, SERIES, STYLE, draw_image, rows_for, without_frame

if TYPE_CHECKING:
    from pandas.core.groupby import SeriesGroupBy

Spread = Callable[["SeriesGroupBy"], pd.DataFrame]
ERRORS = LogNorm(1e-4, 0.5, clip=True)


def reconstructions(
    round_trip: np.ndarray, images: Mapping[str, np.ndarray], measures: Mapping[str, str]
) -> Figure:
    """Figure 4: reconstructions, and under each how it differs from the VAE round trip.

    Args:
        round_trip: of the VAE, [height, width, 3].
        images: reconstructions by method.
        measures: a line of numbers to print under each.
    """
    wide, high = 5, rows_for(1 + len(images), 5)
    with mpl.rc_context(BARE):
        size = ((CELL + 0.2) * wide, 2 * (CELL + 0.35) * high)
        figure, axes = plt.subplots(2 * high, wide, figsize=size, squeeze=False)
        for ax in axes.flat:
            without_frame(ax)
        pairs = axes.reshape(high, 2, wide).transpose(0, 2, 1).reshape(-1, 2)
        draw_image(pairs[0, 0], round_trip)
        pairs[0, 0].set_title("VAE round trip", fontsize=9)
        for (upper, lower), (method, image) in zip(pairs[1:], images.items(), strict=False):
            draw_image(upper, image)
            upper.set_title(look(method).label, fontsize=9)
            error = np.abs(image - round_trip).mean(2)
            lower.imshow(error, cmap="magma", norm=ERRORS, interpolation="none")
            lower.set_xlabel(measures[method], fontsize=7.5)
        # The round trip itself has no error to show.
        bar = pairs[0, 1].inset_axes((0.08, 0.6, 0.84, 0.08))
        shades = ScalarMappable(ERRORS, "magma")
        figure.colorbar(shades, cax=bar, orientation="horizontal", label="absolute error")
    return figure


# How a marker is filled says how reversible its method is.
FILL = {APPROXIMATE: "none", EXACT: "full", STORED: "left"}


def cost_quality(table: pd.DataFrame) -> Figure:
    """PSNR against function evaluations, one point a method, one panel a guidance scale.

    Points of finite PSNR that coincide are drawn one around the other; infinite PSNR has a band
    of its own, in which height means nothing.

    Args:
        table: medians, from the reconstruction benchmark, with columns `psnr_vae`, its interval,
            and `nfe`, those of inversion and sampling together.
    """
    scales = sorted(table["guidance_scale"].unique())
    top = top_of(table["psnr_vae"])
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, len(scales), figsize=(4 * len(scales) + 2, 4.6), sharey=True, squeeze=False
        )
        for ax, w in zip(axes[0], scales, strict=True):
            _costs(ax, table[table["guidance_scale"] == w], top)
            ax.axhspan(top - 4, top + 32, color=NEUTRAL, alpha=0.12, linewidth=0)
            ax.set(title=f"w = {w:g}", ylim=(0, top + 32))
        mark_top(axes[0, 0], top)
        axes[0, 0].set_ylabel("PSNR to the VAE round trip (dB)")
        _legend_by_kind(figure, table["method"])
    return figure


def _costs(ax: Axes, table: pd.DataFrame, top: float) -> None:
    nfe_axis(ax)
    table = table.sort_values(["nfe", "method"])
    twice = table.duplicated("method", keep=False)
    other = twice & (table["inverted_at"] != table["guidance_scale"])
    ends = table[["psnr_vae_low", "psnr_vae", "psnr_vae_high"]]
    heights, sizes = _places(table["nfe"].to_numpy(), ends["psnr_vae"].to_numpy(), top)
    for n, row in enumerate(table.to_dict("records")):
        style = _kind_look(row["method"]).point
        ax.plot(row["nfe"], heights[n], linestyle="", markersize=sizes[n], **style)
        if np.isfinite(ends.iloc[n]).all():
            ax.vlines(
                row["nfe"], *ends.iloc[n, [0, 2]], color=style["color"], linewidth=0.8, zorder=1
            )
        if other.iloc[n]:
            note = f"inverted at w = {row['inverted_at']:g}"
            ax.annotate(
                note, (row["nfe"], heights[n]), (-4, 6), textcoords="offset points", fontsize=7,
            )  # fmt: skip


def _places(nfe: np.ndarray, psnr: np.ndarray, top: float) -> tuple[list[float], list[float]]:
    """Heights and marker sizes at which points are seen that are at, or almost at, one place."""
    heights: list[float] = []
    sizes: list[float] = []
    for n, (x, y) in enumerate(zip(nfe, psnr, strict=True)):
        beside = np.abs(np.log(nfe / x)) < 0.12
        before, infinite = beside[:n], np.isinf(psnr)
        if np.isinf(y):
            heights.append(top + 7 * np.count_nonzero(before & infinite[:n]))
            sizes.append(6)
            continue
        alike = beside & ~infinite & (np.abs(psnr - y) < 1)
        heights.append(y)
        sizes.append(6 + 4.5 * np.count_nonzero(alike[n + 1 :]))
    return heights, sizes


def _kind_look(method: str) -> Look:
    known = METHODS.get(method)
    each = look(method)
    fill = FILL.get(known.reversible, "full") if known else "full"
    return Look(each.label, each.color, each.marker, fill=fill)


def _legend_by_kind(figure: Figure, methods: Sequence[str] | pd.Series) -> None:
    """Name all methods, those of a kind under its name."""
    kinds: dict[str, list[str]] = {kind: [] for kind in FILL}
    for method in [name for name in METHODS if name in set(methods)]:
        kinds.setdefault(METHODS[method].reversible, []).append(method)
    kinds["unknown"] = sorted(set(methods) - set(METHODS))
    handles: list[Line2D] = []
    for kind, names in kinds.items():
        if names:
            handles.append(Line2D([], [], linestyle="", label=kind))
        for name in names:
            each = _kind_look(name)
            handles.append(Line2D([], [], linestyle="", label=each.label, **each.point))
    legend = figure.legend(handles=handles, loc="outside right center")
    for text in legend.get_texts():
        if text.get_text() in kinds:
            text.set(fontweight="bold", position=(-22, 0))


def steps_quality(table: pd.DataFrame) -> Figure:
    """PSNR against the number of steps, a line a method, a panel a guidance scale.

    Lines that coincide are drawn as one in the colours of all; infinite PSNR is drawn on top.

    Args:
        table: medians, from the reconstruction benchmark.
    """
    scales, steps = (sorted(table[name].unique()) for name in ("guidance_scale", "steps"))
    top = top_of(table["psnr_vae"])
    table = _with_lines(table)
    looks = _line_looks(table)
    with mpl.rc_context(STYLE):
        size = (4.2 * len(scales) + 1.8, 3.8)
        figure, axes = plt.subplots(1, len(scales), figsize=size, sharey=True, squeeze=False)
        for ax, w in zip(axes[0], scales, strict=True):
            part = table[table["guidance_scale"] == w]
            draw_curves(ax, _steps_curves(part, looks, top))
            steps_axis(ax, steps)
            ax.set(title=f"w = {w:g}", ylim=(0, top + 8))
        mark_top(axes[0, 0], top)
        axes[0, 0].set_ylabel("PSNR to the VAE round trip (dB)")
        handles = [Line2D([], [], label=each.label, **each.line) for each in looks.values()]
        figure.legend(handles=handles, loc="outside right center")
    return figure


def _with_lines(table: pd.DataFrame) -> pd.DataFrame:
    """Name the line of each row: its method, and how it was inverted if it was in two ways."""
    table = table.assign(line=[look(method).label for method in table["method"]])
    key = ["method", "guidance_scale", "steps"]
    twice = table["method"].isin(table.loc[table.duplicated(key, keep=False), "method"])
    at_w = table["inverted_at"] == table["guidance_scale"]
    table.loc[twice & at_w, "line"] += ", inverted at w"
    table.loc[twice & ~at_w, "line"] += ", inverted at w = 1"
    return table


def _line_looks(table: pd.DataFrame) -> dict[str, Look]:
    """The look of each line, in the order of the methods; a method's second line is dotted."""
    known = list(METHODS)
    methods = table["method"].unique()
    rank = {name: known.index(name) if name in known else len(known) for name in methods}
    found = {}
    for method in sorted(methods, key=lambda name: (rank[name], name)):
        lines = sorted(table.loc[table["method"] == method, "line"].unique())
        for line, dashes in zip(lines, ("-", ":"), strict=False):
            found[line] = replace(look(method), label=line, dashes=dashes)
    return found


def _steps_curves(table: pd.DataFrame, looks: Mapping[str, Look], top: float) -> list[Curve]:
    curves = []
    for name, each in looks.items():
        part = table[table["line"] == name].set_index("steps").sort_index()
        ends = part[["psnr_vae_low", "psnr_vae", "psnr_vae_high"]].replace(np.inf, top)
        curves.append((each, ends.set_axis(["low", "middle", "high"], axis=1)))
    return [curve for curve in curves if len(curve[1])]


def throughput(table: pd.DataFrame) -> Figure:
    """Images per second against each of what was varied, and the ideal.

    Args:
        table: with columns varied, value, images_per_second and ideal.
    """
    groups = table.groupby("varied", sort=False)
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(groups), figsize=(3.8 * len(groups), 3), squeeze=False)
        for ax, (varied, group) in zip(axes[0], groups, strict=True):
            x, done = group["value"], group["images_per_second"]
            ax.plot(x, done, "o-", color=SERIES[1], label="measured")
            ax.plot(x, group["ideal"], ":", color="black", label="ideal")
            ax.set(xlabel=varied, ylabel="images per second", ylim=(0, 2.2 * done.max()))
            ax.set_xticks(x)
        axes[0, 0].legend()
    return figure


RECONSTRUCTED = {
    "psnr_vae": "Reconstruction: PSNR (dB) ↑",
    "ssim_vae": "Reconstruction: SSIM ↑",
    "lpips_vae": "Reconstruction: LPIPS ↓",
}
EDITED = {
    "psnr_truth": "Edit: PSNR to the truth (dB) ↑",
    "background": "Edit: PSNR of background (dB) ↑",
    "edit_accuracy": "Edit: edit accuracy ↑",
}
THIN: dict[Any, Any] = STYLE | {"lines.linewidth": 1.4, "lines.markersize": 4.5}
ROUNDING = 100.0  # dB, above which only the rounding of the decoder's numbers is left


def guidance_sweep(frame: pd.DataFrame, edits: pd.DataFrame | None = None) -> Figure:
    """Figure 5: reconstruction, and edits, by guidance scale; one line a setting.

    Args:
        frame: one row an image, setting and guidance scale; drawn are medians and quartiles.
        edits: the same of edits; drawn are means and their standard errors.
    """
    parts = [(frame, RECONSTRUCTED, _quartiles)]
    if edits is not None:
        parts.append((edits, EDITED, _standard_errors))
    looks = setting_looks(name for part, *_ in parts for name in part["setting"])
    with mpl.rc_context(THIN):
        figure, axes = plt.subplots(
            len(parts), 3, figsize=(10.4, 2.9 * len(parts) + 0.2), squeeze=False, sharex=True
        )
        for line, (part, titles, spread) in zip(axes, parts, strict=True):
            for ax, (column, title) in zip(line, titles.items(), strict=True):
                _by_scale(ax, part, column, looks, spread)
                ax.set_title(title)
        for ax in axes[-1]:
            ax.set_xticks(sorted(frame["guidance_scale"].unique()))
            ax.xaxis.set_major_formatter("{x:g}")
            ax.set_xlabel("guidance scale w")
        handles = [Line2D([], [], label=each.label, **each.line) for each in looks.values()]
        figure.legend(handles=handles, loc="outside right center")
    return figure


def _by_scale(
    ax: Axes, frame: pd.DataFrame, column: str, looks: Mapping[str, Look], spread: Spread
) -> None:
    """One line a setting; PSNR that only rounding limits is drawn on top, as infinite."""
    values = frame[column]
    if column == "psnr_vae":
        top = top_of(values, ROUNDING)
        values = values.where(values < ROUNDING, top)
    groups = values.groupby([frame["setting"], frame["guidance_scale"]], sort=True)
    summary = spread(groups)
    known = summary.index.get_level_values("setting").unique()
    draw_curves(ax, [(looks[name], summary.loc[name]) for name in looks if name in known])
    if column == "psnr_vae" and (frame[column] >= ROUNDING).any():
        mark_top(ax, top, f"{ROUNDING:g} to ∞")


def _quartiles(groups: SeriesGroupBy) -> pd.DataFrame:
    # Of values in between one is taken, as infinity cannot be averaged.
    ends = {"low": 0.25, "middle": 0.5, "high": 0.75}
    return pd.DataFrame(
        {name: groups.quantile(q, interpolation="lower") for name, q in ends.items()}
    )


def _standard_errors(groups: SeriesGroupBy) -> pd.DataFrame:
    middle, error = groups.mean(), groups.sem()
    return pd.DataFrame({"low": middle - error, "middle": middle, "high": middle + error})
