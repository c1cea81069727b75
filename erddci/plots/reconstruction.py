"""Figures of reconstruction: what comes back, by method and by guidance, and at what cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from erddci.plots.style import COLOURS, STYLE, rows_axis


def reconstructions(
    round_trip: np.ndarray, images: Mapping[str, np.ndarray], measures: Mapping[str, str]
) -> Figure:
    """Figure 4: what each method brings back, and where it differs from the VAE round trip.

    Args:
        round_trip: the ground truth [height, width, 3].
        images: reconstructions by method.
        measures: a line of numbers to print under each.
    """
    panels = {"VAE round trip": round_trip, **images}
    wide, high = 5, -(-len(panels) // 5)
    plain: dict[Any, Any] = {"axes.grid": False, "axes.titlelocation": "center"}
    with mpl.rc_context(STYLE | plain):
        figure, axes = plt.subplots(2 * high, wide, figsize=(1.6 * wide, 3.6 * high))
        for ax in axes.flat:
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        for place, (name, image) in enumerate(panels.items()):
            row, column = divmod(place, wide)
            axes[2 * row, column].imshow(image, interpolation="lanczos")
            axes[2 * row, column].set_title(name, fontsize=9)
            if name not in images:
                continue
            error = np.abs(image - round_trip).mean(2)
            norm = LogNorm(1e-4, 0.5, clip=True)
            shown = axes[2 * row + 1, column].imshow(error, cmap="magma", norm=norm)
            axes[2 * row + 1, column].set_xlabel(measures[name], fontsize=7.5)
        # The first column of the first row of errors belongs to the ground truth, which has none.
        bar = axes[1, 0].inset_axes((0.08, 0.6, 0.84, 0.08))
        figure.colorbar(shown, cax=bar, orientation="horizontal", label="absolute error")
    return figure


KINDS = {
    "approximate": ("#D55E00", "o"),
    "exact": ("#0072B2", "s"),
    "exact given what is stored": ("#009E73", "^"),
}


def cost_quality(frame: pd.DataFrame, kinds: Mapping[str, str], best: float = 130.0) -> Figure:
    """PSNR against network rows, one point a method, one panel a guidance scale.

    Args:
        frame: medians, from `benchmark.summary`, with a column `rows` of all rows of an image.
        kinds: how reversible each method is.
        best: PSNR in dB at which better values, infinite ones too, are drawn.
    """
    scales = sorted(frame["guidance_scale"].unique())
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, len(scales), figsize=(4.6 * len(scales), 4.6), sharey=True, squeeze=False
        )
        for ax, w in zip(axes[0], scales, strict=True):
            part = frame[frame["guidance_scale"] == w].sort_values("psnr_vae")
            for kind, (colour, marker) in KINDS.items():
                rows = part[part["method"].map(kinds) == kind]
                quality = rows["psnr_vae"].clip(upper=best)
                spans = [
                    (quality - rows["psnr_vae_low"].clip(upper=best)).clip(lower=0),
                    (rows["psnr_vae_high"].clip(upper=best) - quality).clip(lower=0),
                ]
                ax.errorbar(
                    rows["nfe"], quality, spans, fmt=marker, color=colour, label=kind,
                    markersize=5, elinewidth=0.8,
                )  # fmt: skip
            _label_points(ax, part, best)
            rows_axis(ax)
            ax.set(xlim=(part["nfe"].min() * 0.85, part["nfe"].max() * 2), ylim=(0, best + 30))
            ax.set_title(f"w = {w:g}")
        axes[0, 0].set_ylabel("PSNR to the VAE round trip (dB)")
        axes[0, 0].legend(loc="lower right")
    return figure


def _label_points(ax: Axes, frame: pd.DataFrame, best: float) -> None:
    """Name the points, those that coincide with one label; labels of one height keep apart."""
    marks: dict[tuple[float, float], list[str]] = {}
    for row in frame.sort_values(["psnr_vae", "nfe"]).to_dict("records"):
        way = f" (up at w = {row['inverted_at']:g})" if row["named"] else ""
        place = (row["nfe"], round(min(row["psnr_vae"], best)))
        marks.setdefault(place, []).append(row["method"] + way)
    lowest = -np.inf
    for (rows, quality), names in marks.items():
        near = any(rows < r < 1.8 * rows and abs(q - quality) < 2.5 for r, q in marks)
        if near and quality < best - 5:
            # On the right the label would cover another point.
            ax.text(rows * 0.97, quality - 3, "\n".join(names), fontsize=7, va="top")
            continue
        height = max(quality, lowest + 5)
        lowest = height + 8 * (len(names) - 1)
        ax.annotate(
            "\n".join(names[::-1]), (rows, quality), (rows * 1.12, height),
            fontsize=7, va="bottom" if len(names) > 1 else "center",
            arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": "grey"},
        )  # fmt: skip


# Lines of methods that coincide are told apart by their width.
STEPPED: dict[str, dict[str, Any]] = {
    "direct": {"color": "#BBBBBB", "lw": 7},
    "edit-friendly": {"color": "#009E73", "lw": 3.5},
    "dual-chain, up at w": {"color": "#0072B2", "marker": "v"},
    "belm": {"color": "#56B4E9", "marker": "P"},
    "bdia": {"color": "#E69F00", "marker": "X"},
    "edict": {"color": "#CC79A7", "marker": "D"},
    "renoise": {"color": "#009E73", "marker": "<", "ls": "--"},
    "negative-prompt": {"color": "#000000", "marker": "^"},
    "proximal": {"color": "#000000", "marker": "s", "ls": "--"},
    "ddim, up at w": {"color": "#D55E00", "marker": "o"},
    "ddim, up at w = 1": {"color": "#D55E00", "marker": "o", "ls": ":"},
    "dual-chain, up at w = 1": {"color": "#0072B2", "marker": "v", "ls": ":"},
}


def steps_quality(table: pd.DataFrame, best: float = 130.0) -> Figure:
    """PSNR against the number of steps, a line a method, a panel a guidance scale.

    Args:
        table: medians, from `benchmark.summary`.
        best: PSNR in dB at which better values, infinite ones too, are drawn.
    """
    scales = sorted(table["guidance_scale"].unique())
    table = table.assign(line=table["method"])
    for name in ("ddim", "dual-chain"):
        either = table["method"] == name
        at_w = either & (table["inverted_at"] == table["guidance_scale"])
        table.loc[either, "line"] = f"{name}, up at w = 1"
        table.loc[at_w, "line"] = f"{name}, up at w"
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, len(scales), figsize=(4.2 * len(scales) + 1.6, 3.6), sharey=True, squeeze=False
        )
        for ax, w in zip(axes[0], scales, strict=True):
            for name, look in STEPPED.items():
                part = table[(table["line"] == name) & (table["guidance_scale"] == w)]
                part = part.sort_values("steps")
                low, middle, high = (
                    part[f"psnr_vae{end}"].clip(upper=best) for end in ("_low", "", "_high")
                )
                ax.plot(part["steps"], middle, markersize=4, **look)
                ax.fill_between(part["steps"], low, high, color=look["color"], alpha=0.12, lw=0)
            ax.set(xscale="log", xlabel="steps N", title=f"w = {w:g}")
            values = sorted(table["steps"].unique())
            ax.set_xticks(values, map(str, values))
            ax.xaxis.set_minor_locator(NullLocator())
        axes[0, 0].set_ylabel("PSNR to the VAE round trip (dB)")
        named = [name for name in STEPPED if (table["line"] == name).any()]
        lines = [Line2D([], [], markersize=4, **STEPPED[name]) for name in named]
        figure.legend(lines, named, loc="outside right center")
    return figure


def throughput(table: pd.DataFrame) -> Figure:
    """Images per second against each of what `benchmark.throughput` varied, and the ideal."""
    groups = table.groupby("varied", sort=False)
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(groups), figsize=(3.8 * len(groups), 3), squeeze=False)
        for ax, (varied, group) in zip(axes[0], groups, strict=True):
            x, done = group["value"], group["images_per_second"]
            ax.plot(x, done, "o-", color=COLOURS["dual-chain"], label="measured")
            ax.plot(x, group["ideal"], ":", color=COLOURS["floor"], label="ideal")
            ax.set(xlabel=varied, ylabel="images_per_second", ylim=(0, 2.2 * done.max()))
            ax.set_xticks(x)
        axes[0, 0].legend()
    return figure


# Ways of `experiments.guidance_sweep`: colour by family, dashes, marker and width.  The lines of
# exact ways lie on each other, so the first of them are wide.
GUIDED: dict[str, dict[str, Any]] = {
    "direct": {"color": "#BBBBBB", "lw": 7},
    "D2 guided inversion": {"color": "#009E73", "lw": 3.5},
    "null-text": {"color": "#000000", "marker": "s"},
    "negative-prompt": {"color": "#000000", "marker": "^", "ls": ":"},
    "DDIM": {"color": "#D55E00", "marker": "o"},
    "dual chain": {"color": "#0072B2", "marker": "v"},
    "D1 interval [0, 400]": {"color": "#56B4E9", "marker": "<"},
    "D1 power 4": {"color": "#56B4E9", "marker": ">", "ls": "--"},
    "D3 anchored": {"color": "#E69F00", "marker": "P"},
    "D3 clipped": {"color": "#E69F00", "marker": "X", "ls": "--"},
    "D1 + D2, interval [900, 1000]": {"color": "#CC79A7", "marker": "d", "ls": "--"},
    "D1 + D2, power 4": {"color": "#CC79A7", "marker": ".", "ls": ":"},
    "D1 + D2, the default": {"color": "#CC79A7", "marker": "D"},
}
EXACT = 100.0  # dB, above which only the rounding of the decoder's numbers is left


def guidance_sweep(frame: pd.DataFrame, edits: pd.DataFrame | None = None) -> Figure:
    """Figure 5: what comes back, and how edits do, by guidance scale; one line a way.

    Args:
        frame: from `experiments.guidance_sweep`; drawn are medians and quartiles.
        edits: from `experiments.edit_sweep`; drawn are means and their standard errors.
    """
    rows = [(frame, RETURNED, False)] + ([] if edits is None else [(edits, EDITED, True)])
    small: dict[Any, Any] = {"lines.linewidth": 1.4, "lines.markersize": 4.5}
    with mpl.rc_context(STYLE | small):
        figure, axes = plt.subplots(
            len(rows), 3, figsize=(10.2, 2.9 * len(rows) + 0.2), squeeze=False, sharex=True
        )
        for line, (part, titles, means) in zip(axes, rows, strict=True):
            for ax, (column, title) in zip(line, titles.items(), strict=True):
                _by_scale(ax, part, column, means)
                ax.set_title(title)
        for ax in axes[-1]:
            ax.set_xticks(sorted(frame["guidance_scale"].unique()))
            ax.xaxis.set_major_formatter("{x:g}")
            ax.set_xlabel("guidance scale w")
        names = {name for part, *_ in rows for name in part["setting"]}
        shown = {name: Line2D([], [], **look) for name, look in GUIDED.items() if name in names}
        figure.legend(list(shown.values()), list(shown), loc="outside right center")
    return figure


RETURNED = {
    "psnr_vae": "Reconstruction: PSNR (dB) ↑",
    "ssim_vae": "Reconstruction: SSIM ↑",
    "lpips_vae": "Reconstruction: LPIPS ↓",
}
EDITED = {
    "psnr_truth": "Edit: PSNR to the truth (dB) ↑",
    "background": "Edit: PSNR of background (dB) ↑",
    "edit_accuracy": "Edit: share done as asked ↑",
}


def _by_scale(ax: Axes, frame: pd.DataFrame, column: str, means: bool) -> None:
    """One line a way; values in dB that count as exact are drawn on a line at the top."""
    decibel = column.startswith("psnr") and not means
    rough = frame[column][frame[column] < EXACT] if decibel else frame[column]
    top = 10 * np.ceil(rough.max() / 10) + 5 if len(rough) and decibel else 20.0
    for way, look in GUIDED.items():
        groups = frame[frame["setting"] == way].groupby("guidance_scale")[column]
        if not len(groups):
            continue
        if means:
            middle, error = groups.mean(), groups.sem()
            low, high = middle - error, middle + error
        else:
            # Of values in between one is taken, as infinity cannot be averaged.
            low, middle, high = (groups.quantile(q, interpolation="lower") for q in QUARTILES)
        if decibel:
            low, middle, high = (each.where(each < EXACT, top) for each in (low, middle, high))
        ax.plot(middle.index, middle, **look)
        ax.fill_between(middle.index, low, high, color=look["color"], alpha=0.1, lw=0)
    if decibel and (frame[column] >= EXACT).any():
        kept = [tick for tick in range(0, int(top), 10)]
        ax.set_yticks([*kept, top], [*map(str, kept), "exact"])


QUARTILES = (0.25, 0.5, 0.75)
