"""What experiments measure: images against references, latents against their path."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from PIL import Image
from torch import Tensor

from erddci.images import ImageInput
from erddci.metrics import compare
from erddci.model import StableDiffusion
from erddci.scenes.classifier import attributes, load_classifier
from erddci.scenes.examples import Example
from erddci.trajectory import Trajectory

CaptionedImages = Sequence[tuple[Image.Image, str]]


# What an edit should look like, as well as the VAE can say it.
TRUTH = "true answer (VAE round trip)"


def measures(decoded: np.ndarray, image: np.ndarray, round_trip: np.ndarray) -> dict[str, float]:
    """Measures of an image against both references: "psnr_vae", "psnr_input" and so on."""
    vae, given = compare(round_trip, decoded), compare(image, decoded)
    return {f"{k}_vae": v for k, v in vae.items()} | {f"{k}_input": v for k, v in given.items()}


def latent_errors(
    path: Trajectory, back: Trajectory, number: int | None = None
) -> list[dict[str, float]]:
    """RMS and largest latent error at every node, of one sample or over all."""
    rms = (path.xs - back.xs).square().flatten(2).mean(2)  # [N + 1, B]
    largest, of = (
        path.latent_error(back),
        slice(number, number + 1 if number is not None else None),
    )
    rms, largest = rms[:, of].mean(1).sqrt().tolist(), largest[:, of].amax(1).tolist()
    return [
        {"node": node, "t": t, "latent_rms": rms[node], "latent_max": largest[node]}
        for node, t in enumerate(path.grid.t.tolist())
    ]


def start(model: StableDiffusion, image: ImageInput) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """An image's latents, and as floats the image itself and its VAE round trip."""
    x = model.encode(image)
    return x, model.to_array(image), model.decode(x)[0]


def vae_floor(model: StableDiffusion, images: CaptionedImages) -> pd.DataFrame:
    """The VAE round trip of images against the images: no method can do better than this."""
    rows = []
    for number, (image, _) in enumerate(images):
        _, image, round_trip = start(model, image)
        rows.append({"image": number} | compare(image, round_trip))
    return pd.DataFrame(rows)


def edit_rows(scenes: Sequence[Example], images: np.ndarray, truths: np.ndarray) -> list[dict]:
    """What `edit_measures` says of each scene's edit, or what is wrong with it in "problem"."""
    rows = []
    for each in zip(scenes, images, truths, load_classifier().classify(images), strict=True):
        row: dict = {"image": len(rows)}
        try:
            row |= edit_measures(*each)
        except ValueError as error:  # The walk left the numbers that an image can have.
            row["problem"] = str(error)
        rows.append(row)
    return rows


def edit_measures(
    example: Example, image: np.ndarray, truth: np.ndarray, said: dict[str, str]
) -> dict[str, float]:
    """How near an edit is to its true answer, and whether it did what was asked and nothing else.

    Args:
        image, truth: the edit, and the VAE round trip of the true answer [H, W, 3] in [0, 1].
        said: what the scene reader says of `image`.

    Returns:
        "psnr_truth" and so on, against `truth`; "background", PSNR in dB to `truth` where neither
        image has a thing; "edit_accuracy" and "preservation", the shares of what should differ from the source,
        and of all else, that reads as in the true answer.
    """
    before, after = attributes(example.scene), attributes(example.truth_scene)
    right = {question: said.get(question) == answer for question, answer in after.items()}
    asked = [right[question] for question in after if before.get(question) != after[question]]
    kept = [right[question] for question in after if before.get(question) == after[question]]
    bare = ~np.concatenate([example.masks, example.truth_masks]).any(0)
    found = {f"{name}_truth": value for name, value in compare(truth, image).items()}
    error = np.square(image[bare] - truth[bare], dtype=np.float64).mean()
    background = float(-10 * np.log10(error)) if error else np.inf
    return found | {
        "background": background,
        "edit_accuracy": float(np.mean(asked)),
        "preservation": float(np.mean(kept)) if kept else np.nan,
    }
