"""Measure the embedded model on pictures and prompts that it was not trained on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from PIL import Image, ImageOps
from torch import Tensor
from tqdm.auto import tqdm

from erddci.metrics import psnr
from erddci.metrics.lpips import lpips_batch
from erddci.model import StableDiffusion, load
from erddci.scenes.examples import NAMED_KINDS, edits
from erddci.scenes.render import Rendering, render
from erddci.scenes.scene import HELD_OUT_SEEDS, Scene, caption, sample_named_scene, subjects
from erddci.scenes.things import NamedObject
from erddci.scenes.world_classifier import (
    QUESTIONS,
    WorldClassifier,
    attributes,
    load_classifier,
)
from erddci.training.denoiser import recording
from erddci.training.pages import page

JUDGED = 500_000  # the first of the held-out seeds that judge the model


def judged_scenes(count: int) -> list[Scene]:
    """The first held-out scenes that judge the model."""
    return [sample_named_scene(seed) for seed in HELD_OUT_SEEDS[JUDGED : JUDGED + count]]


def photographs(folder: Path) -> np.ndarray:
    """The middle squares of a folder's pictures at 128 px, [N, 128, 128, 3] uint8."""
    pictures = [Image.open(path).convert("RGB") for path in sorted(folder.glob("*.png"))]
    fitted = [ImageOps.fit(image, (128, 128), Image.Resampling.LANCZOS) for image in pictures]
    return np.stack([np.asarray(image) for image in fitted])


