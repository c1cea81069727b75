"""The editing studio: choose an image, two prompts and how to edit, and see the edit.

A front end's clicks reach Python only while no cell and no callback runs.  So the studio computes
in a thread, with a UNet whose attention is its own, and checks before every function evaluation
whether it was stopped.
"""

from __future__ import annotations

import copy
import json
import tempfile
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

import ipywidgets as widgets
from torch import Tensor

from erddci.controls import CONTROLS, INJECTING
from erddci.editing import SDEDIT, EditConfig
from erddci.guidance import DEFAULT_SCHEDULE, GuidanceSchedule
from erddci.inversion import METHODS
from erddci.model import StableDiffusion
from erddci.widgets.code import as_code
from erddci.widgets.html import gallery_html, text_html
from erddci.widgets.session import (
    EditInput,
    EditView,
    InvertedImage,
    StudioSettings,
    edit_view,
    example_inputs,
    invert_image,
    read_input,
)

# Where the controls begin: with attention control there are attention maps to see.
DEFAULTS = EditConfig(control="refine", steps=20)

SCHEDULES: dict[str, GuidanceSchedule | None] = {"dynamic": DEFAULT_SCHEDULE, "constant": None}


def editing_studio(model: StableDiffusion) -> widgets.VBox:
    """Edit an example, a photograph or an image of your own, and see it beside its source.

    An image is inverted once for all edits that share the inversion.  A run can be stopped; the
    last result stays.
    """
    return Studio(model)


class Stopped(Exception):
    """Ends a run that is no longer wanted."""


class Studio(widgets.VBox):
    """The studio's widgets, and the thread that computes for them."""

    def __init__(self, model: StableDiffusion) -> None:
        self._model = _with_own_attention(model)
        self._model.unet.register_forward_pre_hook(self._before_call)
        self._inverted = lru_cache(maxsize=16)(self._invert)
        self._views = lru_cache(maxsize=32)(self._edit)
        self._lock = threading.Lock()
        self._choosing_image = False
        # What stops a run: the one started last, and the one that computes.
        self._latest = threading.Event()
        self._running = self._latest

        self.controls = _controls(example_inputs(model))
        self.upload = widgets.FileUpload(accept="image/*", description="your own image")
        self.run_button = widgets.Button(description="edit", icon="play")
        self.stop_button = widgets.Button(description="stop", icon="stop", disabled=True)
        self.progress, self.status = widgets.FloatProgress(max=1), widgets.Label()
        self.gallery, self.message = widgets.HTML(), widgets.HTML()
        self.code = widgets.Textarea()
        super().__init__(_arranged(self))

        self.controls["image"].observe(self._choose_image, "value")
        for control in self.controls.values():
            control.observe(self.start, "value")
        self.upload.observe(self._receive, "value")
        self.run_button.on_click(self.start)
        self.stop_button.on_click(self.stop)
        self.start()

    @property
    def settings(self) -> StudioSettings:
        """What the controls say."""
        values: dict[str, Any] = {name: each.value for name, each in self.controls.items()}
        for name, value in values.items():
            if isinstance(value, float):  # sliders add up their steps, to 0.9500000000000001
                values[name] = round(value, 6)
        image, source, target = (values.pop(name) for name in ("image", "source", "target"))
        values["schedule"] = SCHEDULES[values["schedule"]]
        return StudioSettings(image, source, target, EditConfig(**values))

    def start(self, _: object = None) -> None:
        """Stop what runs, and edit as the controls say."""
        if self._choosing_image:
            return
        self.stop()
        self._latest, settings = threading.Event(), self.settings
        for name in ("cross_until", "self_until"):
            self.controls[name].disabled = settings.config.control not in INJECTING
        self.controls["threshold"].disabled = not settings.config.blend
        self.code.value = as_code(self._model, settings)
        run = (settings, self._latest)
        self._thread = threading.Thread(target=self._run, args=run, daemon=True)
        self._thread.start()

    def stop(self, _: object = None) -> None:
        """Stop what runs before its next function evaluation."""
        self._latest.set()

    def wait(self) -> None:
        """Wait until nothing runs."""
        self._thread.join()

    def _run(self, settings: StudioSettings, stopped: threading.Event) -> None:
        with self._lock:
            if stopped.is_set():
                return
            self._running, self.stop_button.disabled = stopped, False
            try:
                self._show(self._views(settings))
            except Stopped:
                self._report("stopped; what you see is the last result")
            except Exception as error:  # an error in a thread would vanish in a log
                self._fail(error)
            self.stop_button.disabled = True

    def _invert(self, settings: StudioSettings) -> InvertedImage:
        self._report("inverting …", settings.config.max_nfe()[0])
        return invert_image(self._model, settings)

    def _edit(self, settings: StudioSettings) -> EditView:
        inverted = self._inverted(settings.inversion)
        self._report("editing …", settings.config.max_nfe()[1])
        return edit_view(self._model, settings, inverted)

    def _show(self, view: EditView) -> None:
        self.gallery.value = gallery_html(view.images) + gallery_html(view.maps)
        self.message.value = text_html(view.summary)
        self._report("done")
        self.progress.value = 1.0

    def _fail(self, error: Exception) -> None:
        self.gallery.value = ""
        self.message.value = text_html(f"{type(error).__name__}: {error}")
        self._report("failed")

    def _report(self, status: str, max_nfe: float = 1.0) -> None:
        """Show a status, and reset the progress bar for at most so many evaluations."""
        self.status.value, self.progress.value = status, 0.0
        self._max_nfe = max(max_nfe, 1.0)

    def _before_call(self, _: object, inputs: tuple[Tensor, ...]) -> None:
        if self._running.is_set():
            raise Stopped
        done = self.progress.value + len(inputs[0]) / self._max_nfe
        self.progress.value = min(1.0, done)

    def _choose_image(self, change: dict) -> None:
        """Take over the image's prompts, in one run with it."""
        self._choosing_image = True
        self.controls["source"].value = change["new"].source
        self.controls["target"].value = change["new"].target
        self._choosing_image = False

    def _receive(self, change: dict) -> None:
        """Offer an uploaded image among the others, and choose it."""
        if not change["new"]:
            return
        file, image = change["new"][-1], self.controls["image"]
        name = Path(file["name"]).name
        try:
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / name).write_bytes(file["content"])
                uploaded = read_input(self._model, Path(folder) / name, json.dumps(name))
        except Exception as error:
            self.stop()
            with self._lock:  # else the run that ends would write over the message
                self._fail(error)
            return
        # With new options the first is chosen, for a moment.
        image.options = (*image.options, (f"yours: {name}", uploaded))
        image.value = uploaded


