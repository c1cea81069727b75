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

from erddci.controls import Blend, control_for
from erddci.editing import Edit, edit
from erddci.experiments.measures import TRUTH, edit_rows, measures, start
from erddci.guidance import DYNAMIC, Dynamic
from erddci.images import Picture, open_image
from erddci.inversion import climb, invert, reconstruct
from erddci.model import StableDiffusion
from erddci.prompts import words_of
from erddci.scenes.examples import Example
from erddci.trajectory import Trajectory


def edit_one(
    model: StableDiffusion,
    picture: Picture,
    source: str,
    target: str,
    method: str = "dual-chain",
    control: str = "refine",
    steps: int = 50,
    guidance_scale: float = 7.5,
    strength: float = 1.0,
    dynamic: Dynamic | None = DYNAMIC,
    blend: bool = False,
) -> tuple[dict[str, float], Image.Image]:
    """Edit one picture: measures of the source's way back beside it, and the edited picture.

    Args:
        source, target: what the picture shows, and what it is to show.
        blend: whether only what the changed words look at may differ from the source.
    """
    x, image, round_trip = start(model, picture)
    before, after = (
        model.condition(prompt).at(guidance_scale, dynamic) for prompt in (source, target)
    )
    prompts = [source], [target]
    steering = control_for(control, model.tokenizer, *prompts)
    local = Blend.of_changes(model.tokenizer, *prompts) if blend else None
    path = invert(model, x, climb(before, method), method, steps)
    found = edit(model, path, after, steering, blend=local, strength=strength)
    kept, changed = (model.decode(e.image)[0] for e in (source_back(model, found), found))
    row = measures(kept, image, round_trip) | {"rows up": path.rows, "rows back": found.rows}
    return row, open_image(changed, model.size)


def source_back(model: StableDiffusion, found: Edit) -> Trajectory:
    """The source's way back beside an edit, walked now if the edit could do without it."""
    if found.taps or found.source.method == "dual-chain":
        return found.source
    return reconstruct(model, found.source)


def climbed(
    model: StableDiffusion,
    scenes: Sequence[Example],
    method: str = "dual-chain",
    guidance_scale: float = 7.5,
    steps: int = 20,
    dynamic: Dynamic | None = None,
) -> Trajectory:
    """Invert scenes under their source prompts, as a method is meant to be for edits at w."""
    source = model.condition([scene.source for scene in scenes]).at(guidance_scale, dynamic)
    x = model.encode([scene.image for scene in scenes])
    return invert(model, x, climb(source, method), method, steps)


def edited(
    model: StableDiffusion,
    scenes: Sequence[Example],
    path: Trajectory,
    guidance_scale: float = 7.5,
    dynamic: Dynamic | None = None,
    control: str = "none",
    cross: float = 0.4,
    itself: float = 0.2,
) -> np.ndarray:
    """Edit scenes along their path of `climbed`: decoded pictures [scenes, height, width, 3].

    Args:
        control: one of `erddci.attention.CONTROLS`.
        cross, itself: as of `erddci.attention.control_for`.
    """
    sources, targets = ([getattr(s, end) for s in scenes] for end in ("source", "target"))
    target = model.condition(targets).at(guidance_scale, dynamic)
    steering = control_for(control, model.tokenizer, sources, targets, cross, itself)
    return model.decode(edit(model, path, target, steering).image)


def edit_gallery(
    model: StableDiffusion,
    scenes: Sequence[Example],
    ways: Mapping[str, tuple[str, str, Dynamic | None]],
    guidance_scale: float = 7.5,
    steps: int = 20,
) -> tuple[dict[str, np.ndarray], pd.DataFrame]:
    """Edit scenes in several ways, beside what each edit should look like.

    Args:
        ways: method, attention control and dynamic control by name.

    Returns:
        pictures [scenes, height, width, 3] by way, the first named "input" and the last `TRUTH`,
        and of all but the last one row per scene and way with the columns of `edit_measures`.
    """
    images = {"input": np.stack([model.read(scene.image) for scene in scenes])}
    for name, (method, control, dynamic) in tqdm(ways.items(), "ways to edit", delay=1):
        path = climbed(model, scenes, method, guidance_scale, steps, dynamic)
        images[name] = edited(model, scenes, path, guidance_scale, dynamic, control)
    truths = model.decode(model.encode([scene.truth for scene in scenes]))
    rows = [
        {"way": name} | r for name, each in images.items() for r in edit_rows(scenes, each, truths)
    ]
    return images | {TRUTH: truths}, pd.DataFrame(rows)


def injection_sweep(
    model: StableDiffusion,
    scenes: Sequence[Example],
    shares: Sequence[float] = (0, 0.2, 0.4, 0.6, 0.8),
    guidance_scale: float = 7.5,
    steps: int = 20,
    dynamic: Dynamic | None = DYNAMIC,
    kind: str = "refine",
) -> tuple[dict[tuple[float, float], np.ndarray], pd.DataFrame]:
    """Edit scenes along the dual chain by how much attention is taken from the source.

    Returns:
        pictures [scenes, height, width, 3] by the shares of the walk for which cross-attention and
        self-attention are the source's, and one row per scene and pair of shares with "cross",
        "itself" and the columns of `edit_measures`.
    """
    path = climbed(model, scenes, "dual-chain", guidance_scale, steps, dynamic)
    truths = model.decode(model.encode([scene.truth for scene in scenes]))
    images, rows = {}, []
    for cross, itself in tqdm(list(product(shares, repeat=2)), "shares", delay=1):
        chosen = kind if cross or itself else "none"
        found = edited(model, scenes, path, guidance_scale, dynamic, chosen, cross, itself)
        images[cross, itself] = found
        given = {"cross": cross, "itself": itself}
        rows += [given | row for row in edit_rows(scenes, found, truths)]
    return images, pd.DataFrame(rows)


def word_maps(
    tokenizer: CLIPTokenizer, prompt: str, maps: Tensor, chosen: Iterable[str] | None = None
) -> list[tuple[str, np.ndarray]]:
    """Where the words of a prompt look, in order: the sum of the maps of each one's tokens.

    Args:
        maps: one map a token [1, L, H, W], from `erddci.attention.Taps.maps`.
        chosen: words to keep; all by default.
    """
    found, kept = words_of(tokenizer, prompt).values(), None if chosen is None else set(chosen)
    return [
        (word, maps[0, places].sum(0).cpu().numpy())
        for word, places in found
        if kept is None or word in kept
    ]
