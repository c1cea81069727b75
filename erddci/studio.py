"""The editing studio: choose a picture, two prompts and a way to edit, and see what comes of it.

A front end's clicks reach Python only while no cell and no callback runs.  So the studio computes
in a thread, on a UNet whose attention nobody else taps, and asks before every call of the network
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
import time
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import matplotlib as mpl
import numpy as np
import torch
from PIL import Image
from transformers import CLIPTokenizer

from erddci.attention import CONTROLS, Blend, Taps, control_for
from erddci.data import examples, photographs
from erddci.editing import Edit, edit
from erddci.experiments import climb, source_back, word_maps
from erddci.guidance import DYNAMIC, Condition
from erddci.images import Picture, open_image
from erddci.inversion import METHODS, invert
from erddci.metrics import psnr
from erddci.model import StableDiffusion
from erddci.trajectory import Trajectory
from erddci.words import changes, words_of

# The controls that read the two shares of the walk.
SHARING = ("refine", "replace", "plug-and-play")

# Five pictures in a row where there is room for them.
FRAME = "margin:0 6px 6px 0;width:calc(20% - 6px);min-width:104px;max-width:200px"


@dataclass(frozen=True, eq=False)
class Given:
    """A picture to edit, as the model sees it, and what is known of it.

    Args:
        code: the Python expression that gives the picture.
        truth: the picture after a perfect edit to `target`.
        note: how the picture was changed to fit the model.
    """

    picture: Image.Image
    code: str
    source: str = ""
    target: str = ""
    truth: Image.Image | None = None
    note: str = ""


@dataclass(frozen=True)
class Settings:
    """All that can be chosen in the studio.

    Args:
        w: the guidance scale.
        dynamic: whether guidance is that of `erddci.DYNAMIC`, or else constant.
        cross, itself: until which share of the walk attention is the source's.
        blend: whether only what the changed words look at may differ from the source.
        threshold: share of a map's maximum above which it counts as looking.
        strength: which share of the walk is walked again.
    """

    picture: Given
    source: str
    target: str
    method: str = "dual-chain"
    control: str = "refine"
    steps: int = 20
    w: float = 7.5
    dynamic: bool = True
    cross: float = 0.4
    itself: float = 0.2
    blend: bool = False
    threshold: float = 0.3
    strength: float = 1.0

    @property
    def guided(self) -> bool:
        """Whether the guidance chosen acts on the way up too."""
        mirrored = self.method == "dual-chain" and self.dynamic and DYNAMIC.mirrored
        return self.w != 1 and (METHODS[self.method].guided or mirrored)

    @property
    def start(self) -> Settings:
        """What inversion depends on, with all else alike."""
        w, dynamic = (self.w, self.dynamic) if self.guided else (1.0, False)
        given, words, method = self.picture, self.source, self.method
        return Settings(given, words, "", method, steps=self.steps, w=w, dynamic=dynamic)

    def at(self, condition: Condition) -> Condition:
        """A condition under the guidance chosen."""
        return condition.at(self.w, DYNAMIC if self.dynamic else None)

    def rows(self) -> tuple[float, float]:
        """Network rows to noise and back, for a progress bar: at most so many."""
        known, g, own = METHODS[self.method], 1 + (self.w != 1), 1 + self.guided
        up, source = known.rows(self.steps, own)
        target = known.rows(self.steps, g)[1]
        if self.method == "dual-chain":
            up += self.steps * self.guided
            source, target = self.steps * (self.control != "none" or self.blend), g * self.steps
        return up, (source + target) * self.strength


@dataclass(frozen=True)
class Start:
    """An inverted picture, and the VAE round trips that edits of it are compared with."""

    path: Trajectory
    round_trip: np.ndarray
    truth: np.ndarray | None
    seconds: float


@dataclass(frozen=True)
class View:
    """What there is to see: pictures and attention maps by their titles, and what is to say."""

    pictures: dict[str, np.ndarray]
    maps: dict[str, np.ndarray]
    words: str


def editing_studio(model: StableDiffusion) -> widgets.VBox:
    """Edit an example, a photograph or a picture of your own, and see it beside its source.

    A picture is inverted once for all edits whose inversion is alike.  A run can be stopped; what
    was shown before it stays.
    """
    return Studio(model)


def studio_view(model: StableDiffusion, settings: Settings, start: Start | None = None) -> View:
    """Edit as the settings say: pictures, attention maps of changed words, and the numbers.

    Args:
        start: what `begin` made of the same settings, if it is at hand.
    """
    start = start or begin(model, settings)
    begun = time.perf_counter()
    found = edit_as(model, settings, start.path)
    back = source_back(model, found)
    kept, changed = (model.decode(each.image)[0] for each in (back, found))
    given = settings.picture
    shown = {"input": np.asarray(given.picture, np.float32) / 255}
    shown |= {"reconstruction": kept, "edit": changed}
    said = [
        f"Reconstruction: {psnr(start.round_trip, kept):.1f} dB to the VAE round trip, "
        f"{psnr(shown['input'], kept):.1f} dB to the input image (VAE floor: "
        f"{psnr(shown['input'], start.round_trip):.1f} dB)."
    ]
    if start.truth is not None and settings.target == given.target:
        shown["true edit"] = start.truth
        near = psnr(start.truth, changed)
        said.append(f"Edit: {near:.1f} dB to the VAE round trip of the true edit.")
    else:
        said.append("Edit: no true answer is known for this picture and target prompt.")
    shown["difference × 2"] = (2 * np.abs(changed - kept)).clip(0, 1)
    rows = found.rows + (0 if back is found.source else back.rows)
    said.append(f"Network rows: {start.path.rows:g} to noise, {rows:g} back.")
    maps = {}
    if found.taps:
        maps = attention_of(model.tokenizer, settings, found.taps, (kept, changed))
    else:
        said.append("No attention maps: nothing looks at attention without control or blend.")
    seconds = time.perf_counter() - begun
    said.append(f"Seconds: {start.seconds:.1f} for the inversion, {seconds:.1f} for the edit.")
    if settings.source == settings.target:
        said.append(
            "Both prompts are alike: write what the picture shows, and what it is to show."
        )
    said += [f"Note: {given.note}."] * bool(given.note)
    return View(shown, maps, "\n".join(said).replace("inf dB", "∞ dB"))


def begin(model: StableDiffusion, settings: Settings) -> Start:
    """Invert a picture as the method is meant to be inverted for an edit."""
    begun, given = time.perf_counter(), settings.picture
    x = model.encode(given.picture)
    condition = climb(settings.at(model.condition(settings.source)), settings.method)
    path = invert(model, x, condition, settings.method, settings.steps)
    truth = model.decode(model.encode(given.truth))[0] if given.truth else None
    return Start(path, model.decode(x)[0], truth, time.perf_counter() - begun)


def edit_as(model: StableDiffusion, settings: Settings, path: Trajectory) -> Edit:
    """Edit along a path of `begin` as the settings say."""
    blend, prompts = None, ([settings.source], [settings.target])
    target = settings.at(model.condition(settings.target))
    shares = settings.cross, settings.itself
    control = control_for(settings.control, model.tokenizer, *prompts, *shares)
    if settings.blend:
        blend = Blend.of_changes(model.tokenizer, *prompts, settings.threshold)
    return edit(model, path, target, control, blend=blend, strength=settings.strength)


def attention_of(
    tokenizer: CLIPTokenizer,
    settings: Settings,
    taps: Taps,
    pictures: tuple[np.ndarray, np.ndarray],
    most: int = 2,
) -> dict[str, np.ndarray]:
    """Where changed words look in the source and in the edit, or any words if none changed.

    Of each prompt the longest `most` are shown: short words say little of a picture.
    """
    prompts, found = {"source": settings.source, "target": settings.target}, {}
    marks = changes(tokenizer, *prompts.values())
    for (whose, prompt), mark, picture in zip(prompts.items(), marks, pictures, strict=True):
        places = [places for _, places in words_of(tokenizer, prompt).values()]
        maps = word_maps(tokenizer, prompt, taps.maps(whose))
        changed = [each for each, at in zip(maps, places, strict=True) if mark[at].any()]
        longest = sorted(changed or maps, key=lambda each: -len(each[0]))[:most]
        found |= {f"“{word}” ({whose})": _lit(picture, looks) for word, looks in longest}
    return found


def as_code(model: StableDiffusion, settings: Settings) -> str:
    """The lines of Python that make the same edit."""
    quoted = {
        name: json.dumps(getattr(settings, name), ensure_ascii=False)
        for name in ("source", "target", "method", "control")
    }
    name, half = model.name.rsplit("@", 1)[0], model.dtype != torch.float32
    known = [json.dumps(name)] * (name != "scenes") + [f"dtype={model.dtype}"] * half
    used = ["Blend"] * settings.blend + ["control_for"] * (settings.control != "none")
    at = f".at({settings.w}{', erddci.DYNAMIC' * settings.dynamic})"
    up = ".climb" if settings.method == "dual-chain" else ".at(1)"
    up = "" if METHODS[settings.method].guided else up
    words, options = "model.tokenizer, [source], [target]", ""
    lines = ["import torch"] * half + ["import erddci"]
    lines += [f"from erddci.attention import {', '.join(used)}"] * bool(used)
    lines += [
        "",
        f"model = erddci.load({', '.join(known)})",
        f"source = {quoted['source']}",
        f"target = {quoted['target']}",
        f"x = model.encode({settings.picture.code})",
        f"up = model.condition(source){at}{up}",
        f"path = erddci.invert(model, x, up, {quoted['method']}, {settings.steps})",
    ]
    if settings.control != "none":
        shares = f"cross={settings.cross}, itself={settings.itself}"
        lines.append(f"control = control_for({quoted['control']}, {words}, {shares})")
        options += ", control"
    if settings.blend:
        lines.append(f"blend = Blend.of_changes({words}, threshold={settings.threshold})")
        options += ", blend=blend"
    if settings.strength != 1:
        options += f", strength={settings.strength}"
    lines.append(f"edited = erddci.edit(model, path, model.condition(target){at}{options})")
    return "\n".join([*lines, "picture = model.decode(edited.image)[0]"])


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

        self.controls = _controls(_pictures(model))
        self.upload = widgets.FileUpload(accept="image/*", description="your own picture")
        self.again = widgets.Button(description="edit", icon="play")
        self.stop = widgets.Button(description="stop", icon="stop", disabled=True)
        self.bar, self.doing = widgets.FloatProgress(max=1), widgets.Label()
        self.shown, self.words, self.code = widgets.HTML(), widgets.HTML(), widgets.Textarea()
        super().__init__(_arranged(self))

        self.controls["picture"].observe(self._choose, "value")
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
        for name in ("cross", "itself"):
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
        """Bring the prompts with the picture; the run that follows is one."""
        self._quiet = True
        self.controls["source"].value = change["new"].source
        self.controls["target"].value = change["new"].target
        self._quiet = False

    def _receive(self, change: dict) -> None:
        """Offer an uploaded picture among the others, and choose it."""
        if not change["new"]:
            return
        file, picture = change["new"][-1], self.controls["picture"]
        name = Path(file["name"]).name
        try:
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / name).write_bytes(file["content"])
                found = _given(self._model, Path(folder) / name, json.dumps(name))
        except Exception as error:
            self._latest.set()
            self._fail(error)
            return
        # With new options the first is chosen, for a moment.
        picture.options = (*picture.options, (f"yours: {name}", found))
        picture.value = found


def _pictures(model: StableDiffusion) -> dict[str, Given]:
    """The examples, with their true answers, and the photographs."""
    found = {}
    for n, each in enumerate(examples()):
        known = each.source, each.target, each.truth
        code = f"erddci.examples()[{n}].image"
        found[f"scene {n + 1}: {each.name}"] = _given(model, each.image, code, *known)
    for name, image in photographs().items():
        code = f"erddci.photographs()[{json.dumps(name)}]"
        found[f"photograph: {name}"] = _given(model, image, code)
    return found


def _given(
    model: StableDiffusion,
    picture: Picture,
    code: str,
    source: str = "",
    target: str = "",
    truth: Image.Image | None = None,
) -> Given:
    """Read a picture once; what had to be changed becomes a note instead of a warning."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        image = open_image(picture, model.size)
        truth = truth and open_image(truth, model.size)
    note = str(said[0].message) if said else ""
    return Given(image, code, source, target, truth, note)


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
        "picture": choice("picture", list(given.items())),
        "source": widgets.Text(default.source, description="source prompt", **late),
        "target": widgets.Text(default.target, description="target prompt", **late),
        "method": choice("method", list(METHODS)),
        "control": choice("control", list(CONTROLS)),
        "steps": slider("steps", "steps N", 5, 100, 5),
        "w": slider("w", "guidance w", 0, 15, 0.5),
        "dynamic": widgets.Checkbox(default.dynamic, description="dynamic control of guidance"),
        "cross": slider("cross", "cross-attention", 0, 1, 0.05),
        "itself": slider("itself", "self-attention", 0, 1, 0.05),
        "blend": widgets.Checkbox(default.blend, description="blend by changed words"),
        "threshold": slider("threshold", "threshold", 0.05, 0.95, 0.05),
        "strength": slider("strength", "strength", 0.05, 1, 0.05),
    }
    for control in found.values():
        control.layout.width, control.style.description_width = "auto", "105px"
    return found


