"""The model card of the world with named things, from curves and measures."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from erddci.scenes.scene import WORDS
from erddci.scenes.things import FACES, NAMES
from erddci.training.photographs import ARCHIVES, HELD_OUT, SKIMAGE


def write_card(out: Path) -> Path:
    """Write README.md beside saved weights, from their loss curves and `measures.json`."""
    measures = json.loads((out / "measures.json").read_text())
    card = _CARD.format(
        words=", ".join(WORDS),
        names=", ".join(name for name in NAMES if name not in FACES),
        faces=", ".join(FACES),
        photographs="\n".join(_sources()),
        held_out=", ".join(sorted(HELD_OUT)),
        training="\n".join(_curve(path) for path in sorted(out.glob("loss-*.csv"))),
        scenes=int(measures["scenes"]),
        rows="\n".join(_row(*item) for item in measures.items() if item[0] != "scenes"),
    )
    path = out / "README.md"
    path.write_text(card)
    return path


def _sources() -> list[str]:
    own = f"| scikit-image's {', '.join(SKIMAGE)} | CC0-1.0 or public domain |"
    return [own, *(f"| `{archive.file}` | {archive.licence} |" for archive in ARCHIVES)]


def _curve(path: Path) -> str:
    curve, part = pd.read_csv(path), path.stem.removeprefix("loss-")
    last = curve.iloc[-1]
    return f"| {part} | {last.step:.0f} | {curve.seconds.sum() / 60:.0f} | {last.loss:.4f} |"


def _row(name: str, value: float) -> str:
    if "psnr" in name:
        return f"| {name} | {value:.1f} dB |"
    whole = "lpips" in name or name.startswith("IoU")
    return f"| {name} | {value:.2f} |" if whole else f"| {name} | {value:.1%} |"


_CARD = """\
---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-image
---

# Scenes: a small latent diffusion model

A `StableDiffusionPipeline` of ordinary diffusers parts: 128 px images, 16 × 16 × 16 latents,
Stable Diffusion's noise schedule, ε-prediction.  It draws one or two things on a coloured floor,
and exists so that diffusion inversion can be studied offline on any laptop.

**Prompts** follow one pattern, *a large penguin left of a small blue matte cube on a teal floor*.
A thing is a shape with size, colour and material, or has a name and a size; size and material may
be left out, and so may the second thing.  It knows these words: {words};
these names: {names}; and these faces: {faces}.

**Data.** Scenes were rendered by `erddci.scenes` from seeds of `TRAIN_SEEDS`; those that judge
come from `HELD_OUT_SEEDS`, and one in eight pairs with a named thing was never shown together.
Named things are Microsoft's Fluent emoji (MIT), see NOTICE.md beside their sheet.  The VAE also
saw photographs:

| source | licence |
|---|---|
{photographs}

The test photographs were left out: {held_out}.

**Training** on one CPU thread in bfloat16, with Muon for kernels and matrices and AdamW for the
rest, the learning rate falling to nothing, and an exponential moving average.  The VAE: root mean
square error, LPIPS (AlexNet) with weight 0.1 and KL divergence with weight 5e-5.  The denoiser
began with the weights of the model of shapes alone, and its words were told where to look: −log of
the share of a word's cross-attention inside the mask of what it speaks of, with weight 0.01.  The
renderer knows the masks.  Real checkpoints get such maps from scale, this one from masks.
Reproduce it with `python -m erddci.training.world`; the loss curves are beside this card.

| part | steps | minutes | last loss |
|---|---|---|---|
{training}

**Measures** on {scenes} held-out scenes.  Prompt following is the share of what a prompt implies
that the classifier reads back from a sample in 50 steps.  A word points right if the peak of its
map, the mean over ten noise levels of the true image, lies in its thing.

| measure | value |
|---|---|
{rows}

**Limits.** Photographs come back from the VAE softened; the denoiser cannot draw them.
Licence: Apache-2.0, the pictures of named things MIT.
"""
