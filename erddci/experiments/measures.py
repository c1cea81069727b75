"""What experiments measure: images against references, latents against their trajectory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from PIL import Image
from torch import Tensor

from erddci.images import ImageInput, open_image
from erddci.metrics import MEASURES, compare
from erddci.model import StableDiffusion
from erddci.scenes.classifier import attributes, load_classifier
from erddci.scenes.examples import Example
from erddci.trajectory import Trajectory

CaptionedImages = Sequence[tuple[Image.Image, str]]

# Columns of `image_measures` and of `edit_measures`.
IMAGE_MEASURES = tuple(
    f"{name}_{reference}" for reference in ("vae", "input") for name in MEASURES
)
EDIT_MEASURES = (
    *(f"{name}_truth" for name in MEASURES),
    "background",
    "edit_accuracy",
    "preservation",
)

# The name of what an edit should look like, as far as the VAE can say it.
TRUTH = "true answer (VAE round trip)"


@dataclass(frozen=True)
class Inputs:
    """Images as the model sees them [B, height, width, 3], their latents, and VAE round trips."""

    images: np.ndarray
    x: Tensor
    round_trips: np.ndarray


def read_inputs(model: StableDiffusion, images: Sequence[ImageInput]) -> Inputs:
    """Read images once; what has to be converted is said once."""
    opened: list[ImageInput] = [open_image(image, model.resolution) for image in images]
    x = model.encode(opened)
    return Inputs(np.stack([model.to_array(image) for image in opened]), x, model.decode(x))


def image_measures(
    decoded: np.ndarray, image: np.ndarray, round_trip: np.ndarray
) -> dict[str, float]:
    """Measures of an image against both references, under the names of `IMAGE_MEASURES`."""
    vae = {f"{name}_vae": value for name, value in compare(round_trip, decoded).items()}
    return vae | {f"{name}_input": value for name, value in compare(image, decoded).items()}


def latent_errors(
    path: Trajectory, back: Trajectory, number: int | None = None
) -> list[dict[str, float]]:
    """RMS and largest latent error at every node, of one sample or over all."""
    samples = slice(None) if number is None else slice(number, number + 1)
    squares = (path.xs - back.xs).square().flatten(2).mean(2)  # [N + 1, B]
    rms = squares[:, samples].mean(1).sqrt().tolist()
    largest = path.latent_error(back)[:, samples].amax(1).tolist()
    return [
        {"node": node, "t": t, "latent_rms": rms[node], "latent_max": largest[node]}
        for node, t in enumerate(path.grid.t.tolist())
    ]


def image_error(path: Trajectory, back: Trajectory, number: int | None = None) -> dict[str, float]:
    """RMS and largest latent error at the image, of one sample or over all."""
    at_image = latent_errors(path, back, number)[0]
    return {name: at_image[name] for name in ("latent_rms", "latent_max")}


def vae_floor(model: StableDiffusion, images: CaptionedImages) -> pd.DataFrame:
    """The VAE round trip of images against the images: no method can do better than this."""
    rows = []
    for number, (image, _) in enumerate(images):
        inputs = read_inputs(model, [image])
        rows.append({"image": number} | compare(inputs.images[0], inputs.round_trips[0]))
    return pd.DataFrame(rows)


def edit_rows(scenes: Sequence[Example], images: np.ndarray, truths: np.ndarray) -> list[dict]:
    """What `edit_measures` says of each scene's edit, or what is wrong with it in "problem"."""
    rows = []
    found = load_classifier().classify(images)
    for number, each in enumerate(zip(scenes, images, truths, found, strict=True)):
        row: dict = {"image": number}
        try:
            row |= edit_measures(*each)
        except ValueError as error:  # the result is not finite
            row["problem"] = str(error)
        rows.append(row)
    return rows


def edit_measures(
    example: Example, image: np.ndarray, truth: np.ndarray, classified: dict[str, str]
) -> dict[str, float]:
    """How near an edit is to its true answer, and which attributes of it are right.

    Args:
        image, truth: the edit, and the VAE round trip of the true answer [H, W, 3] in [0, 1].
        classified: the attributes that the classifier finds in `image`.

    Returns:
        "psnr_truth" and so on, against `truth`; "background", PSNR in dB to `truth` where neither
        image has an object; "edit_accuracy" and "preservation", the shares of the attributes that
        should change, and of all others, that are found as in the true answer.
    """
    before = attributes(example.scene)
    after = attributes(example.truth_scene)
    correct = {name: classified.get(name) == value for name, value in after.items()}
    changed = [correct[name] for name in after if before.get(name) != after[name]]
    unchanged = [correct[name] for name in after if before.get(name) == after[name]]
    row = {f"{name}_truth": value for name, value in compare(truth, image).items()}
    return row | {
        "background": _background_psnr(example, image, truth),
        "edit_accuracy": float(np.mean(changed)),
        "preservation": float(np.mean(unchanged)) if unchanged else np.nan,
    }


def _background_psnr(example: Example, image: np.ndarray, truth: np.ndarray) -> float:
    background = ~np.concatenate([example.masks, example.truth_masks]).any(0)
    error = np.square(image[background] - truth[background], dtype=np.float64).mean()
    return float(-10 * np.log10(error)) if error else np.inf
