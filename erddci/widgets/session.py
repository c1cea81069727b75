"""What the editing studio computes: an image, two prompts and a way to edit become a view.

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

from erddci.attention import AttentionState
from erddci.controls import LocalBlend, make_control
from erddci.editing import Edit, edit
from erddci.experiments import source_back, word_maps
from erddci.guidance import DEFAULT_SCHEDULE, Condition
from erddci.images import ImageInput, open_image
from erddci.inversion import METHODS, climb, climbs_guided, invert
from erddci.metrics import psnr
from erddci.model import StableDiffusion
from erddci.prompts import changed_tokens, words_of
from erddci.scenes.examples import examples, photographs
from erddci.trajectory import Trajectory


@dataclass(frozen=True, eq=False)
class Given:
    """An image to edit, as the model sees it, and what is known of it.

    Args:
        code: the Python expression that gives the image.
        truth: the image after a perfect edit to `target`.
        note: how the image was changed to fit the model.
    """

    image: Image.Image
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
        schedule: whether guidance is that of `erddci.DEFAULT_SCHEDULE`, or else constant.
        cross, self_until: until which share of the walk attention is the source's.
        blend: whether only what the changed words look at may differ from the source.
        threshold: share of a map's maximum above which it counts as looking.
        strength: which share of the walk is walked again.
    """

    image: Given
    source: str
    target: str
    method: str = "dual-chain"
    control: str = "refine"
    steps: int = 20
    w: float = 7.5
    schedule: bool = True
    cross_until: float = 0.4
    self_until: float = 0.2
    blend: bool = False
    threshold: float = 0.3
    strength: float = 1.0

    @property
    def guided(self) -> bool:
        """Whether the guidance chosen acts on the way up too."""
        schedule = DEFAULT_SCHEDULE if self.schedule else None
        return self.w != 1 and climbs_guided(self.method, schedule)

    @property
    def start(self) -> Settings:
        """What inversion depends on, with all else alike."""
        w, schedule = (self.w, self.schedule) if self.guided else (1.0, False)
        given, words, method = self.image, self.source, self.method
        return Settings(given, words, "", method, steps=self.steps, w=w, schedule=schedule)

    def guide(self, condition: Condition) -> Condition:
        """A condition under the guidance chosen."""
        return condition.with_guidance(self.w, DEFAULT_SCHEDULE if self.schedule else None)

    def rows(self) -> tuple[float, float]:
        """Network rows to noise and back, for a progress bar: at most so many."""
        known, g, own = METHODS[self.method], 1 + (self.w != 1), 1 + self.guided
        up, source = known.nfe(self.steps, own)
        target = known.nfe(self.steps, g)[1]
        if self.method == "dual-chain":
            up += self.steps * self.guided
            source, target = self.steps * (self.control != "none" or self.blend), g * self.steps
        return up, (source + target) * self.strength


@dataclass(frozen=True)
class Start:
    """An inverted image, and the VAE round trips that edits of it are compared with."""

    path: Trajectory
    round_trip: np.ndarray
    truth: np.ndarray | None
    seconds: float


@dataclass(frozen=True)
class View:
    """What there is to see: images and attention maps by their titles, and what is to say."""

    images: dict[str, np.ndarray]
    maps: dict[str, np.ndarray]
    words: str