def _arranged(studio: Studio) -> tuple[widgets.Widget, ...]:
    """Picture and prompts on top, the rest of the controls beside what they lead to."""
    picture, source, target, *others = studio.controls.values()
    picture.layout.flex, studio.upload.layout.width = "1 1 auto", "170px"
    studio.again.layout.width = studio.stop.layout.width = "80px"
    studio.bar.layout.width = "160px"
    studio.code.layout = {"width": "auto", "height": "17em"}
    top = widgets.HBox([picture, studio.upload])
    run = widgets.HBox([studio.again, studio.stop, studio.bar, studio.doing])
    left = widgets.VBox(others, layout={"width": "330px", "margin": "0 8px 0 0"})
    right = widgets.VBox([run, studio.shown, studio.words], layout={"flex": "1 1 420px"})
    middle = widgets.HBox([left, right], layout={"flex_flow": "row wrap"})
    code = widgets.Accordion([studio.code], titles=("copy as code",))
    return top, source, target, middle, code


def _lit(picture: np.ndarray, looks: np.ndarray) -> np.ndarray:
    """A grey picture with a map over it, the brighter the more a word looks there."""
    height, width = picture.shape[:2]
    share = np.clip(looks / looks.max(), 0, 1).astype(np.float32)
    share = np.asarray(Image.fromarray(share).resize((width, height), Image.Resampling.BILINEAR))
    grey = np.repeat(0.6 * picture.mean(2, keepdims=True), 3, 2)
    cover = 0.75 * share[..., None]
    return (1 - cover) * grey + cover * mpl.colormaps["inferno"](share)[..., :3]


def _lines(text: str) -> str:
    style = "line-height:1.5;white-space:pre-line"
    return f'<div style="{style}">{html.escape(text)}</div>'


def _as_html(view: View) -> str:
    """Pictures in one row, attention maps in the next; matplotlib is not safe in threads."""
    return _row(view.pictures) + _row(view.maps)


def _row(pictures: dict[str, np.ndarray]) -> str:
    frames = []
    for title, picture in pictures.items():
        buffer, title = io.BytesIO(), html.escape(title)
        Image.fromarray(np.round(picture * 255).astype(np.uint8)).save(buffer, "png")
        code = base64.b64encode(buffer.getvalue()).decode()
        frames.append(
            f'<figure style="{FRAME}">'
            f'<img alt="{title}" style="width:100%" src="data:image/png;base64,{code}">'
            f'<figcaption style="line-height:1.3">{title}</figcaption></figure>'
        )
    return f'<div style="display:flex;flex-wrap:wrap">{"".join(frames)}</div>'
