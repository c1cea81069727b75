"""Images and text as HTML, for widgets to show."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

# Five images fit beside each other where there is room for them.
FRAME = "margin:0 6px 6px 0;width:calc(20% - 6px);min-width:104px;max-width:200px"


def text_html(text: str) -> str:
    """A text, line by line."""
    style = "line-height:1.5;white-space:pre-line"
    return f'<div style="{style}">{html.escape(text)}</div>'


def figure_html(figure: Figure, alt: str) -> str:
    """A figure of pyplot, which is closed; not for threads, as pyplot is not safe in them."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    plt.close(figure)
    return _image_tag(buffer, alt)


def gallery_html(images: Mapping[str, np.ndarray]) -> str:
    """Images [height, width, 3] of floats in [0, 1] beside each other, each above its title."""
    figures = []
    for title, image in images.items():
        buffer = io.BytesIO()
        Image.fromarray(np.round(image * 255).astype(np.uint8)).save(buffer, "png")
        figures.append(
            f'<figure style="{FRAME}">{_image_tag(buffer, title, "width:100%")}'
            f'<figcaption style="line-height:1.3">{html.escape(title)}</figcaption></figure>'
        )
    return f'<div style="display:flex;flex-wrap:wrap">{"".join(figures)}</div>'


def _image_tag(png: io.BytesIO, alt: str, style: str = "max-width:100%") -> str:
    code = base64.b64encode(png.getvalue()).decode()
    return f'<img alt="{html.escape(alt)}" style="{style}" src="data:image/png;base64,{code}">'
