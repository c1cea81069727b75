"""Figures of editing: where attention is, edits side by side, and ways to edit compared."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from erddci.plots.curves import Curve, draw_curves, nfe_axis
from erddci.plots.looks import Look, edit_looks
from erddci.plots.style import BARE, CELL, NO_GRID, STYLE, draw_image, image_row, without_frame


def attention_maps(
    images: Mapping[str, np.ndarray], maps: Mapping[str, Sequence[tuple[str, np.ndarray]]]
) -> Figure:
    """Where words look: a row for each image, which is dimmed where a word looks less.

    Args:
        images: images [height, width, 3] by label.
        maps: for each label words and their maps, each scaled to its own maximum.
    """
    wide = 1 + max(map(len, maps.values()))
    with mpl.rc_context(STYLE):
        size = (CELL * wide + 0.4, (CELL + 0.2) * len(images))
        figure, axes = plt.subplots(len(images), wide, figsize=size, squeeze=False)
        for line, (label, image) in zip(axes, images.items(), strict=True):
            image_row(line, [image], label)
            for ax, (word, attention) in zip(line[1:], maps[label], strict=False):
                _draw_attention(ax, image, attention)
                ax.set_title(word, fontsize=8, loc="center")
    return figure


def _draw_attention(ax: Axes, image: np.ndarray, attention: np.ndarray) -> None:
    """A grey image with a map over it."""
    height, width = image.shape[:2]
    extent = (0, width, height, 0)
    grey = 0.6 * image.mean(2)
    ax.imshow(grey, cmap="gray", vmin=0, vmax=1, extent=extent, interpolation="none")
    share = attention / max(attention.max(), 1e-12)
    ax.imshow(share, cmap="inferno", alpha=0.75 * share, extent=extent, interpolation="none")


def alignment(
    answers: Mapping[str, np.ndarray], targets: Sequence[str], sources: Sequence[str]
) -> Figure:
    """Which words of a target prompt (rows) take attention from which of the source (columns).

    Args:
        answers: shares [targets, sources] by the kind of alignment.
    """
    with mpl.rc_context(NO_GRID):
        size = (len(answers) * (0.17 * len(sources) + 0.4) + 0.8, 0.17 * len(targets) + 1.3)
        figure, axes = plt.subplots(1, len(answers), figsize=size, sharey=True, squeeze=False)
        for ax, (kind, shares) in zip(axes[0], answers.items(), strict=True):
            ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
            ax.set_xticks(range(len(sources)), sources, rotation=90, fontsize=8)
            ax.set_yticks(range(len(targets)), targets, fontsize=8)
            ax.set_xticks(np.arange(len(sources)) - 0.5, minor=True)
            ax.set_yticks(np.arange(len(targets)) - 0.5, minor=True)
            ax.grid(which="minor", color="#DDDDDD", linewidth=0.5, alpha=1)
            ax.tick_params(length=0, which="both")
            ax.set_title(kind, loc="center")
            ax.set_xlabel("source")
        axes[0, 0].set_ylabel("target")
    return figure


def edit_gallery(
    images: Mapping[str, np.ndarray], labels: Sequence[str], lines: Mapping[str, Sequence[str]]
) -> Figure:
    """Edits in several ways: a row for each scene, a column for each way.

    Args:
        images: images [scenes, height, width, 3] by way.
        labels: a word for each scene.
        lines: what to print under the images of a way, one line a scene.
    """
    with mpl.rc_context(BARE):
        size = ((CELL + 0.06) * len(images) + 0.3, (CELL + 0.2) * len(labels) + 0.45)
        figure, axes = plt.subplots(len(labels), len(images), figsize=size, squeeze=False)
        for column, (way, rows) in zip(axes.T, images.items(), strict=True):
            column[0].set_title(textwrap.fill(way, 17), fontsize=8.5)
            for number, (ax, image) in enumerate(zip(column, rows, strict=True)):
                draw_image(ax, image)
                without_frame(ax)
                if way in lines:
                    ax.set_xlabel(lines[way][number], fontsize=7.5, labelpad=2)
        for ax, label in zip(axes[:, 0], labels, strict=True):
            ax.set_ylabel(label, fontsize=9)
    return figure


def injection_sweep(
    images: Mapping[tuple[float, float], np.ndarray], frame: pd.DataFrame
) -> Figure:
    """How an edit changes with how long attention is the source's, in images and means.

    Args:
        images: an image [height, width, 3] for each pair of progress up to which cross-attention
            and self-attention are injected.
        frame: one row a scene and pair.
    """
    shares = sorted({cross for cross, _ in images})
    grid = (CELL + 0.05) * len(shares)
    with mpl.rc_context(STYLE):
        figure = plt.figure(figsize=(grid + 4.2, max(grid + 0.6, 3.6)))
        left, right = cast(Any, figure.subfigures(1, 2, width_ratios=(grid + 0.5, 3.7)))
        axes = left.subplots(len(shares), len(shares), squeeze=False)
        for line, self_until in zip(axes, shares, strict=True):
            image_row(line, [images[cross, self_until] for cross in shares], f"{self_until:g}")
        for ax, cross in zip(axes[0], shares, strict=True):
            ax.set_title(f"{cross:g}", fontsize=8, loc="center")
        left.suptitle("cross-attention injected up to", fontsize=9)
        left.supylabel("self-attention injected up to", fontsize=9)
        _sweep_means(right, frame)
    return figure


def _sweep_means(figure: Any, frame: pd.DataFrame) -> None:  # noqa: ANN401 (a SubFigure)
    top, bottom = figure.subplots(2, 1, sharex=True)
    _sweep_curves(top, frame, {"psnr_truth": "-"})
    _sweep_curves(bottom, frame, {"edit_accuracy": "-", "preservation": "--"})
    top.set_ylabel("PSNR to the truth (dB)")
    bottom.set(ylabel="share of attributes", ylim=(-0.04, 1.04))
    bottom.set_xlabel("cross-attention injected up to")
    top.legend(title="self-attention injected up to", title_fontsize=8, ncols=3)
    bottom.legend(
        [Line2D([], [], color="black", linestyle=style) for style in ("-", "--")],
        ["edit accuracy", "preservation"],
    )


def _sweep_curves(ax: Axes, frame: pd.DataFrame, styles: Mapping[str, str]) -> None:
    """Means over scenes by the share of cross-attention, a line for each of self-attention."""
    means = frame.groupby(["self_until", "cross_until"])[list(styles)].mean()
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.85, frame["self_until"].nunique()))
    for (self_until, group), shade in zip(means.groupby("self_until"), shades, strict=True):
        for name, style in styles.items():
            values = group.loc[self_until, name]
            ax.plot(values, style, color=shade, marker="o", markersize=3, label=f"{self_until:g}")


def edit_benchmark(
    table: pd.DataFrame, kinds: pd.DataFrame, schedules: Iterable[str] = ()
) -> Figure:
    """Ways to edit by accuracy and background, by PSNR and cost, and by kind of edit.

    Args:
        table: means, from the editing benchmark; what `kinds` lacks is left out.
        kinds: PSNR of each way to edit (rows) and kind (columns).
        schedules: as of `looks.edit_looks`.
    """
    table = table[table["setting"].isin(kinds.index)]
    looks = edit_looks(table, schedules)
    below = 0.8 + 0.26 * len(kinds)
    with mpl.rc_context(STYLE):
        figure = plt.figure(figsize=(9.6, 4.2 + below))
        top, bottom = cast(Any, figure.subfigures(2, 1, height_ratios=(4.2, below)))
        left, right = top.subplots(1, 2)
        _draw_edits(left, table, looks, ("background", "edit_accuracy"))
        left.set(xlabel="background: PSNR to the truth (dB)", ylabel="edit accuracy")
        left.set_title("Is the edit done, and the rest left alone …")
        nfe_axis(right)
        _draw_edits(right, table, looks, ("nfe", "psnr_truth"))
        right.set(ylabel="PSNR to the truth (dB)", title="… how well, at what cost?")
        handles, names = left.get_legend_handles_labels()
        top.legend(handles, names, loc="outside right center", fontsize=7.5)
        _draw_heat(bottom.subplots(), kinds)
    return figure


def _draw_edits(
    ax: Axes, table: pd.DataFrame, looks: Mapping[str, Look], columns: tuple[str, str]
) -> None:
    """A point a way to edit, with its intervals in both directions."""
    for row in table.to_dict("records"):
        each = looks[row["setting"]]
        x, y = (row[name] for name in columns)
        spans = [
            [[row[name] - row[f"{name}_low"]], [row[f"{name}_high"] - row[name]]]
            for name in columns
        ]
        ax.errorbar(
            x, y, spans[1], spans[0], linestyle="", label=each.label, markersize=6,
            elinewidth=0.8, **each.point,
        )  # fmt: skip


def _draw_heat(ax: Axes, kinds: pd.DataFrame) -> None:
    ax.imshow(kinds, cmap="viridis", aspect="auto")
    ax.set_xticks(range(kinds.shape[1]), list(kinds))
    ax.set_yticks(range(len(kinds)), list(kinds.index))
    ax.set_title("PSNR to the truth's VAE round trip (dB) by kind of edit, best mean rank on top")
    ax.grid(False)
    middle = (np.nanmin(kinds) + np.nanmax(kinds)) / 2
    for (row, column), value in np.ndenumerate(kinds.to_numpy()):
        colour = "white" if value < middle else "black"
        ax.text(column, row, f"{value:.1f}", ha="center", va="center", color=colour, fontsize=8)


SWEPT = {
    "psnr_truth": "PSNR to the truth (dB)",
    "edit_accuracy": "edit accuracy",
    "background": "background (dB)",
}


def edit_sweeps(table: pd.DataFrame, schedules: Iterable[str] = ()) -> Figure:
    """Ways to edit over guidance scales, in a column for each number of steps.

    Args:
        table: means, from the editing benchmark.
        schedules: as of `looks.edit_looks`.
    """
    steps, scales = (sorted(table[name].unique()) for name in ("steps", "guidance_scale"))
    looks = edit_looks(table, schedules)
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(
            len(SWEPT), len(steps), figsize=(1.4 + 2.2 * len(steps), 2.2 * len(SWEPT)),
            squeeze=False, sharex=True, sharey="row",
        )  # fmt: skip
        for column, number in zip(axes.T, steps, strict=True):
            part = table[table["steps"] == number].set_index("guidance_scale").sort_index()
            for ax, measure in zip(column, SWEPT, strict=True):
                draw_curves(ax, _curves(part, measure, looks), alpha=0.06)
            column[0].set_title(f"N = {number}")
            column[-1].set_xlabel("guidance scale w")
        axes[-1, 0].set_xticks(scales, [f"{value:g}" for value in scales])
        for ax, label in zip(axes[:, 0], SWEPT.values(), strict=True):
            ax.set_ylabel(label)
        handles = [Line2D([], [], label=each.label, **each.line) for each in looks.values()]
        figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _curves(table: pd.DataFrame, measure: str, looks: Mapping[str, Look]) -> list[Curve]:
    curves = []
    for setting, each in looks.items():
        part = table.loc[
            table["setting"] == setting, [f"{measure}_low", measure, f"{measure}_high"]
        ]
        curves.append((each, part.set_axis(["low", "middle", "high"], axis=1)))
    return [curve for curve in curves if len(curve[1])]
