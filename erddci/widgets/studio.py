"""The editing studio: choose an image, two prompts and a way to edit, and see what comes of it.

A front end's clicks reach Python only while no cell and no callback runs.  So the studio computes
in a thread, on a UNet whose attention nobody else state, and asks before every call of the network
whether it was stopped.
"""

from __future__ import annotations

import base64
import copy
import html
import io
import json
import tempfile
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import numpy as np
import torch
from PIL import Image

from erddci.controls import CONTROLS
from erddci.inversion import METHODS
from erddci.model import StableDiffusion
from erddci.widgets.session import (
    Given,
    Settings,
    Start,
    View,
    as_code,
    begin,
    given_from,
    images_for,
    studio_view,
)

# The controls that read the two shares of the walk.
SHARING = ("refine", "replace", "plug-and-play")

# Five images in a row where there is room for them.
FRAME = "margin:0 6px 6px 0;width:calc(20% - 6px);min-width:104px;max-width:200px"


def editing_studio(model: StableDiffusion) -> widgets.VBox:
    """Edit an example, a photograph or an image of your own, and see it beside its source.

    An image is inverted once for all edits whose inversion is alike.  A run can be stopped; what
    was shown before it stays.
    """
    return Studio(model)


class Stopped(Exception):
    """Ends a run that is no longer wanted."""


