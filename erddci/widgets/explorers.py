"""Interactive views: controls around plain functions that draw, which can be tested on their own.

A view keeps what it computed, and shows an error as text where its words stand.
"""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from erddci import plots
from erddci.experiments import noise_trajectories
from erddci.images import ImageInput
from erddci.inversion import METHODS, climbs_guided, invert, reconstruct
from erddci.metrics import psnr
from erddci.model import StableDiffusion
from erddci.scenes.examples import Example, examples, photographs
from erddci.trajectory import Trajectory

if TYPE_CHECKING:
    import plotly.graph_objects as go


def reconstruction_explorer(model: StableDiffusion) -> widgets.VBox:
    """Choose an image, its prompt, a method, N and w, and see what comes back.

    An image is inverted once per prompt, method and N, at w = 1, so that moving w costs no more
    than the way back; a method that climbs under the w of the way back is inverted for each.
    """
    images = {f"scene {n}": (each.image, each.source) for n, each in enumerate(examples(), 1)}
    images |= {f"photograph: {name}": (image, "") for name, image in photographs().items()}
    image = widgets.Dropdown(options=list(images), description="image")
    words = images[str(image.value)][1]
    prompt = widgets.Text(words, description="prompt", continuous_update=False)
    prompt.layout.width = "75%"
    image.observe(lambda change: setattr(prompt, "value", images[change.new][1]), "value")
    method = widgets.Dropdown(options=list(METHODS), value="dual-chain", description="method")

    @lru_cache(maxsize=16)
    def walk(name: str, words: str, method: str, steps: int, w: float) -> Trajectory:
        x, condition = model.encode(images[name][0]), model.condition(words, guidance_scale=w)
        return invert(model, x, condition, method, steps)

    def view(image: str, prompt: str, method: str, steps: int, w: float) -> tuple[str, str]:
        path = walk(image, prompt, method, steps, w if climbs_guided(method) else 1)
        figure, words = reconstruction_view(model, images[image][0], path, w)
        return _as_html(figure, words), words

    controls = {"image": image, "prompt": prompt, "method": method, **_sliders()}
    return _explorer(view, controls, widgets.HTML(), "value")


def reconstruction_view(
    model: StableDiffusion, image: ImageInput, path: Trajectory, guidance_scale: float
) -> tuple[Figure, str]:
    """Walk an image's path back at a guidance scale: four images, and the numbers in words."""
    back = reconstruct(model, path, path.condition.with_guidance(guidance_scale))
    error, image = path.latent_error(back)[0].max(), model.to_array(image)
    round_trip, result = model.decode(torch.cat([path.x0, back.x0]))
    difference = np.abs(result - round_trip) * 10
    titles = ("input image", "VAE round trip", f"w = {guidance_scale:g}", "difference × 10")
    shown = (image, round_trip, result, difference.clip(0, 1))
    words = (
        f"PSNR of the way back: {psnr(round_trip, result):.1f} dB to the VAE round trip, "
        f"{psnr(image, result):.1f} dB to the input image (VAE floor: "
        f"{psnr(image, round_trip):.1f} dB). Largest latent error: {error:.1e}. "
        f"Network rows: {path.nfe:g} to noise, {back.nfe:g} back."
    )
    return plots.image_grid({path.method: shown}, titles), words.replace("inf dB", "∞ dB")


def trajectory_explorer(model: StableDiffusion, example: Example | None = None) -> widgets.VBox:
    """Turn Figure 3 in three dimensions, at any N and w; the first example by default."""
    example = example or examples()[0]

    def view(steps: int, w: float) -> tuple[tuple[dict, ...], str]:
        figure, words = trajectory_view(model, example, steps, w)
        data = {"application/vnd.plotly.v1+json": json.loads(figure.to_json() or "")}
        return ({"output_type": "display_data", "data": data, "metadata": {}},), words

    return _explorer(view, _sliders(), widgets.Output(), "outputs")


def trajectory_view(
    model: StableDiffusion, example: Example, steps: int, guidance_scale: float
) -> tuple[go.Figure, str]:
    """Draw the noise of an example along three walks, and say how much of it can be seen."""
    x, condition = model.encode(example.image), model.condition(example.source)
    frame = noise_trajectories(model, x, condition, guidance_scale, steps)
    share = sum(frame.attrs["explained"])
    words = f"Three components hold {share:.0%} of the variance; dark is noise, light the image."
    return plots.noise_trajectories_3d(frame), words


def _sliders() -> dict[str, widgets.ValueWidget]:
    steps = widgets.IntSlider(value=20, min=5, max=100, step=5, description="steps N")
    w = widgets.FloatSlider(value=1, min=0, max=10, step=0.5, description="w")
    steps.continuous_update = w.continuous_update = False  # draw when the slider is let go
    return {"steps": steps, "w": w}


def _explorer(
    view: Callable[..., tuple[object, str]],
    controls: Mapping[str, widgets.ValueWidget],
    panel: widgets.Widget,
    trait: str,
) -> widgets.VBox:
    """Controls, the panel whose trait shows what `view` makes of their values, and its words.

    What was seen before is shown again without being computed again.
    """
    view, words = lru_cache(maxsize=32)(view), widgets.HTML()

    def update(_: object = None) -> None:
        words.value = "computing …"
        try:
            shown, text = view(**{name: control.value for name, control in controls.items()})
        except Exception as error:  # an error in a callback would vanish in a log
            shown, text = type(getattr(panel, trait))(), f"{type(error).__name__}: {error}"
        setattr(panel, trait, shown)
        words.value = html.escape(text)

    for control in controls.values():
        control.observe(update, "value")
    update()
    return widgets.VBox([*controls.values(), panel, words])


def _as_html(figure: Figure, alt: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    plt.close(figure)
    code = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{code}">'
