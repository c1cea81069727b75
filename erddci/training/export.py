"""From checkpoints to the model that the package ships: a pipeline folder, judged, with a card."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from safetensors.torch import save_file
from tqdm.auto import tqdm

from erddci.grid import stable_diffusion_scheduler
from erddci.metrics import psnr
from erddci.model import StableDiffusion, load
from erddci.scenes.captions import tokenizer
from erddci.scenes.classifier import QUESTIONS, AttributeClassifier, attributes, load_classifier
from erddci.scenes.render import render
from erddci.scenes.scene import HELD_OUT_SEEDS, WORDS, FirstSeed, caption, sample_scene
from erddci.training.train import Denoiser, Network

WEIGHTS = Path(__file__).parents[1] / "scenes" / "weights"
PARTS = ("vae", "denoiser", "classifier")


def export(folder: Path, out: Path = WEIGHTS) -> None:
    """Save the averaged networks of the checkpoints in `folder`, and their loss curves.

    Raises:
        FileNotFoundError: a part was not trained yet.
    """
    denoiser = _averaged(Denoiser(), folder / "denoiser")
    classifier = _averaged(AttributeClassifier(), folder / "classifier")
    vae = AutoencoderKL.from_pretrained(folder / "vae" / "trained")
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=denoiser.text,
        tokenizer=tokenizer(),
        unet=denoiser.unet,
        scheduler=stable_diffusion_scheduler(),
        safety_checker=None,  # type: ignore[arg-type]
        feature_extractor=None,  # type: ignore[arg-type]
        requires_safety_checker=False,
    ).to(torch.float16).save_pretrained(out)  # half the size; what is judged is what is saved
    halves = {name: weight.half() for name, weight in classifier.state_dict().items()}
    save_file(halves, out / "classifier.safetensors")
    for part in PARTS:
        shutil.copy(folder / part / "loss.csv", out / f"loss-{part}.csv")


def evaluate(out: Path = WEIGHTS, scenes: int = 500) -> dict[str, float]:
    """Measure saved weights on held-out scenes; write the measures and the model card beside them.

    Prompt following is the share of the answers that the prompt implies which the reader gives
    for samples in 50 steps, from noise of seed 0.
    """
    model = load(out)
    classifier = load_classifier(out / "classifier.safetensors")
    drawn = [
        sample_scene(seed)
        for seed in HELD_OUT_SEEDS[FirstSeed.EVALUATION : FirstSeed.EVALUATION + scenes]
    ]
    truths = [attributes(scene) for scene in drawn]
    images = np.stack([render(scene).image for scene in drawn]) / np.float32(255)
    batches = [slice(start, start + 25) for start in range(0, scenes, 25)]
    round_trips = np.concatenate([model.decode(model.encode(list(images[b]))) for b in batches])
    measures: dict[str, float] = {
        "scenes": scenes,
        "vae psnr": float(np.mean([psnr(a, b) for a, b in zip(images, round_trips, strict=True)])),
        "reader on renders": _agreement(truths, classifier.classify(images))["all"],
        "reader on round trips": _agreement(truths, classifier.classify(round_trips))["all"],
    }
    for w in (3.0, 7.5):
        said = _read_samples(model, classifier, [caption(scene) for scene in drawn], w)
        for question, share in _agreement(truths, said).items():
            measures[f"prompt following at w = {w:g}: {question}"] = share
    (out / "measures.json").write_text(json.dumps(measures, indent=1) + "\n")
    (out / "README.md").write_text(_card(out, measures))
    return measures


def _read_samples(
    model: StableDiffusion, classifier: AttributeClassifier, prompts: list[str], w: float
) -> list[dict[str, str]]:
    """What the classifier says of samples of prompts, in 50 steps from noise of seed 0."""
    generator = torch.Generator().manual_seed(0)
    said: list[dict[str, str]] = []
    for start in tqdm(range(0, len(prompts), 25), f"samples at w = {w:g}"):
        batch = prompts[start : start + 25]
        condition = model.condition(batch, guidance_scale=w)
        x = model.sample(condition, 50, generator, len(batch))
        said += classifier.classify(model.decode(x))
    return said


def _averaged(network: Network, folder: Path) -> Network:
    """The exponential moving average of a checkpoint."""
    path = folder / "checkpoint.pt"
    if not path.is_file():
        raise FileNotFoundError(f"no {path}: run `erddci train {folder.name}` first")
    state = torch.load(path, map_location="cpu", weights_only=True)["average"]
    weights = {k.removeprefix("module."): v for k, v in state.items() if k.startswith("module.")}
    network.load_state_dict(weights)
    return network.eval()


def _agreement(truths: list[dict[str, str]], said: list[dict[str, str]]) -> dict[str, float]:
    """Share of the true answers given: of all, and by what is asked.

    "all" counts a thing on the wrong side as wrong in all that differs.  "things" compares the
    same answers after exchanging left and right where that agrees better, and "sides" is the
    share of pairs for which no exchange was needed.
    """
    right: dict[str, list[bool]] = {"all": [], "things": [], "sides": []}
    for truth, answer in zip(truths, said, strict=True):
        marks = {q: answer.get(q) == truth[q] for q in QUESTIONS if q in truth}
        exchanged = {q: answer.get(_other_side(q)) == truth[q] for q in marks}
        right["all"] += marks.values()
        right["things"] += max(marks.values(), exchanged.values(), key=sum)
        if truth["count"] == answer["count"] == "2":
            right["sides"].append(sum(marks.values()) >= sum(exchanged.values()))
        for question, mark in marks.items():
            right.setdefault(question.split()[-1], []).append(mark)
    return {question: float(np.mean(values)) for question, values in right.items() if values}


def _other_side(question: str) -> str:
    side, *rest = question.split()
    return " ".join([{"left": "right", "right": "left"}.get(side, side), *rest])


def _card(out: Path, measures: dict[str, float]) -> str:
    """The model card, with numbers from the loss curves and from `evaluate`."""
    curves = {part: pd.read_csv(out / f"loss-{part}.csv") for part in PARTS}
    training = "\n".join(
        f"| {part} | {curve.step.iloc[-1]} | {curve.seconds.sum() / 60:.0f} | "
        f"{curve.loss.iloc[-1]:.4f} |"
        for part, curve in curves.items()
    )
    rows = "\n".join(
        f"| {name} | {value:.1f} dB |" if "psnr" in name else f"| {name} | {value:.1%} |"
        for name, value in measures.items()
        if name != "scenes"
    )
    return _CARD.format(
        training=training, rows=rows, scenes=measures["scenes"], words=", ".join(WORDS)
    )


_CARD = """\
---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-image
---

