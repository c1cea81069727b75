"""What the editing studio computes: an image, two prompts and an `EditConfig` become a view.

Nothing here knows widgets; `erddci.widgets.studio` shows the view.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress

import matplotlib as mpl
import numpy as np
import torch
from PIL import Image
from transformers import CLIPTokenizer

from erddci.attention import AttentionState
from erddci.editing import Edit, EditConfig, reconstruct_source
from erddci.images import ImageInput, open_image
from erddci.metrics import psnr
from erddci.model import StableDiffusion
from erddci.prompts import changed_tokens, word_maps, words_of
from erddci.scenes.examples import examples, photographs
from erddci.trajectory import Trajectory
from erddci.widgets.notes import collected_warnings


@dataclass(frozen=True, eq=False)
class EditInput:
    """An image to edit, as the model sees it, and what is known of it.

    Args:
        code: the Python expression that gives the image.
        source, target: prompts to begin with.
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
class StudioSettings:
    """Which image to edit, from which prompt to which, and how."""

    image: EditInput
    source: str
    target: str
    config: EditConfig

    @property
    def inversion(self) -> StudioSettings:
        """What the inversion depends on, with all else at its default: a key for caches."""
        return replace(self, target="", config=self.config.inversion)

    @property
    def has_truth(self) -> bool:
        """Whether it is known what the edit should look like."""
        return self.image.truth is not None and self.target == self.image.target


@dataclass(frozen=True)
class InvertedImage:
    """An inverted image, and the VAE round trips of it and of its true edit.

    Args:
        seconds: how long it took.
        notes: what was warned of meanwhile.
    """

    path: Trajectory
    round_trip: np.ndarray
    truth: np.ndarray | None
    seconds: float
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class EditView:
    """What the studio shows: images and attention maps by title, and a summary in words."""

    images: dict[str, np.ndarray]
    maps: dict[str, np.ndarray]
    summary: str


def example_inputs(model: StableDiffusion) -> dict[str, EditInput]:
    """The examples, with their true edits, and the photographs, by label."""
    inputs = {}
    for n, each in enumerate(examples()):
        label, code = f"scene {n + 1}: {each.name}", f"erddci.examples()[{n}].image"
        inputs[label] = read_input(model, each.image, code, each.source, each.target, each.truth)
    for name, image in photographs().items():
        code = f"erddci.photographs()[{json.dumps(name)}]"
        inputs[f"photograph: {name}"] = read_input(model, image, code)
    return inputs


def read_input(
    model: StableDiffusion,
    image: ImageInput,
    code: str,
    source: str = "",
    target: str = "",
    truth: Image.Image | None = None,
) -> EditInput:
    """Read an image once; how it had to be changed becomes a note instead of a warning."""
    with collected_warnings() as notes:
        image = open_image(image, model.resolution)
        if truth is not None:
            truth = open_image(truth, model.resolution)
    return EditInput(image, code, source, target, truth, notes[0] if notes else "")


def invert_image(model: StableDiffusion, settings: StudioSettings) -> InvertedImage:
    """Invert the image of some settings under its source prompt."""
    begun = time.perf_counter()
    x, truth = model.encode(settings.image.image), None
    with collected_warnings() as notes:
        path = settings.config.invert(model, x, [settings.source])
    if settings.image.truth is not None:
        truth = model.decode(model.encode(settings.image.truth))[0]
    round_trip = model.decode(x)[0]
    return InvertedImage(path, round_trip, truth, time.perf_counter() - begun, notes)


