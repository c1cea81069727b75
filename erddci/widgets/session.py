"""What the editing studio computes: a picture, two prompts and a way to edit become a view.

Nothing here knows widgets; `erddci.widgets.studio` shows them.
"""

from __future__ import annotations

import json
import time
import warnings
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import torch
from PIL import Image
from transformers import CLIPTokenizer

from erddci.attention import Taps
from erddci.controls import Blend, control_for
from erddci.editing import Edit, edit
from erddci.experiments import source_back, word_maps
from erddci.guidance import DYNAMIC, Condition
from erddci.images import Picture, open_image
from erddci.inversion import METHODS, climb, climbs_guided, invert
from erddci.metrics import psnr
from erddci.model import StableDiffusion
from erddci.prompts import changes, words_of
from erddci.scenes.examples import examples, photographs
from erddci.trajectory import Trajectory


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
        dynamic = DYNAMIC if self.dynamic else None
        return self.w != 1 and climbs_guided(self.method, dynamic)

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


def pictures_for(model: StableDiffusion) -> dict[str, Given]:
    """The examples, with their true answers, and the photographs."""
    found = {}
    for n, each in enumerate(examples()):
        known = each.source, each.target, each.truth
        code = f"erddci.examples()[{n}].image"
        found[f"scene {n + 1}: {each.name}"] = given_from(model, each.image, code, *known)
    for name, image in photographs().items():
        code = f"erddci.photographs()[{json.dumps(name)}]"
        found[f"photograph: {name}"] = given_from(model, image, code)
    return found


def given_from(
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


def _lit(picture: np.ndarray, looks: np.ndarray) -> np.ndarray:
    """A grey picture with a map over it, the brighter the more a word looks there."""
    height, width = picture.shape[:2]
    share = np.clip(looks / looks.max(), 0, 1).astype(np.float32)
    share = np.asarray(Image.fromarray(share).resize((width, height), Image.Resampling.BILINEAR))
    grey = np.repeat(0.6 * picture.mean(2, keepdims=True), 3, 2)
    cover = 0.75 * share[..., None]
    return (1 - cover) * grey + cover * mpl.colormaps["inferno"](share)[..., :3]


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
    lines += [f"from erddci.controls import {', '.join(used)}"] * bool(used)
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
