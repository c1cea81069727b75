"""Pictures to work on: held-out scenes with a true edit, and photographs that need no download."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import skimage.data
from PIL import Image

from erddci.scenes.render import render
from erddci.scenes.scene import HELD_OUT_SEEDS, Scene, Thing, add, caption, change, draw, remove


@dataclass(frozen=True)
class Example:
    """A picture, what to change in it, and what the change truly looks like.

    Args:
        name: what is changed.
        image, truth: the picture before and after a perfect edit.
        source, target: their prompts.
        masks: where the things are in `image`, [things, 128, 128] bool.
        truth_masks: where they are in `truth`.
    """

    name: str
    image: Image.Image
    source: str
    target: str
    truth: Image.Image
    masks: np.ndarray
    truth_masks: np.ndarray
    scene: Scene
    truth_scene: Scene


def examples() -> list[Example]:
    """Eight held-out scenes, one for each kind of edit, the same every time."""
    added = Thing("large", "blue", "matte", "cube", x=0.85, z=0.1, turn=0.6)
    return [
        _example("colour", 13, lambda s: change(s, 0, colour="red")),
        _example("shape", 16, lambda s: change(s, 0, shape="sphere")),
        _example("material", 17, lambda s: change(s, 1, material="shiny")),
        _example("size", 35, lambda s: change(s, 0, size="large")),
        _example("floor", 11, lambda s: change(s, floor="navy")),
        _example("replace", 33, lambda s: change(s, 1, colour="green", shape="sphere")),
        _example("remove", 14, lambda s: remove(s, 1)),
        _example("add", 5, lambda s: add(s, added)),
    ]


def _example(name: str, index: int, edit: Callable[[Scene], Scene]) -> Example:
    before = draw(HELD_OUT_SEEDS[index])
    after = edit(before)
    first, second = render(before), render(after)
    return Example(
        name,
        Image.fromarray(first.image),
        caption(before),
        caption(after),
        Image.fromarray(second.image),
        first.masks,
        second.masks,
        before,
        after,
    )


def held_out(count: int, start: int = 100) -> list[tuple[Image.Image, str]]:
    """Pictures and prompts of `count` held-out scenes, for measurements.

    Raises:
        ValueError: more scenes than were held out.
    """
    if not 0 <= start <= start + count <= len(HELD_OUT_SEEDS):
        raise ValueError(f"expected seeds within {len(HELD_OUT_SEEDS)}, got {start} + {count}")
    scenes = [draw(seed) for seed in HELD_OUT_SEEDS[start : start + count]]
    return [(Image.fromarray(render(scene).image), caption(scene)) for scene in scenes]


def photographs() -> dict[str, Image.Image]:
    """Photographs that scikit-image ships: real pictures without a download."""
    names = ("astronaut", "chelsea", "coffee", "rocket")
    return {name: Image.fromarray(getattr(skimage.data, name)()) for name in names}
