"""Explorers: controls around plain functions that draw, which can be tested on their own.

An explorer keeps what it computed, and shows an error as text in place of its words.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

import ipywidgets as widgets
import numpy as np
import torch
from matplotlib.figure import Figure

from erddci import plots
from erddci.editing import EditConfig
from erddci.experiments.trajectories import noise_trajectories
from erddci.images import ImageInput
from erddci.inversion import METHODS, reconstruct
from erddci.model import StableDiffusion
from erddci.scenes.examples import Example, examples
from erddci.trajectory import Trajectory
from erddci.widgets.html import figure_html, text_html
from erddci.widgets.session import decibels, example_inputs

if TYPE_CHECKING:
    import plotly.graph_objects as go


def reconstruction_explorer(model: StableDiffusion) -> widgets.VBox:
    """Choose an image, its prompt, a method, N and w, and see the reconstruction.

    An image is inverted once for all w, or once for each w if the method is inverted at w.
    """
    inputs = example_inputs(model)
    image = widgets.Dropdown(options=list(inputs), description="image")
    prompt = widgets.Text(description="prompt", continuous_update=False)
    prompt.layout.width = "75%"
    method = widgets.Dropdown(options=list(METHODS), value="dual-chain", description="method")

    def choose_prompt(_: object = None) -> None:
        prompt.value = inputs[str(image.value)].source

    @lru_cache(maxsize=16)
    def invert(image: str, prompt: str, inversion: EditConfig) -> Trajectory:
        return inversion.invert(model, model.encode(inputs[image].image), [prompt])

    def view(image: str, prompt: str, method: str, steps: int, w: float) -> tuple[str, str]:
        config = EditConfig(method=method, guidance_scale=w, schedule=None, steps=steps)
        path = invert(image, prompt, config.inversion)
        figure, words = reconstruction_view(model, inputs[image].image, path, w)
        return figure_html(figure, words), words

    choose_prompt()
    image.observe(choose_prompt, "value")
    controls = {"image": image, "prompt": prompt, "method": method, **_sliders()}
    return _explorer(view, controls, widgets.HTML(), "value")


def reconstruction_view(
    model: StableDiffusion, image: ImageInput, path: Trajectory, guidance_scale: float
) -> tuple[Figure, str]:
    """Reconstruct an inverted image at a guidance scale: four images, and the numbers in words."""
    reconstruction = reconstruct(model, path, path.condition.with_guidance(guidance_scale))
    error = path.latent_error(reconstruction)[0].max()
    image = model.to_array(image)
    round_trip, result = model.decode(torch.cat([path.x0, reconstruction.x0]))
    difference = (10 * np.abs(result - round_trip)).clip(0, 1)
    titles = ("input image", "VAE round trip", f"w = {guidance_scale:g}", "difference × 10")
    words = (
        f"Reconstruction: {decibels(round_trip, result)} to the VAE round trip, "
        f"{decibels(image, result)} to the input image "
        f"(VAE floor: {decibels(image, round_trip)}). Largest latent error: {error:.1e}. "
        f"NFE: {path.nfe:g} for the inversion, {reconstruction.nfe:g} for the reconstruction."
    )
    return plots.image_grid({path.method: (image, round_trip, result, difference)}, titles), words


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
    """Draw the noise of an example along three trajectories, and say how much of it is shown."""
    x, condition = model.encode(example.image), model.condition(example.source)
    frame = noise_trajectories(model, x, condition, guidance_scale, steps)
    explained = sum(frame.attrs["explained"])
    words = (
        f"The three components explain {explained:.0%} of the variance; "
        "dark is near the noise, light near the image."
    )
    return plots.noise_trajectories_3d(frame), words


def _sliders() -> dict[str, widgets.ValueWidget]:
    steps = widgets.IntSlider(value=20, min=5, max=100, step=5, description="steps N")
    w = widgets.FloatSlider(value=1, min=0, max=10, step=0.5, description="guidance w")
    for slider in (steps, w):
        slider.continuous_update = False  # draw when the slider is let go
    return {"steps": steps, "w": w}


def _explorer(
    view: Callable[..., tuple[object, str]],
    controls: Mapping[str, widgets.ValueWidget],
    panel: widgets.Widget,
    trait: str,
) -> widgets.VBox:
    """Controls, a panel whose trait shows what `view` makes of their values, and its words.

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
        words.value = text_html(text)

    for control in controls.values():
        control.observe(update, "value")
    update()
    return widgets.VBox([*controls.values(), panel, words])
