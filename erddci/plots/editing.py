"""Figures of editing: what attention looks at, edits side by side, and how ways to edit fare."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any, cast

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from erddci.plots.style import COLOURS, STYLE, image_row, rows_axis


def attention_maps(
    images: Mapping[str, np.ndarray], maps: Mapping[str, Sequence[tuple[str, np.ndarray]]]
) -> Figure:
    """Where words look: a row for each image, which is dimmed where a word looks less.

    Args:
        images: images [height, width, 3] by label.
        maps: for each label words and their maps, from `experiments.word_maps`.  Each map is
            scaled to its own maximum.
    """
    wide = 1 + max(map(len, maps.values()))
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(
            len(images), wide, figsize=(0.95 * wide + 0.3, 1.2 * len(images)), squeeze=False
        )
        for line, (label, image) in zip(axes, images.items(), strict=True):
            image_row(line, [image], label)
            for ax, (word, looks) in zip(line[1:], maps[label], strict=False):
                _lit(ax, image, looks)
                ax.set_title(word, fontsize=8, loc="center")
    return figure


def _lit(ax: Axes, image: np.ndarray, looks: np.ndarray) -> None:
    """A grey image with a map over it."""
    height, width = image.shape[:2]
    frame = (0, width, height, 0)
    grey = 0.6 * image.mean(2)
    ax.imshow(grey, cmap="gray", vmin=0, vmax=1, extent=frame, interpolation="lanczos")
    share = looks / max(looks.max(), 1e-12)
    ax.imshow(share, cmap="inferno", alpha=0.75 * share, extent=frame, interpolation="bilinear")


def alignment(
    answers: Mapping[str, np.ndarray], targets: Sequence[str], sources: Sequence[str]
) -> Figure:
    """Which words of a target prompt (rows) take attention from which of the source (columns).

    Args:
        answers: shares [targets, sources] by the kind of alignment.
    """
    plain: dict[Any, Any] = {"axes.grid": False}
    with mpl.rc_context(STYLE | plain):
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
    """Edits by several ways: a row for each scene, a column for each way.

    Args:
        images: images [scenes, height, width, 3] by way, from `experiments.edit_gallery`.
        labels: a word for each scene.
        lines: what to print under the images of a way, one line a scene.
    """
    plain: dict[Any, Any] = {"axes.grid": False}
    with mpl.rc_context(STYLE | plain):
        size = (1.22 * len(images) + 0.3, 1.36 * len(labels) + 0.45)
        figure, axes = plt.subplots(len(labels), len(images), figsize=size, squeeze=False)
        for column, (way, rows) in zip(axes.T, images.items(), strict=True):
            column[0].set_title(textwrap.fill(way, 17), fontsize=8.5, loc="center")
            for number, (ax, image) in enumerate(zip(column, rows, strict=True)):
                ax.imshow(image, interpolation="lanczos")
                ax.set(xticks=[], yticks=[])
                ax.spines[:].set_visible(False)
                if way in lines:
                    ax.set_xlabel(lines[way][number], fontsize=7.5, labelpad=2)
        for ax, label in zip(axes[:, 0], labels, strict=True):
            ax.set_ylabel(label, fontsize=9)
    return figure


def injection_sweep(
    images: Mapping[tuple[float, float], np.ndarray], frame: pd.DataFrame
) -> Figure:
    """How an edit changes with the share of attention that is the source's, in images and means.

    Args:
        images: an image [height, width, 3] for each pair of shares of cross-attention and
            self-attention.
        frame: from `experiments.injection_sweep`.
    """
    shares = sorted({cross for cross, _ in images})
    with mpl.rc_context(STYLE):
        figure = plt.figure(figsize=(8.2, 3.9))
        left, right = cast(Any, figure.subfigures(1, 2, width_ratios=(1.15, 1)))
        axes = left.subplots(len(shares), len(shares), squeeze=False)
        for line, self_until in zip(axes, shares, strict=True):
            image_row(line, [images[cross, self_until] for cross in shares], f"{self_until:g}")
        for ax, cross in zip(axes[0], shares, strict=True):
            ax.set_title(f"{cross:g}", fontsize=8, loc="center")
        left.suptitle("share of the walk with the source's cross-attention", fontsize=9)
        left.supylabel("… with its self-attention", fontsize=9)
        top, bottom = right.subplots(2, 1, sharex=True)
        _sweep_curves(top, frame, {"psnr_truth": "-"})
        _sweep_curves(bottom, frame, {"edit_accuracy": "-", "preservation": "--"})
        top.set_ylabel("PSNR to the truth (dB)")
        bottom.set(
            ylabel="share read as true", xlabel="share of cross-attention", ylim=(-0.04, 1.04)
        )
        top.legend(title="share of self-attention", title_fontsize=8, ncols=3)
        bottom.legend(
            [Line2D([], [], color="black", linestyle=style) for style in ("-", "--")],
            ["what was asked", "all else"],
        )
    return figure


def _sweep_curves(ax: Axes, frame: pd.DataFrame, styles: Mapping[str, str]) -> None:
    """Means over scenes by the share of cross-attention, a line for each of self-attention."""
    means = frame.groupby(["self_until", "cross_until"])[list(styles)].mean()
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.85, frame["self_until"].nunique()))
    for (self_until, group), shade in zip(means.groupby("self_until"), shades, strict=True):
        for name, style in styles.items():
            values = group.loc[self_until, name]
            ax.plot(values, style, color=shade, marker="o", markersize=3, label=f"{self_until:g}")


def edit_benchmark(table: pd.DataFrame, kinds: pd.DataFrame) -> Figure:
    """Ways to edit by what they did and kept, by PSNR and cost, and by kind of edit.

    Args:
        table: from `edit_benchmark.summary`; the ceiling is left out.
        kinds: PSNR of each way (rows) and kind (columns), from `edit_benchmark.by_kind`.
    """
    table = table[table["setting"].isin(kinds.index)]
    with mpl.rc_context(STYLE):
        figure = plt.figure(figsize=(9.6, 4.2 + 0.26 * len(kinds)))
        parts: Any = figure.subfigures(2, 1, height_ratios=(4.2, 0.8 + 0.26 * len(kinds)))
        left, right = parts[0].subplots(1, 2)
        _ways(left, table, "background", "edit_accuracy")
        left.set(xlabel="background: PSNR to the truth's VAE round trip (dB)")
        left.set(ylabel="share of asked attributes found", title="Did it do what was asked …")
        _ways(right, table, "nfe", "psnr_truth")
        rows_axis(right)
        right.set(
            ylabel="PSNR to the truth's VAE round trip (dB)", title="… how well, at what cost?"
        )
        handles, names = left.get_legend_handles_labels()
        parts[0].legend(handles, names, loc="outside right center", fontsize=7.5)
        _heat(parts[1].subplots(), kinds)
    return figure


MARKERS = "osD^v<>PpXd*h8H"


def _ways(ax: Axes, table: pd.DataFrame, across: str, up: str) -> None:
    for (n, row), marker in zip(enumerate(table.to_dict("records")), cycle(MARKERS), strict=False):
        ours = row["setting"].startswith("dual-chain")
        colour = COLOURS["dual-chain"] if ours else mpl.colormaps["tab20c"](4 + n % 16)
        spans = [
            [[row[name] - row[f"{name}_low"]], [row[f"{name}_high"] - row[name]]]
            for name in (across, up)
        ]
        ax.errorbar(
            row[across], row[up], spans[1], spans[0], fmt=marker, color=colour,
            label=row["setting"], markersize=6, elinewidth=0.8,
            markeredgecolor="black", markeredgewidth=0.4,
        )  # fmt: skip


def _heat(ax: Axes, kinds: pd.DataFrame) -> None:
    ax.imshow(kinds, cmap="viridis", aspect="auto")
    ax.set_xticks(range(kinds.shape[1]), list(kinds))
    ax.set_yticks(range(len(kinds)), list(kinds.index))
    ax.set_title("PSNR to the truth's VAE round trip (dB) by kind of edit, best mean rank on top")
    ax.grid(False)
    middle = (np.nanmin(kinds) + np.nanmax(kinds)) / 2
    for (row, column), value in np.ndenumerate(kinds.to_numpy()):
        colour = "white" if value < middle else "black"
        ax.text(column, row, f"{value:.1f}", ha="center", va="center", color=colour, fontsize=8)


def edit_sweeps(table: pd.DataFrame) -> Figure:
    """How ways to edit fare over guidance scales, in a column for each number of steps.

    Args:
        table: from `edit_benchmark.summary`.
    """
    rows = {
        "psnr_truth": "PSNR to the truth (dB)",
        "edit_accuracy": "edit_accuracy",
        "background": "background (dB)",
    }
    columns, scales = (sorted(table[name].unique()) for name in ("steps", "guidance_scale"))
    # Ours in blue and green; the order of names is that of the colours.
    hues = [COLOURS[name] for name in ("fourth", "ddim", "floor", "original", "third")]
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(
            len(rows), len(columns), figsize=(1.4 + 2.2 * len(columns), 2.1 * len(rows)),
            squeeze=False, sharex=True, sharey="row",
        )  # fmt: skip
        for column, steps in enumerate(columns):
            part = table[table["steps"] == steps].sort_values(["setting", "guidance_scale"])
            for (way, group), colour in zip(
                part.groupby("setting"), [*hues, COLOURS["dual-chain"]], strict=False
            ):
                x = group["guidance_scale"]
                for ax, name in zip(axes[:, column], rows, strict=True):
                    ax.plot(x, group[name], "o-", color=colour, label=way, markersize=4)
                    low, high = group[f"{name}_low"], group[f"{name}_high"]
                    ax.fill_between(x, low, high, color=colour, alpha=0.12)
            axes[-1, column].set_xlabel("guidance scale w")
            axes[0, column].set_title(f"N = {steps}")
        axes[-1, 0].set_xticks(scales, [f"{value:g}" for value in scales])
        for ax, said in zip(axes[:, 0], rows.values(), strict=True):
            ax.set_ylabel(said)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure
