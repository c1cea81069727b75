"""What experiments measure: pictures against references, latents against their path."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from PIL import Image
from torch import Tensor

from erddci.images import Picture
from erddci.metrics import compare
from erddci.model import StableDiffusion
from erddci.scenes.examples import Example
from erddci.scenes.reader import answers, load_reader
from erddci.trajectory import Trajectory

Pictures = Sequence[tuple[Image.Image, str]]


# What an edit should look like, as well as the VAE can say it.
TRUTH = "true answer (VAE round trip)"


def measures(decoded: np.ndarray, image: np.ndarray, round_trip: np.ndarray) -> dict[str, float]:
    """Measures of a picture against both references: "psnr vae", "psnr input" and so on."""
    vae, given = compare(round_trip, decoded), compare(image, decoded)
    return {f"{k} vae": v for k, v in vae.items()} | {f"{k} input": v for k, v in given.items()}


def latent_errors(
    path: Trajectory, back: Trajectory, number: int | None = None
) -> list[dict[str, float]]:
    """RMS and largest latent error at every node, of one sample or over all."""
    rms = (path.xs - back.xs).square().flatten(2).mean(2)  # [N + 1, B]
    largest, of = path.drift(back), slice(number, number + 1 if number is not None else None)
    rms, largest = rms[:, of].mean(1).sqrt().tolist(), largest[:, of].amax(1).tolist()
    return [
        {"node": node, "t": t, "latent rms": rms[node], "latent max": largest[node]}
        for node, t in enumerate(path.grid.t.tolist())
    ]


def start(model: StableDiffusion, picture: Picture) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """A picture's latents, and as floats the picture itself and its VAE round trip."""
    x = model.encode(picture)
    return x, model.read(picture), model.decode(x)[0]


def vae_floor(model: StableDiffusion, pictures: Pictures) -> pd.DataFrame:
    """The VAE round trip of pictures against the pictures: no method can do better than this."""
    rows = []
    for number, (picture, _) in enumerate(pictures):
        _, image, round_trip = start(model, picture)
        rows.append({"picture": number} | compare(image, round_trip))
    return pd.DataFrame(rows)


def edit_rows(scenes: Sequence[Example], images: np.ndarray, truths: np.ndarray) -> list[dict]:
    """What `edit_measures` says of each scene's edit, or what is wrong with it in "problem"."""
    rows = []
    for each in zip(scenes, images, truths, load_reader().read(images), strict=True):
        row: dict = {"picture": len(rows)}
        try:
            row |= edit_measures(*each)
        except ValueError as error:  # The walk left the numbers that a picture can have.
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
        "psnr truth" and so on, against `truth`; "background", PSNR in dB to `truth` where neither
        picture has a thing; "asked" and "kept", the shares of what should differ from the source,
        and of all else, that reads as in the true answer.
    """
    before, after = answers(example.scene), answers(example.truth_scene)
    right = {question: said.get(question) == answer for question, answer in after.items()}
    asked = [right[question] for question in after if before.get(question) != after[question]]
    kept = [right[question] for question in after if before.get(question) == after[question]]
    bare = ~np.concatenate([example.masks, example.truth_masks]).any(0)
    found = {f"{name} truth": value for name, value in compare(truth, image).items()}
    error = np.square(image[bare] - truth[bare], dtype=np.float64).mean()
    background = float(-10 * np.log10(error)) if error else np.inf
    return found | {
        "background": background,
        "asked": float(np.mean(asked)),
        "kept": float(np.mean(kept)) if kept else np.nan,
    }