# Scenes: a small latent diffusion model

A `StableDiffusionPipeline` of ordinary diffusers parts: 128 px images, 4 × 16 × 16 latents,
Stable Diffusion's noise schedule, ε-prediction. It draws one or two simple things on a
coloured floor, and exists so that diffusion inversion can be studied offline on any laptop.

**Prompts** follow one pattern, *a large red shiny cone left of a small blue matte cube on a
teal floor*; sizes and materials may be left out, and so may the second thing. It knows these
words and no others: {words}.

**Data.** Every image was rendered by `erddci.scenes` from seeds of `TRAIN_SEEDS`; the
images below that judge it come from `HELD_OUT_SEEDS`. No other data were used.

**Training** on two CPU cores in bfloat16, AdamW with a cosine schedule and an exponential
moving average; reproduce with `erddci train vae`, `denoiser`, `reader` and `export`. The loss
curves are beside this card. The denoiser's first 2,400 steps differ from what the code does
today: their captions named either thing first with even odds, their noisiest steps weighed less,
and they left sides unlearnt. The curve has its peak where the two recipes meet.

| part | steps | minutes | last loss |
|---|---|---|---|
{training}

**Measures** on {scenes} held-out scenes; prompt following is the share of the attributes of a
prompt that the scene reader reads back from a sample in 50 steps, by guidance scale.

| measure | value |
|---|---|
{rows}

**Limits.** It knows nothing of photographs: its VAE blurs them, which is the floor that every
method shares. Licence: Apache-2.0, weights and training images alike.
"""
