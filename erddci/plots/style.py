"""What figures of several topics share: colours, style, rows of images, and how to show them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import PIL.Image
from IPython.display import Image, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

# Okabe and Ito's colours, which most colour-blind readers can tell apart.
COLOURS = {
    "ddim": "#D55E00",
    "dual-chain": "#0072B2",
    "original": "#999999",
    "floor": "#000000",
    "third": "#009E73",
    "fourth": "#CC79A7",
}
SCALES = ("#56B4E9", "#E69F00", "#D55E00", "#CC79A7", "#000000")
# 64 levels a colour look like 256, and make the PNG of an image half as large.
LEVELS = [round(round(value * 63 / 255) * 255 / 63) for value in range(256)]
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.constrained_layout.use": True,
    "savefig.bbox": "tight",
    "pdf.fonttype": 42,
}


def show(figure: Figure, alt: str) -> None:
    """Display a figure in a notebook as one small PNG with alternative text, and close it."""
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=85)
    plt.close(figure)
    PIL.Image.open(drawn).convert("RGB").point(3 * LEVELS).save(small, "png", optimize=True)
    display(Image(small.getvalue(), format="png", alt=alt))


def rows_axis(ax: Axes) -> None:
    """Show network rows on the horizontal axis, logarithmic, with plain numbers."""
    ax.set(xscale="log", xlabel="network rows, both ways")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_locator(NullLocator())


def image_grid(rows: Mapping[str, Sequence[np.ndarray]], titles: Sequence[str] = ()) -> Figure:
    """Rows of images [H, W, 3] with a label for each row and a title for each column."""
    wide = max(map(len, rows.values()))
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(
            len(rows), wide, figsize=(1.25 * wide + 0.6, 1.25 * len(rows) + 0.3), squeeze=False
        )
        for line, (label, images) in zip(axes, rows.items(), strict=True):
            image_row(line, images, label)
        for ax, title in zip(axes[0], titles, strict=False):
            ax.set_title(title, fontsize=8, loc="center")
    return figure


def image_row(axes: Sequence[Axes], images: Sequence[np.ndarray], label: str) -> None:
    for ax in axes:
        ax.axis("off")
    for ax, image in zip(axes, images, strict=False):
        ax.imshow(image, interpolation="lanczos")
    axes[0].text(
        -0.06, 0.5, label, transform=axes[0].transAxes, rotation=90, ha="right", va="center"
    )
