"""How well images come back from noise."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from erddci.experiments.measures import CaptionedImages, latent_errors, measures, start
from erddci.images import ImageInput, open_image
from erddci.inversion import METHODS, invert, reconstruct
from erddci.model import StableDiffusion


def error_accumulation(
    model: StableDiffusion,
    images: CaptionedImages,
    scales: Iterable[float] = (1, 3, 7.5),
    steps: int = 50,
) -> pd.DataFrame:
    """Error of DDIM inversion at every node of the way back, by guidance scale.

    An image is inverted either at w = 1, as is usual, or at the scale of the way back.

    Returns:
        one row per image, scale, inversion ("unguided" or "same scale") and node: the RMS and
        the largest latent error there, and at node 0 the measures of the image.
    """
    x = model.encode([image for image, _ in images])
    inputs, round_trips = [model.to_array(image) for image, _ in images], model.decode(x)
    prompts, rows = [prompt for _, prompt in images], []
    unguided = invert(model, x, model.condition(prompts), "ddim", steps)
    for w in tqdm(list(scales), "guidance scales", delay=1):
        guided = model.condition(prompts, guidance_scale=w)
        # At w = 1 both are one walk.
        same = unguided if w == 1 else invert(model, x, guided, "ddim", steps, guided=True)
        for name, path in {"unguided": unguided, "same scale": same}.items():
            back = reconstruct(model, path, guided)
            decoded = model.decode(back.x0)
            for number, (image, round_trip) in enumerate(zip(inputs, round_trips, strict=True)):
                walk = {"image": number, "guidance_scale": w, "inverted": name}
                at_end = measures(decoded[number], image, round_trip)
                for node in latent_errors(path, back, number):
                    rows.append(walk | node | (at_end if node["node"] == 0 else {}))
    return pd.DataFrame(rows)


def way_back(
    model: StableDiffusion,
    image: Image.Image,
    prompt: str,
    scales: Iterable[float] = (1, 3, 7.5),
    nodes: Sequence[int] = (50, 40, 30, 20, 10, 1),
    method: str = "ddim",
) -> dict[float, np.ndarray]:
    """What the way back aims at from some nodes, decoded, by guidance scale.

    The image is inverted at w = 1 in as many steps as the highest node; the last of `nodes`
    should be 1, whose aim is the reconstruction.

    Returns:
        images [nodes, height, width, 3] by guidance scale.
    """
    x, condition = model.encode(image), model.condition(prompt)
    path = invert(model, x, condition, method, max(nodes))
    walks = {w: reconstruct(model, path, condition.with_guidance(w)) for w in scales}
    chosen = [node - 1 for node in nodes]
    return {w: model.decode(walk.pred_x0[chosen, 0]) for w, walk in walks.items()}


def reconstruction(
    model: StableDiffusion,
    images: CaptionedImages,
    methods: Iterable[str] = ("ddim", "dual-chain"),
    scales: Iterable[float] = (1,),
    steps: int = 50,
    **options: object,
) -> pd.DataFrame:
    """How well methods bring images back, inverted at w = 1 and walked back at each scale.

    Returns:
        one row per image, method and scale: measures against both references, latent errors,
        network rows up and back.
    """
    rows = []
    for number, (image, prompt) in enumerate(tqdm(images, "images", delay=1)):
        x, image, round_trip = start(model, image)
        condition = model.condition(prompt)
        for method in methods:
            path = invert(model, x, condition, method, steps, **options)
            for w in scales:
                back = reconstruct(model, path, condition.with_guidance(w))
                rows.append(
                    {"image": number, "method": method, "guidance_scale": w, "steps": steps}
                    | measures(model.decode(back.x0)[0], image, round_trip)
                    | latent_errors(path, back)[0]
                    | {"nfe_inversion": path.nfe, "nfe_sampling": back.nfe}
                )
    return pd.DataFrame(rows).drop(columns=["node", "t"])


def reconstructions(
    model: StableDiffusion,
    image: ImageInput,
    prompt: str,
    methods: Iterable[str] = tuple(METHODS),
    guidance_scale: float = 1.0,
    steps: int = 50,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """One image by every method, each inverted at the guidance scale that its paper asks for.

    Returns:
        the VAE round trip [height, width, 3], and the reconstruction of each method.
    """
    x, _, round_trip = start(model, image)
    condition, found = model.condition(prompt, guidance_scale=guidance_scale), {}
    for method in tqdm(list(methods), "methods", delay=1):
        path = invert(model, x, condition, method, steps)
        back = reconstruct(model, path, condition)
        found[method] = model.decode(back.x0)[0]
    return round_trip, found


def reconstruct_one(
    model: StableDiffusion,
    image: ImageInput,
    prompt: str = "",
    method: str = "dual-chain",
    steps: int = 50,
    guidance_scale: float = 1.0,
) -> tuple[dict[str, float], Image.Image]:
    """Bring one image back: the row that `reconstruction` would give it, and the result."""
    x, image, round_trip = start(model, image)
    condition = model.condition(prompt, guidance_scale=guidance_scale)
    path = invert(model, x, condition, method, steps)
    back = reconstruct(model, path)
    decoded = model.decode(back.x0)[0]
    row = measures(decoded, image, round_trip) | latent_errors(path, back)[0]
    row |= {"nfe_inversion": path.nfe, "nfe_sampling": back.nfe}
    return row, open_image(decoded, model.resolution)