def images_for(model: StableDiffusion) -> dict[str, Given]:
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
    image: ImageInput,
    code: str,
    source: str = "",
    target: str = "",
    truth: Image.Image | None = None,
) -> Given:
    """Read an image once; what had to be changed becomes a note instead of a warning."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        image = open_image(image, model.resolution)
        truth = truth and open_image(truth, model.resolution)
    note = str(said[0].message) if said else ""
    return Given(image, code, source, target, truth, note)


def studio_view(model: StableDiffusion, settings: Settings, start: Start | None = None) -> View:
    """Edit as the settings say: images, attention maps of changed words, and the numbers.

    Args:
        start: what `begin` made of the same settings, if it is at hand.
    """
    start = start or begin(model, settings)
    begun = time.perf_counter()
    found = edit_as(model, settings, start.path)
    back = source_back(model, found)
    kept, changed = (model.decode(each.x0)[0] for each in (back, found))
    given = settings.image
    shown = {"input": np.asarray(given.image, np.float32) / 255}
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
        said.append("Edit: no true answer is known for this image and target prompt.")
    shown["difference × 2"] = (2 * np.abs(changed - kept)).clip(0, 1)
    rows = found.nfe + (0 if back is found.source else back.nfe)
    said.append(f"Network rows: {start.path.nfe:g} to noise, {rows:g} back.")
    maps = {}
    if found.attention:
        maps = attention_of(model.tokenizer, settings, found.attention, (kept, changed))
    else:
        said.append("No attention maps: nothing looks at attention without control or blend.")
    seconds = time.perf_counter() - begun
    said.append(f"Seconds: {start.seconds:.1f} for the inversion, {seconds:.1f} for the edit.")
    if settings.source == settings.target:
        said.append("Both prompts are alike: write what the image shows, and what it is to show.")
    said += [f"Note: {given.note}."] * bool(given.note)
    return View(shown, maps, "\n".join(said).replace("inf dB", "∞ dB"))


def begin(model: StableDiffusion, settings: Settings) -> Start:
    """Invert an image as the method is meant to be inverted for an edit."""
    begun, given = time.perf_counter(), settings.image
    x = model.encode(given.image)
    condition = climb(settings.guide(model.condition(settings.source)), settings.method)
    path = invert(model, x, condition, settings.method, settings.steps)
    truth = model.decode(model.encode(given.truth))[0] if given.truth else None
    return Start(path, model.decode(x)[0], truth, time.perf_counter() - begun)


def edit_as(model: StableDiffusion, settings: Settings, path: Trajectory) -> Edit:
    """Edit along a path of `begin` as the settings say."""
    blend, prompts = None, ([settings.source], [settings.target])
    target = settings.guide(model.condition(settings.target))
    shares = settings.cross_until, settings.self_until
    control = make_control(settings.control, model.tokenizer, *prompts, *shares)
    if settings.blend:
        blend = LocalBlend.from_prompts(model.tokenizer, *prompts, settings.threshold)
    return edit(model, path, target, control, blend=blend, strength=settings.strength)


def attention_of(
    tokenizer: CLIPTokenizer,
    settings: Settings,
    state: AttentionState,
    images: tuple[np.ndarray, np.ndarray],
    most: int = 2,
) -> dict[str, np.ndarray]:
    """Where changed words look in the source and in the edit, or any words if none changed.

    Of each prompt the longest `most` are shown: short words say little of an image.
    """
    prompts, found = {"source": settings.source, "target": settings.target}, {}
    marks = changed_tokens(tokenizer, *prompts.values())
    for (whose, prompt), mark, image in zip(prompts.items(), marks, images, strict=True):
        places = [places for _, places in words_of(tokenizer, prompt).values()]
        maps = word_maps(tokenizer, prompt, state.maps(whose))
        changed = [each for each, at in zip(maps, places, strict=True) if mark[at].any()]
        longest = sorted(changed or maps, key=lambda each: -len(each[0]))[:most]
        found |= {f"“{word}” ({whose})": _lit(image, looks) for word, looks in longest}
    return found


def _lit(image: np.ndarray, looks: np.ndarray) -> np.ndarray:
    """A grey image with a map over it, the brighter the more a word looks there."""
    height, width = image.shape[:2]
    share = np.clip(looks / looks.max(), 0, 1).astype(np.float32)
    share = np.asarray(Image.fromarray(share).resize((width, height), Image.Resampling.BILINEAR))
    grey = np.repeat(0.6 * image.mean(2, keepdims=True), 3, 2)
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
    used = ["LocalBlend"] * settings.blend + ["make_control"] * (settings.control != "none")
    at = f".with_guidance({settings.w}{', erddci.DEFAULT_SCHEDULE' * settings.schedule})"
    up = ".climb" if settings.method == "dual-chain" else ".with_guidance(1)"
    up = "" if METHODS[settings.method].inverts_guided else up
    words, options = "model.tokenizer, [source], [target]", ""
    lines = ["import torch"] * half + ["import erddci"]
    lines += [f"from erddci.controls import {', '.join(used)}"] * bool(used)
    lines += [
        "",
        f"model = erddci.load({', '.join(known)})",
        f"source = {quoted['source']}",
        f"target = {quoted['target']}",
        f"x = model.encode({settings.image.code})",
        f"up = model.condition(source){at}{up}",
        f"path = erddci.invert(model, x, up, {quoted['method']}, {settings.steps})",
    ]
    if settings.control != "none":
        shares = f"cross_until={settings.cross_until}, self_until={settings.self_until}"
        lines.append(f"control = make_control({quoted['control']}, {words}, {shares})")
        options += ", control"
    if settings.blend:
        lines.append(f"blend = LocalBlend.from_prompts({words}, threshold={settings.threshold})")
        options += ", blend=blend"
    if settings.strength != 1:
        options += f", strength={settings.strength}"
    lines.append(f"edited = erddci.edit(model, path, model.condition(target){at}{options})")
    return "\n".join([*lines, "image = model.decode(edited.x0)[0]"])
