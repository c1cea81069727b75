"""What guidance does to reconstructions and edits, and what dynamic control undoes of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product

import pandas as pd
from tqdm.auto import tqdm

from erddci.editing import edit
from erddci.experiments.measures import CaptionedImages, edit_rows, latent_errors, measures
from erddci.experiments.timing import cached_inversion, synchronized_time
from erddci.guidance import DEFAULT_SCHEDULE, GuidanceSchedule
from erddci.inversion import reconstruct
from erddci.model import StableDiffusion
from erddci.scenes.examples import Example

# Ways to walk back at w.  Dynamic forms are the dual chain's, and our own formulation: the
# formula of the paper's dynamic control was not available to us.
FORMS: dict[str, GuidanceSchedule | None] = {
    "dual chain": None,
    "D1 interval [0, 400]": GuidanceSchedule(interval=(0, 400)),
    "D1 power 4": GuidanceSchedule(power=4),
    "D2 guided inversion": GuidanceSchedule(guide_inversion=True),
    "D3 anchored": GuidanceSchedule(anchor=0.2),
    "D3 clipped": GuidanceSchedule(clip=0.05),
    "D1 + D2, power 4": GuidanceSchedule(power=4, guide_inversion=True),
    "D1 + D2, interval [900, 1000]": GuidanceSchedule(interval=(900, 1000), guide_inversion=True),
    "D1 + D2, the default": DEFAULT_SCHEDULE,
}
OTHERS = {
    "DDIM": "ddim",
    "null-text": "null-text",
    "negative-prompt": "negative-prompt",
    "direct": "direct",
}


def guidance_sweep(
    model: StableDiffusion,
    images: CaptionedImages,
    scales: Iterable[float] = (1, 2, 3, 5, 7.5, 10, 15),
    steps: int = 20,
    ways: Iterable[str] = (*FORMS, *OTHERS),
) -> pd.DataFrame:
    """How well images come back by guidance scale, in ways of `FORMS` and `OTHERS`.

    All images are walked together, and inverted once for all scales if w has no say on the way
    up.

    Returns:
        one row per image, way and scale: measures against both references, latent errors,
        network rows and seconds of one image up and back.
    """
    x = model.encode([image for image, _ in images])
    inputs, round_trips = [model.to_array(image) for image, _ in images], model.decode(x)
    prompts, kept, rows = [prompt for _, prompt in images], {}, []
    for w in tqdm(list(scales), "guidance scales", delay=1):
        for way in ways:
            condition = model.condition(prompts).with_guidance(w, FORMS.get(way))
            method = OTHERS.get(way, "dual-chain")
            up = cached_inversion(model, x, condition, method, steps, kept)
            start = synchronized_time(model)
            back = reconstruct(model, up.path, condition)
            seconds, decoded = synchronized_time(model) - start, model.decode(back.x0)
            cost = {"nfe_inversion": up.path.nfe, "nfe_sampling": back.nfe}
            cost |= {
                "seconds_inversion": up.seconds / len(x),
                "seconds_sampling": seconds / len(x),
            }
            for number, (image, round_trip) in enumerate(zip(inputs, round_trips, strict=True)):
                found = measures(decoded[number], image, round_trip)
                found |= latent_errors(up.path, back, number)[0] | cost
                rows.append({"image": number, "setting": way, "guidance_scale": w} | found)
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
        schedule, method = FORMS.get(way), OTHERS.get(way, "dual-chain")
        told = source.with_guidance(w, schedule)
        path = cached_inversion(model, x, told, method, steps, kept).path
        found = edit(model, path, target.with_guidance(w, schedule))
        row = {
            "setting": way,
            "guidance_scale": w,
            "nfe_inversion": path.nfe,
            "nfe_sampling": found.nfe,
        }
        rows += [row | each for each in edit_rows(scenes, model.decode(found.x0), truths)]
    return pd.DataFrame(rows)
