"""Edits beside their true answers, and what they depend on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm
from transformers import CLIPTokenizer

from erddci.controls import LocalBlend, make_control
from erddci.editing import edit, reconstruct_source
from erddci.experiments.measures import TRUTH, edit_rows, measures, start
from erddci.guidance import DEFAULT_SCHEDULE, GuidanceSchedule
from erddci.images import ImageInput, open_image
from erddci.inversion import invert
from erddci.model import StableDiffusion
from erddci.prompts import words_of
from erddci.scenes.examples import Example
from erddci.trajectory import Trajectory


def edit_one(
    model: StableDiffusion,
    image: ImageInput,
    source: str,
    target: str,
    method: str = "dual-chain",
    control: str = "refine",
    steps: int = 50,
    guidance_scale: float = 7.5,
    strength: float = 1.0,
    schedule: GuidanceSchedule | None = DEFAULT_SCHEDULE,
    blend: bool = False,
) -> tuple[dict[str, float], Image.Image]:
    """Edit one image: measures of the source's way back beside it, and the edited image.

    Args:
        source, target: what the image shows, and what it is to show.
        blend: whether only what the changed words look at may differ from the source.
    """
    x, image, round_trip = start(model, image)
    before, after = (
        model.condition(prompt).with_guidance(guidance_scale, schedule)
        for prompt in (source, target)
    )
    prompts = [source], [target]
    steering = make_control(control, model.tokenizer, *prompts)
    local = LocalBlend.from_prompts(model.tokenizer, *prompts) if blend else None
    path = invert(model, x, before, method, steps)
    found = edit(model, path.with_strength(strength), after, steering, blend=local)
    kept, changed = (model.decode(e.x0)[0] for e in (reconstruct_source(model, found), found))
    row = measures(kept, image, round_trip) | {
        "nfe_inversion": path.nfe,
        "nfe_sampling": found.nfe,
    }
    return row, open_image(changed, model.resolution)


def climbed(
    model: StableDiffusion,
    scenes: Sequence[Example],
    method: str = "dual-chain",
    guidance_scale: float = 7.5,
    steps: int = 20,
    schedule: GuidanceSchedule | None = None,
) -> Trajectory:
    """Invert scenes under their source prompts, as a method is meant to be for edits at w."""
    source = model.condition([scene.source for scene in scenes]).with_guidance(
        guidance_scale, schedule
    )
    x = model.encode([scene.image for scene in scenes])
    return invert(model, x, source, method, steps)


def edited(
    model: StableDiffusion,
    scenes: Sequence[Example],
    path: Trajectory,
    guidance_scale: float = 7.5,
    schedule: GuidanceSchedule | None = None,
    control: str = "none",
    cross_until: float = 0.4,
    self_until: float = 0.2,
) -> np.ndarray:
    """Edit scenes along their path of `climbed`: decoded images [scenes, height, width, 3].

    Args:
        control: one of `erddci.attention.CONTROLS`.
        cross_until, self_until: as of `erddci.attention.make_control`.
    """
    sources, targets = ([getattr(s, end) for s in scenes] for end in ("source", "target"))
    target = model.condition(targets).with_guidance(guidance_scale, schedule)
    steering = make_control(control, model.tokenizer, sources, targets, cross_until, self_until)
    return model.decode(edit(model, path, target, steering).x0)


def edit_gallery(
    model: StableDiffusion,
    scenes: Sequence[Example],
    ways: Mapping[str, tuple[str, str, GuidanceSchedule | None]],
    guidance_scale: float = 7.5,
    steps: int = 20,
) -> tuple[dict[str, np.ndarray], pd.DataFrame]:
    """Edit scenes in several ways, beside what each edit should look like.

    Args:
        ways: method, attention control and dynamic control by name.

    Returns:
        images [scenes, height, width, 3] by way, the first named "input" and the last `TRUTH`,
        and of all but the last one row per scene and way with the columns of `edit_measures`.
    """
    images = {"input": np.stack([model.to_array(scene.image) for scene in scenes])}
    for name, (method, control, schedule) in tqdm(ways.items(), "ways to edit", delay=1):
        path = climbed(model, scenes, method, guidance_scale, steps, schedule)
        images[name] = edited(model, scenes, path, guidance_scale, schedule, control)
    truths = model.decode(model.encode([scene.truth for scene in scenes]))
    rows = [
        {"setting": name} | r
        for name, each in images.items()
        for r in edit_rows(scenes, each, truths)
    ]
    return images | {TRUTH: truths}, pd.DataFrame(rows)


def injection_sweep(
    model: StableDiffusion,
    scenes: Sequence[Example],
    shares: Sequence[float] = (0, 0.2, 0.4, 0.6, 0.8),
    guidance_scale: float = 7.5,
    steps: int = 20,
    schedule: GuidanceSchedule | None = DEFAULT_SCHEDULE,
    kind: str = "refine",
) -> tuple[dict[tuple[float, float], np.ndarray], pd.DataFrame]:
    """Edit scenes along the dual chain by how much attention is taken from the source.

    Returns:
        images [scenes, height, width, 3] by the shares of the walk for which cross-attention and
        self-attention are the source's, and one row per scene and pair of shares with "cross",
        "self_until" and the columns of `edit_measures`.
    """
    path = climbed(model, scenes, "dual-chain", guidance_scale, steps, schedule)
    truths = model.decode(model.encode([scene.truth for scene in scenes]))
    images, rows = {}, []
    for cross_until, self_until in tqdm(list(product(shares, repeat=2)), "shares", delay=1):
        chosen = kind if cross_until or self_until else "none"
        found = edited(
            model, scenes, path, guidance_scale, schedule, chosen, cross_until, self_until
        )
        images[cross_until, self_until] = found
        given = {"cross_until": cross_until, "self_until": self_until}
        rows += [given | row for row in edit_rows(scenes, found, truths)]
    return images, pd.DataFrame(rows)


def word_maps(
    tokenizer: CLIPTokenizer, prompt: str, maps: Tensor, chosen: Iterable[str] | None = None
) -> list[tuple[str, np.ndarray]]:
    """Where the words of a prompt look, in order: the sum of the maps of each one's tokens.

    Args:
        maps: one map a token [1, L, H, W], from `erddci.attention.AttentionState.maps`.
        chosen: words to keep; all by default.
    """
    found, kept = words_of(tokenizer, prompt).values(), None if chosen is None else set(chosen)
    return [
        (word, maps[0, places].sum(0).cpu().numpy())
        for word, places in found
        if kept is None or word in kept
    ]
