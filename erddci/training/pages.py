"""Pages of images to judge a model by eye."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

ZOOM = 2  # screen pixels a model pixel
SIDE = 128 * ZOOM  # of an image on a page
LINE, GAP = 14, 6  # pixels of a line of a title, and between images

Titled = tuple[str, np.ndarray]


def page(rows: Sequence[Sequence[Titled]], path: Path) -> None:
    """Write rows of titled images [H, W, 3] in [0, 1] or uint8, or maps [H, W], as one image."""
    wrapped = [[_wrapped(title) for title, _ in row] for row in rows]
    above = [LINE * max(map(len, titles)) + 4 for titles in wrapped]
    width = max(map(len, rows)) * (SIDE + GAP) + GAP
    sheet = Image.new("RGB", (width, sum(above) + len(rows) * (SIDE + GAP)), "white")
    draw, font, top = ImageDraw.Draw(sheet), ImageFont.load_default(12), 0
    for row, titles, height in zip(rows, wrapped, above, strict=True):
        for column, ((_, image), lines) in enumerate(zip(row, titles, strict=True)):
            left = GAP + column * (SIDE + GAP)
            draw.multiline_text((left, top + 2), "\n".join(lines), "black", font, spacing=2)
            sheet.paste(_enlarged(image), (left, top + height))
        top += height + SIDE + GAP
    sheet.save(path)


def _enlarged(image: np.ndarray) -> Image.Image:
    if image.ndim == 2:  # a map, from nothing to its highest
        image = np.repeat((image / max(image.max(), 1e-9))[..., None], 3, axis=2)
    if image.dtype != np.uint8:
        image = np.round(255 * image).astype(np.uint8)
    return Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.NEAREST)


def _wrapped(title: str, width: int = 38) -> list[str]:
    lines = [""]
    for word in title.split():
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