def _with_own_attention(model: StableDiffusion) -> StableDiffusion:
    """The same model and weights, with attention that can be controlled while cells use theirs."""
    model = copy.copy(model)
    weights = [*model.unet.parameters(), *model.unet.buffers()]
    # What the memo holds counts as copied, so all modules are copied and no weights.
    model.unet = copy.deepcopy(model.unet, memo={id(each): each for each in weights})
    return model


def _controls(inputs: dict[str, EditInput]) -> dict[str, Any]:
    """A control for the image, for each prompt, and for the fields of an `EditConfig`."""
    first = next(iter(inputs.values()))
    controls = {
        "image": widgets.Dropdown(options=list(inputs.items()), description="image"),
        "source": widgets.Text(first.source, description="source prompt"),
        "target": widgets.Text(first.target, description="target prompt"),
        "method": _choice("method", [*METHODS, SDEDIT], DEFAULTS.method),
        "control": _choice("control", CONTROLS, DEFAULTS.control),
        "steps": _slider("steps N", 5, 100, 5, DEFAULTS.steps),
        "guidance_scale": _slider("guidance w", 0, 15, 0.5, DEFAULTS.guidance_scale),
        "schedule": _choice("schedule", SCHEDULES, "dynamic"),
        "cross_until": _slider("cross until", 0, 1, 0.05, DEFAULTS.cross_until),
        "self_until": _slider("self until", 0, 1, 0.05, DEFAULTS.self_until),
        "blend": widgets.Checkbox(DEFAULTS.blend, description="blend by changed words"),
        "threshold": _slider("threshold", 0.05, 0.95, 0.05, DEFAULTS.threshold),
        "strength": _slider("strength", 0.05, 1, 0.05, DEFAULTS.strength),
    }
    for control in controls.values():
        control.layout.width, control.style.description_width = "auto", "105px"
        if control.has_trait("continuous_update"):
            control.continuous_update = False  # run when a slider is let go, a line entered
    return controls


def _choice(label: str, options: Any, value: str) -> widgets.Dropdown:  # noqa: ANN401
    return widgets.Dropdown(options=list(options), value=value, description=label)


def _slider(
    label: str, low: float, high: float, step: float, value: float
) -> widgets.IntSlider | widgets.FloatSlider:
    kind = widgets.IntSlider if isinstance(step, int) else widgets.FloatSlider
    return kind(value=value, min=low, max=high, step=step, description=label)


def _arranged(studio: Studio) -> tuple[widgets.Widget, ...]:
    """Image and prompts on top, the other controls beside the images."""
    image, source, target, *others = studio.controls.values()
    image.layout.flex, studio.upload.layout.width = "1 1 auto", "170px"
    studio.run_button.layout.width = studio.stop_button.layout.width = "80px"
    studio.progress.layout.width = "160px"
    studio.code.layout = {"width": "auto", "height": "17em"}
    top = widgets.HBox([image, studio.upload])
    run = widgets.HBox([studio.run_button, studio.stop_button, studio.progress, studio.status])
    left = widgets.VBox(others, layout={"width": "330px", "margin": "0 8px 0 0"})
    results = [run, studio.gallery, studio.message]
    right = widgets.VBox(results, layout={"flex": "1 1 420px"})
    middle = widgets.HBox([left, right], layout={"flex_flow": "row wrap"})
    code = widgets.Accordion([studio.code], titles=("copy as code",))
    return top, source, target, middle, code
