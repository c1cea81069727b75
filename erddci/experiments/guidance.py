"""What guidance does to reconstructions and edits, and what dynamic control undoes of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product

import pandas as pd
from tqdm.auto import tqdm

from erddci.editing import edit
from erddci.experiments.measures import Pictures, edit_rows, latent_errors, measures
from erddci.experiments.timing import inversion, now
from erddci.guidance import DYNAMIC, Dynamic
from erddci.inversion import climb, reconstruct
from erddci.model import StableDiffusion
from erddci.scenes.examples import Example

# Ways to walk back at w.  Dynamic forms are the dual chain's, and our own formulation: the
# formula of the paper's dynamic control was not available to us.
FORMS: dict[str, Dynamic | None] = {
    "dual chain": None,
    "D1 guidance near the image": Dynamic(window=(0, 400)),
    "D1 guidance fading": Dynamic(fade=4),
    "D2 mirrored": Dynamic(mirrored=True),
    "D3 anchored": Dynamic(anchor=0.2),
    "D3 clipped": Dynamic(clip=0.05),
    "D1 + D2, fading to the image": Dynamic(fade=4, mirrored=True),
    "D1 + D2, the noisy end": Dynamic(window=(900, 1000), mirrored=True),
    "D1 + D2, the default": DYNAMIC,
}
OTHERS = {
    "DDIM": "ddim",
    "null-text": "null-text",
    "negative-prompt": "negative-prompt",
    "direct": "direct",
}


def guidance_sweep(
    model: StableDiffusion,
    pictures: Pictures,
    scales: Iterable[float] = (1, 2, 3, 5, 7.5, 10, 15),
    steps: int = 20,
    ways: Iterable[str] = (*FORMS, *OTHERS),
) -> pd.DataFrame:
    """How well pictures come back by guidance scale, in ways of `FORMS` and `OTHERS`.

    All pictures are walked together, and inverted once for all scales if w has no say on the way
    up.

    Returns:
        one row per picture, way and scale: measures against both references, latent errors,
        network rows and seconds of one picture up and back.
    """
    x = model.encode([picture for picture, _ in pictures])
    images, round_trips = [model.read(picture) for picture, _ in pictures], model.decode(x)
    prompts, kept, rows = [prompt for _, prompt in pictures], {}, []
    for w in tqdm(list(scales), "guidance scales", delay=1):
        for way in ways:
            condition = model.condition(prompts).at(w, FORMS.get(way))
            method = OTHERS.get(way, "dual-chain")
            up = inversion(model, x, climb(condition, method), method, steps, kept)
            start = now(model)
            back = reconstruct(model, up.path, condition)
            seconds, decoded = now(model) - start, model.decode(back.image)
            cost = {"rows up": up.path.rows, "rows back": back.rows}
            cost |= {"seconds up": up.seconds / len(x), "seconds back": seconds / len(x)}
            for number, (image, round_trip) in enumerate(zip(images, round_trips, strict=True)):
                found = measures(decoded[number], image, round_trip)
                found |= latent_errors(up.path, back, number)[0] | cost
                rows.append({"picture": number, "way": way, "guidance_scale": w} | found)
    return pd.DataFrame(rows).drop(columns=["node", "t"])


def edit_sweep(
    model: StableDiffusion,
    scenes: Sequence[Example],
    scales: Iterable[float] = (1, 2, 3, 5, 7.5, 10, 15),
    steps: int = 10,
    ways: Iterable[str] = tuple(FORMS),
) -> pd.DataFrame:
    """How near edits come to their true answers by guidance scale, without attention control.

    Returns:
        one row per scene, way and scale: the columns of `edit_measures`, and network rows.
    """
    x, ends = model.encode([scene.image for scene in scenes]), ("source", "target")
    truths = model.decode(model.encode([scene.truth for scene in scenes]))
    source, target = (model.condition([getattr(s, end) for s in scenes]) for end in ends)
    kept, rows = {}, []
    for w, way in tqdm(list(product(scales, ways)), "scales and ways", delay=1):
        dynamic, method = FORMS.get(way), OTHERS.get(way, "dual-chain")
        told = climb(source.at(w, dynamic), method)
        path = inversion(model, x, told, method, steps, kept).path
        found = edit(model, path, target.at(w, dynamic))
        row = {"way": way, "guidance_scale": w, "rows up": path.rows, "rows back": found.rows}
        rows += [row | each for each in edit_rows(scenes, model.decode(found.image), truths)]
    return pd.DataFrame(rows)