@torch.no_grad()
def round_trip(vae: AutoencoderKL, images: np.ndarray) -> np.ndarray:
    """Encode and decode pictures [N, H, W, 3] uint8; the same shape in [0, 1]."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    back = torch.cat([vae.decode(vae.encode(one).latent_dist.mean).sample for one in x.split(8)])
    return (back.clamp(-1, 1) / 2 + 0.5).permute(0, 2, 3, 1).numpy()


def vae_measures(vae: AutoencoderKL, photos: np.ndarray, count: int = 200) -> dict[str, float]:
    """PSNR of round trips of scenes, of the boxes of named things, and of photographs; LPIPS."""
    scenes = judged_scenes(count)
    renders = [render(scene) for scene in scenes]
    images = np.stack([rendering.image for rendering in renders])
    back, photos_back = round_trip(vae, images), round_trip(vae, photos)
    references, photos = images / np.float32(255), photos / np.float32(255)
    whole = np.array([psnr(a, b) for a, b in zip(references, back, strict=True)])
    named = np.array([any(isinstance(t, NamedObject) for t in s.objects) for s in scenes])
    boxes = [
        psnr(references[i][box], back[i][box])
        for i, (scene, rendering) in enumerate(zip(scenes, renders, strict=True))
        for box in named_boxes(scene, rendering)
    ]
    return {
        "vae psnr: scenes": float(np.mean(whole)),
        "vae psnr: scenes of shapes": float(np.mean(whole[~named])),
        "vae psnr: scenes with named things": float(np.mean(whole[named])),
        "vae psnr: boxes of named things": float(np.mean(boxes)),
        "vae psnr: photographs": float(np.mean(list(map(psnr, photos, photos_back)))),
        "vae lpips: photographs": float(np.mean(lpips_batch(photos, photos_back))),
        "vae lpips: scenes": float(np.mean(lpips_batch(references, back))),
    }


def named_boxes(scene: Scene, rendering: Rendering) -> list[tuple[slice, slice]]:
    """The rows and columns around each named thing that can be seen."""
    boxes = []
    for thing, mask in zip(scene.objects, rendering.masks, strict=True):
        if isinstance(thing, NamedObject) and mask.any():
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            boxes.append((slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)))
    return boxes


def agreement(
    truths: Sequence[dict[str, str]], said: Sequence[dict[str, str]]
) -> dict[str, float]:
    """Share of the true answers that were given, of all and by what is asked."""
    right: dict[str, list[bool]] = {"all": []}
    for truth, answer in zip(truths, said, strict=True):
        for question in (q for q in QUESTIONS if q in truth):
            mark = answer.get(question) == truth[question]
            right["all"].append(mark)
            right.setdefault(question.split()[-1], []).append(mark)
    return {question: float(np.mean(marks)) for question, marks in right.items()}


def classifier_measures(
    model: StableDiffusion, classifier: WorldClassifier, scenes: Sequence[Scene]
) -> dict[str, float]:
    """What the classifier gets right on renders and on their round trips through the VAE."""
    images = np.stack([render(scene).image for scene in scenes])
    truths = [attributes(scene) for scene in scenes]
    back = round_trip(model.vae, images)
    return {
        f"classifier on {what}: {question}": share
        for what, read in (("renders", images), ("round trips", back))
        for question, share in agreement(truths, classifier.read(read)).items()
    }


def samples(
    model: StableDiffusion, scenes: Sequence[Scene], w: float, steps: int = 50
) -> np.ndarray:
    """One sample for the caption of each scene [N, 128, 128, 3], from noise of seed 0."""
    generator = torch.Generator().manual_seed(0)
    images = []
    for start in tqdm(range(0, len(scenes), 25), f"samples at w = {w:g}"):
        prompts = [caption(scene) for scene in scenes[start : start + 25]]
        condition = model.condition(prompts, guidance_scale=w)
        images.append(model.decode(model.sample(condition, steps, generator, len(prompts))))
    return np.concatenate(images)


def prompt_following(
    classifier: WorldClassifier, scenes: Sequence[Scene], images: np.ndarray
) -> dict[str, float]:
    """Share of what captions imply that the classifier sees in samples, by question."""
    return agreement([attributes(scene) for scene in scenes], classifier.read(images))


@torch.no_grad()
def word_maps(model: StableDiffusion, scene: Scene, image: np.ndarray) -> Tensor:
    """Where each word of a scene's caption looks, [words, 16, 16], over ten noise levels.

    Layers of half the resolution are enlarged to the whole; all layers and levels count alike.
    """
    x = model.encode(Image.fromarray(image))
    text = model.condition(caption(scene)).text
    total = torch.zeros(())
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    side = x.shape[-1]
    with recording(model.unet) as kept:
        for t in range(1, 1000, 100):
            a = model.alphas_cumprod[t]
            noisy = (a.sqrt() * x + (1 - a).sqrt() * noise.to(x)).to(model.dtype)
            model.unet(noisy, torch.tensor([t]), text)
    for probs in kept:
        half = round(probs.shape[1] ** 0.5)
        maps = probs.mT.unflatten(2, (half, half))
        total = total + F.interpolate(maps, (side, side), mode="bilinear")[0] / len(kept)
    return total[1 : 1 + len(caption(scene).split())]


def word_kinds(scene: Scene) -> list[str | None]:
    """What each word of a caption says of a thing or of the floor; None for the others."""
    kinds: list[str | None] = []
    for word, subject in zip(caption(scene).split(), subjects(scene), strict=True):
        if subject is None:
            kinds.append(None)
        elif subject == len(scene.objects):
            kinds.append("floor")
        else:
            thing = scene.objects[subject]
            said = [f for f in ("size", "colour", "material", "shape") if hasattr(thing, f)]
            own = [field for field in said if getattr(thing, field) == word]
            kinds.append(own[0] if own else "name")
    return kinds


def attention_measures(model: StableDiffusion, scenes: Sequence[Scene]) -> dict[str, float]:
    """Pointing accuracy, and IoU at the mask's area, of the words of held-out scenes, by kind.

    A word points right if the peak of its map lies in a cell that its thing covers by half, or
    covers most if it covers none by half.
    """
    peaks: dict[str, list[bool]] = {}
    overlaps: dict[str, list[float]] = {}
    for scene in tqdm(scenes, "attention"):
        rendering = render(scene)
        masks = [*rendering.masks, ~rendering.masks.any(0)]
        cells = [mask.reshape(16, 8, 16, 8).mean((1, 3)).flatten() for mask in masks]
        maps = word_maps(model, scene, rendering.image).flatten(1).numpy()
        for seen, kind, subject in zip(maps, word_kinds(scene), subjects(scene), strict=True):
            if kind is None or subject is None:
                continue
            inside = cells[subject] >= min(0.5, cells[subject].max())
            highest = np.zeros_like(inside)
            highest[np.argsort(seen)[-inside.sum() :]] = True
            peaks.setdefault(kind, []).append(bool(inside[seen.argmax()]))
            overlaps.setdefault(kind, []).append(
                (inside & highest).sum() / (inside | highest).sum()
            )
    return {
        **{f"pointing: {kind}": float(np.mean(marks)) for kind, marks in peaks.items()},
        **{f"IoU: {kind}": float(np.mean(values)) for kind, values in overlaps.items()},
    }


def evaluate(folder: Path, photos: np.ndarray, scenes: int = 200) -> dict[str, float]:
    """Measure a saved model; write measures and the pages to look at beside its weights."""
    model, judged = load(folder), judged_scenes(scenes)
    measures = {"scenes": float(scenes), **vae_measures(model.vae, photos, scenes)}
    pairs = [scene for scene in judged if len(scene.objects) == 2][:24]
    measures |= attention_measures(model, pairs)
    drawn = {w: samples(model, judged, w) for w in (3.0, 7.5)}
    if (folder / "classifier.safetensors").is_file():
        classifier = load_classifier(folder / "classifier.safetensors")
        measures |= classifier_measures(model, classifier, judged)
        for w, images in drawn.items():
            for question, share in prompt_following(classifier, judged, images).items():
                measures[f"prompt following at w = {w:g}: {question}"] = share
    (folder / "measures.json").write_text(json.dumps(measures, indent=1) + "\n")
    write_pages(model, folder, judged, drawn[7.5], photos)
    return measures


def write_pages(
    model: StableDiffusion,
    folder: Path,
    scenes: Sequence[Scene],
    drawn: np.ndarray,
    photos: np.ndarray,
) -> None:
    """Write pages of samples, attention maps, edits beside truth, and photographs come back."""
    captions = [caption(scene) for scene in scenes]
    titled = list(zip(captions, drawn, strict=True))[:24]
    page([titled[i : i + 6] for i in range(0, len(titled), 6)], folder / "page-samples.png")
    page(_map_rows(model, scenes), folder / "page-attention.png")
    page(_edit_rows(), folder / "page-edits.png")
    back = round_trip(model.vae, photos)
    figures = [
        [(f"{psnr(a, b):.1f} dB, LPIPS {d:.2f}", b) for a, b, d in zip(p, q, o, strict=True)]
        for p, q in [(photos / np.float32(255), back)]
        for o in [lpips_batch(p, q)]
    ][0]
    originals = [("original", image) for image in photos]
    page([originals, figures], folder / "page-photographs.png")


def _map_rows(
    model: StableDiffusion, scenes: Sequence[Scene]
) -> list[list[tuple[str, np.ndarray]]]:
    """Six scenes of two things, each with the map of every word that speaks of something."""
    rows = []
    for scene in [scene for scene in scenes if len(scene.objects) == 2][:6]:
        image = render(scene).image
        words = zip(
            caption(scene).split(),
            word_maps(model, scene, image).numpy(),
            subjects(scene),
            strict=True,
        )
        maps = [(word, seen) for word, seen, subject in words if subject is not None]
        rows.append([(caption(scene), image / np.float32(255)), *maps])
    return rows


def _edit_rows() -> list[list[tuple[str, np.ndarray]]]:
    """One edit of each kind: the picture, and the truth under it."""
    found = edits(len(NAMED_KINDS), NAMED_KINDS, named=True)
    before = [(f"{e.name}: {e.source}", np.asarray(e.image)) for e in found]
    return [before, [(e.target, np.asarray(e.truth)) for e in found]]