class Studio(widgets.VBox):
    """The studio's widgets, and the thread that computes for them."""

    def __init__(self, model: StableDiffusion) -> None:
        # The same weights with attention of their own: cells may use the model meanwhile.
        shared = [*model.unet.parameters(), *model.unet.buffers()]
        self._model = copy.copy(model)
        self._model.unet = copy.deepcopy(model.unet, {id(each): each for each in shared})
        self._model.unet.register_forward_pre_hook(self._before_call)
        self._kept = lru_cache(maxsize=16)(self._invert)
        self._seen = lru_cache(maxsize=32)(self._edit)
        self._lock, self._quiet = threading.Lock(), False
        self._latest = self._running = threading.Event()

        self.controls = _controls(images_for(model))
        self.upload = widgets.FileUpload(accept="image/*", description="your own image")
        self.again = widgets.Button(description="edit", icon="play")
        self.stop = widgets.Button(description="stop", icon="stop", disabled=True)
        self.bar, self.doing = widgets.FloatProgress(max=1), widgets.Label()
        self.shown, self.words, self.code = widgets.HTML(), widgets.HTML(), widgets.Textarea()
        super().__init__(_arranged(self))

        self.controls["image"].observe(self._choose, "value")
        for control in self.controls.values():
            control.observe(self.start, "value")
        self.upload.observe(self._receive, "value")
        self.again.on_click(self.start)
        self.stop.on_click(lambda _: self._latest.set())
        self.start()

    @property
    def settings(self) -> Settings:
        """What the controls say."""
        values: dict[str, Any] = {name: each.value for name, each in self.controls.items()}
        for name, value in values.items():
            if isinstance(value, float):  # sliders add up their steps, to 0.9500000000000001
                values[name] = round(value, 6)
        return Settings(**values)

    def start(self, _: object = None) -> None:
        """Stop what runs, and edit as the controls say."""
        if self._quiet:
            return
        self._latest.set()
        self._latest, settings = threading.Event(), self.settings
        for name in ("cross_until", "self_until"):
            self.controls[name].disabled = settings.control not in SHARING
        self.controls["threshold"].disabled = not settings.blend
        self.code.value = as_code(self._model, settings)
        run = settings, self._latest
        self._thread = threading.Thread(target=self._run, args=run, daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until nothing runs."""
        self._thread.join()

    def _run(self, settings: Settings, stopped: threading.Event) -> None:
        with self._lock:
            if stopped.is_set():
                return
            self._running, self.stop.disabled = stopped, False
            try:
                view = self._seen(settings)
                self.shown.value, self.words.value = _as_html(view), _lines(view.words)
                self._tell("done")
                self.bar.value = 1.0
            except Stopped:
                self._tell("stopped; what you see is the result before")
            except Exception as error:  # an error in a thread would vanish in a log
                self._fail(error)
            self.stop.disabled = True

    def _invert(self, start: Settings) -> Start:
        self._tell("inverting …", start.rows()[0])
        return begin(self._model, start)

    def _edit(self, settings: Settings) -> View:
        start = self._kept(settings.start)
        self._tell("editing …", settings.rows()[1])
        return studio_view(self._model, settings, start)

    def _tell(self, what: str, rows: float = 1.0) -> None:
        """Say what goes on, and start the bar over for so many network rows."""
        self.doing.value, self.bar.value, self._rows = what, 0.0, max(rows, 1.0)

    def _fail(self, error: Exception) -> None:
        self.shown.value, self.words.value = "", _lines(f"{type(error).__name__}: {error}")
        self._tell("this cannot be done")

    def _before_call(self, _: object, given: tuple[torch.Tensor, ...]) -> None:
        if self._running.is_set():
            raise Stopped
        self.bar.value = min(1.0, self.bar.value + len(given[0]) / self._rows)

    def _choose(self, change: dict) -> None:
        """Bring the prompts with the image; the run that follows is one."""
        self._quiet = True
        self.controls["source"].value = change["new"].source
        self.controls["target"].value = change["new"].target
        self._quiet = False

    def _receive(self, change: dict) -> None:
        """Offer an uploaded image among the others, and choose it."""
        if not change["new"]:
            return
        file, image = change["new"][-1], self.controls["image"]
        name = Path(file["name"]).name
        try:
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / name).write_bytes(file["content"])
                found = given_from(self._model, Path(folder) / name, json.dumps(name))
        except Exception as error:
            self._latest.set()
            self._fail(error)
            return
        # With new options the first is chosen, for a moment.
        image.options = (*image.options, (f"yours: {name}", found))
        image.value = found


def _controls(given: dict[str, Given]) -> dict[str, Any]:
    """A control for each field of `Settings`."""
    first = next(iter(given.values()))
    default = Settings(first, first.source, first.target)
    late = {"continuous_update": False}  # compute when a slider is let go, a line entered

    def slider(name: str, label: str, low: float, high: float, step: float) -> widgets.Widget:
        kind = widgets.IntSlider if isinstance(step, int) else widgets.FloatSlider
        known = {"min": low, "max": high, "step": step, "description": label, **late}
        return kind(value=getattr(default, name), **known)

    def choice(name: str, options: object) -> widgets.Widget:
        value = getattr(default, name)
        return widgets.Dropdown(options=options, value=value, description=name)

    found = {
        "image": choice("image", list(given.items())),
        "source": widgets.Text(default.source, description="source prompt", **late),
        "target": widgets.Text(default.target, description="target prompt", **late),
        "method": choice("method", list(METHODS)),
        "control": choice("control", list(CONTROLS)),
        "steps": slider("steps", "steps N", 5, 100, 5),
        "w": slider("w", "guidance w", 0, 15, 0.5),
        "schedule": widgets.Checkbox(default.schedule, description="dynamic control of guidance"),
        "cross_until": slider("cross_until", "cross-attention", 0, 1, 0.05),
        "self_until": slider("self_until", "self-attention", 0, 1, 0.05),
        "blend": widgets.Checkbox(default.blend, description="blend by changed words"),
        "threshold": slider("threshold", "threshold", 0.05, 0.95, 0.05),
        "strength": slider("strength", "strength", 0.05, 1, 0.05),
    }
    for control in found.values():
        control.layout.width, control.style.description_width = "auto", "105px"
    return found


def _arranged(studio: Studio) -> tuple[widgets.Widget, ...]:
    """Image and prompts on top, the rest of the controls beside what they lead to."""
    image, source, target, *others = studio.controls.values()
    image.layout.flex, studio.upload.layout.width = "1 1 auto", "170px"
    studio.again.layout.width = studio.stop.layout.width = "80px"
    studio.bar.layout.width = "160px"
    studio.code.layout = {"width": "auto", "height": "17em"}
    top = widgets.HBox([image, studio.upload])
    run = widgets.HBox([studio.again, studio.stop, studio.bar, studio.doing])
    left = widgets.VBox(others, layout={"width": "330px", "margin": "0 8px 0 0"})
    right = widgets.VBox([run, studio.shown, studio.words], layout={"flex": "1 1 420px"})
    middle = widgets.HBox([left, right], layout={"flex_flow": "row wrap"})
    code = widgets.Accordion([studio.code], titles=("copy as code",))
    return top, source, target, middle, code


def _lines(text: str) -> str:
    style = "line-height:1.5;white-space:pre-line"
    return f'<div style="{style}">{html.escape(text)}</div>'


def _as_html(view: View) -> str:
    """Images in one row, attention maps in the next; matplotlib is not safe in threads."""
    return _row(view.images) + _row(view.maps)


def _row(images: dict[str, np.ndarray]) -> str:
    frames = []
    for title, image in images.items():
        buffer, title = io.BytesIO(), html.escape(title)
        Image.fromarray(np.round(image * 255).astype(np.uint8)).save(buffer, "png")
        code = base64.b64encode(buffer.getvalue()).decode()
        frames.append(
            f'<figure style="{FRAME}">'
            f'<img alt="{title}" style="width:100%" src="data:image/png;base64,{code}">'
            f'<figcaption style="line-height:1.3">{title}</figcaption></figure>'
        )
    return f'<div style="display:flex;flex-wrap:wrap">{"".join(frames)}</div>'