def edit_view(
    model: StableDiffusion, settings: StudioSettings, inverted: InvertedImage
) -> EditView:
    """Edit as the settings say: images, attention maps of changed words, and the numbers.

    Args:
        inverted: what `invert_image` returned for these settings, or for their `inversion`.
    """
    begun = time.perf_counter()
    with collected_warnings() as notes:
        edited = settings.config.edit(model, inverted.path, [settings.source], [settings.target])
        reconstruction = reconstruct_source(model, edited)
    source, target = model.decode(torch.cat([reconstruction.x0, edited.x0]))
    images = {"input": model.to_array(settings.image.image)}
    images |= {"reconstruction": source, "edit": target}
    if settings.has_truth and inverted.truth is not None:
        images["true edit"] = inverted.truth
    images["difference × 2"] = (2 * np.abs(target - source)).clip(0, 1)
    maps = {}
    if edited.attention is not None:
        maps = attention_overlays(model.tokenizer, settings, edited.attention, images)
    seconds = time.perf_counter() - begun
    lines = [
        *_quality(inverted.round_trip, images),
        _nfe(inverted.path, edited, reconstruction),
        f"Time: {inverted.seconds:.1f} s for the inversion, {seconds:.1f} s for the edit.",
        *_remarks(settings, edited),
    ]
    lines += [f"Note: {note.rstrip('.')}." for note in dict.fromkeys([*inverted.notes, *notes])]
    return EditView(images, maps, "\n".join(lines))


def attention_overlays(
    tokenizer: CLIPTokenizer,
    settings: StudioSettings,
    state: AttentionState,
    images: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Where changed words attend in the reconstruction and in the edit, by title.

    Where no words changed, any are shown; of each prompt two, the longest, which say the most.
    """
    removed, added = changed_tokens(tokenizer, settings.source, settings.target)
    overlays = {}
    for whose, prompt, changed, image in (
        ("source", settings.source, removed, images["reconstruction"]),
        ("target", settings.target, added, images["edit"]),
    ):
        words = words_of(tokenizer, prompt).values()
        maps = word_maps(tokenizer, prompt, state.maps(whose))
        marked = [bool(changed[places].any()) for _, places in words]
        changed_maps = list(compress(maps, marked))
        longest = sorted(changed_maps or maps, key=lambda each: len(each[0]), reverse=True)
        for word, attention in longest[:2]:
            overlays[f"“{word}” ({whose})"] = overlay(image, attention)
    return overlays


def overlay(image: np.ndarray, attention: np.ndarray) -> np.ndarray:
    """An image [height, width, 3] in grey under a map of attention, the brighter the more.

    Pyplot's own blending is not safe in threads.
    """
    height, width = image.shape[:2]
    share = Image.fromarray((attention / attention.max()).clip(0, 1).astype(np.float32))
    share = np.asarray(share.resize((width, height), Image.Resampling.BILINEAR))
    grey = 0.6 * image.mean(2, keepdims=True)
    cover = 0.75 * share[..., None]
    return (1 - cover) * grey + cover * mpl.colormaps["inferno"](share)[..., :3]


def decibels(reference: np.ndarray, image: np.ndarray) -> str:
    """The PSNR of an image, as text."""
    return f"{psnr(reference, image):.1f} dB".replace("inf", "∞")


def _quality(round_trip: np.ndarray, images: Mapping[str, np.ndarray]) -> list[str]:
    """How close reconstruction and edit come to what they should be."""
    image, reconstruction = images["input"], images["reconstruction"]
    lines = [
        f"Reconstruction: {decibels(round_trip, reconstruction)} to the VAE round trip, "
        f"{decibels(image, reconstruction)} to the input image "
        f"(VAE floor: {decibels(image, round_trip)})."
    ]
    if "true edit" in images:
        distance = decibels(images["true edit"], images["edit"])
        lines.append(f"Edit: {distance} to the VAE round trip of the true edit.")
    else:
        lines.append("Edit: no true edit is known for this image and target prompt.")
    return lines


def _nfe(inversion: Trajectory, edited: Edit, reconstruction: Trajectory) -> str:
    counts = [f"{inversion.nfe:g} for the inversion", f"{edited.nfe:g} for the edit"]
    if edited.source is None:
        counts.append(f"{reconstruction.nfe:g} for the reconstruction beside it")
    return f"NFE: {', '.join(counts)}."


def _remarks(settings: StudioSettings, edited: Edit) -> list[str]:
    remarks = []
    if edited.attention is None:
        remarks.append("No attention maps: only attention control and blending record them.")
    if settings.source == settings.target:
        remarks.append("Both prompts are the same: describe the image, and the edited image.")
    if settings.image.note:
        remarks.append(f"Note: {settings.image.note}.")
    return remarks
