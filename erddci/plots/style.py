"""What figures of several topics share: style, rows of images, and how figures are shown."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import PIL.Image
from IPython.display import Image, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's colours, which most colour-blind readers can tell apart.
SERIES = ("#D55E00", "#0072B2", "#999999", "#000000", "#009E73", "#CC79A7")
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
NO_GRID: dict[Any, Any] = STYLE | {"axes.grid": False}
BARE: dict[Any, Any] = NO_GRID | {"axes.titlelocation": "center"}

CELL = 1.3  # inches that an image takes
SCREEN_DPI, MOST_DPI = 85, 240

PIXELS = 2.0  # of the screen for each pixel of an image
# A figure of many images gets fewer in a notebook, which should stay under a megabyte.
LARGEST_PNG, FEWER_PIXELS = 60_000, 1.0


def show(figure: Figure, alt: str) -> None:
    """Display a figure in a notebook as one small PNG with alternative text, and close it."""
    drawn = png(figure)
    if len(drawn) > LARGEST_PNG:
        drawn = png(figure, pixels=FEWER_PIXELS)
    plt.close(figure)
    display(Image(drawn, format="png", alt=alt))


def png(figure: Figure, dpi: float = SCREEN_DPI, pixels: float = PIXELS) -> bytes:
    """A figure as a small PNG, at a resolution that gives each image so many pixels a pixel."""
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=image_dpi(figure, dpi, pixels))
    PIL.Image.open(drawn).convert("RGB").point(3 * LEVELS).save(small, "png", optimize=True)
    return small.getvalue()


def image_dpi(figure: Figure, least: float = SCREEN_DPI, pixels: float = PIXELS) -> float:
    """The resolution at which every image gets so many pixels a pixel, within bounds.

    The upper bound is for photographs, which have pixels to spare.
    """
    figure.draw_without_rendering()  # places the axes
    wanted = [
        pixels * image.get_size()[1] * figure.dpi / ax.get_window_extent().width
        for ax in figure.findobj(Axes)
        for image in ax.images
    ]
    return max(least, min(MOST_DPI, max(wanted, default=least)))


def image_grid(rows: Mapping[str, Sequence[np.ndarray]], titles: Sequence[str] = ()) -> Figure:
    """Rows of images [H, W, 3] with a label for each row and a title for each column."""
    wide = max(map(len, rows.values()))
    with mpl.rc_context(STYLE):
        size = (CELL * wide + 0.4, CELL * len(rows) + 0.25)
        figure, axes = plt.subplots(len(rows), wide, figsize=size, squeeze=False)
        for line, (label, images) in zip(axes, rows.items(), strict=True):
            image_row(line, images, label)
        for ax, title in zip(axes[0], titles, strict=False):
            ax.set_title(title, fontsize=8, loc="center")
    return figure


def image_row(axes: Sequence[Axes], images: Sequence[np.ndarray], label: str) -> None:
    """Draw images in the first of some axes, and a label before them."""
    for ax in axes:
        ax.axis("off")
    for ax, image in zip(axes, images, strict=False):
        draw_image(ax, image)
    axes[0].text(
        -0.06, 0.5, label, transform=axes[0].transAxes, rotation=90, ha="right", va="center"
    )


def draw_image(ax: Axes, image: np.ndarray) -> None:
    """Draw an image [H, W, 3] pixel by pixel, or smoothed where it has more pixels than shown."""
    fits = image.shape[1] <= 0.5 * MOST_DPI * CELL
    ax.imshow(image, interpolation="none" if fits else "lanczos")


def without_frame(ax: Axes) -> None:
    """Leave of some axes only what is in them, their title and their labels."""
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def rows_for(count: int, wide: int) -> int:
    """How many rows of some width a number of images fills."""
    return math.ceil(count / wide)
