"""Images to work on: held-out scenes with a true edit, and photographs that need no download."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import skimage.data
from PIL import Image

from erddci.registry import unknown
from erddci.scenes.render import render
from erddci.scenes.scene import (
    ATTRIBUTES,
    FLOORS,
    HELD_OUT_SEEDS,
    Attribute,
    FirstSeed,
    Scene,
    SceneObject,
    add,
    caption,
    change,
    remove,
    sample_any,
    sample_named_scene,
    sample_object,
    sample_scene,
    swap,
)
from erddci.scenes.things import FACES, GROUPS, NamedObject

KINDS = ("colour", "shape", "material", "size", "floor", "replace", "remove", "add")
NAMED_KINDS = (*KINDS, "name", "expression", "swap")  # in scenes with named things


@dataclass(frozen=True)
class Example:
    """An image, what to change in it, and what the change truly looks like.

    Args:
        name: what is changed.
        image, truth: the image before and after a perfect edit.
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
    added = SceneObject("large", "blue", "matte", "cube", x=0.85, z=0.1, yaw=0.6)
    chosen: list[tuple[str, int, Callable[[Scene], Scene]]] = [
        ("colour", 13, lambda s: change(s, 0, colour="red")),
        ("shape", 16, lambda s: change(s, 0, shape="sphere")),
        ("material", 17, lambda s: change(s, 1, material="shiny")),
        ("size", 35, lambda s: change(s, 0, size="large")),
        ("floor", 11, lambda s: change(s, floor="navy")),
        ("replace", 33, lambda s: change(s, 1, colour="green", shape="sphere")),
        ("remove", 14, lambda s: remove(s, 1)),
        ("add", 5, lambda s: add(s, added)),
    ]
    drawn = [(kind, sample_scene(HELD_OUT_SEEDS[index]), edit) for kind, index, edit in chosen]
    return [_example(kind, before, edit(before)) for kind, before, edit in drawn]


def edits(
    count: int,
    kinds: tuple[str, ...] = KINDS,
    start: int = FirstSeed.EDITS,
    named: bool = False,
) -> list[Example]:
    """`count` held-out scenes, each with one edit drawn at random; the kinds take turns.

    An edit changes one attribute of one thing, or the floor; "replace" changes colour and shape
    of a thing, "remove" and "add" take one of two things away and put a second one in.  With
    named things there are three more: "name" makes of a thing another of its group, "expression"
    changes a face, "swap" lets two things change sides.

    Args:
        named: from the world in which half of the things have names.

    Raises:
        ValueError: an unknown kind, or more edits than were held out.
    """
    known, sample = (NAMED_KINDS, sample_named_scene) if named else (KINDS, sample_scene)
    if not kinds:
        raise ValueError(f"expected some of {', '.join(known)}, got no kinds of edits")
    for kind in kinds:
        if kind not in known:
            raise unknown(kind, known, "kind of edit")
    if not 0 <= start <= start + 20 * count <= len(HELD_OUT_SEEDS):
        raise ValueError(f"expected seeds within {len(HELD_OUT_SEEDS)}, got {start} + 20·{count}")
    found: list[Example] = []
    for seed in HELD_OUT_SEEDS[start:]:
        if len(found) == count:
            break
        before, kind = sample(seed), kinds[len(found) % len(kinds)]
        edit = _named_edit if named else _edit
        try:
            # A stream of its own: the scene's would tie what is changed to what was drawn.
            after = edit(before, kind, np.random.default_rng((seed, 2 if named else 1)))
        except ValueError:  # the edit does not fit this scene; it may fit the next
            continue
        found.append(_example(kind, before, after))
    return found


def _edit(scene: Scene, kind: str, rng: np.random.Generator) -> Scene:
    """The scene after an edit of a kind, whose free choices are drawn from `rng`.

    Raises:
        ValueError: a scene that the edit does not fit, or too full for what was drawn.
    """
    index = int(rng.integers(len(scene.objects)))

    def other(values: tuple[str, ...], than: str) -> str:
        return str(rng.choice([value for value in values if value != than]))

    def different(*names: Attribute) -> dict[str, str]:
        thing = scene.objects[index]
        if isinstance(thing, NamedObject) and names != ("size",):
            raise ValueError(f"expected a shape for an edit of its {kind}, got {thing}")
        return {name: other(ATTRIBUTES[name], getattr(thing, name)) for name in names}

    if kind == "floor":
        return change(scene, floor=other(tuple(FLOORS), scene.floor))
    if kind == "remove":
        return remove(scene, index)
    if kind == "add":
        return add(scene, sample_object(rng))
    names: tuple[Attribute, ...] = ("colour", "shape") if kind == "replace" else (kind,)  # type: ignore[assignment]
    return change(scene, index, **different(*names))


def _named_edit(scene: Scene, kind: str, rng: np.random.Generator) -> Scene:
    """The same in the world of named things."""
    index = int(rng.integers(len(scene.objects)))
    thing = scene.objects[index]
    if kind == "swap":
        return swap(scene)
    if kind == "add":
        return add(scene, sample_any(rng))
    if kind in ("name", "expression"):
        return change(scene, index, name=str(rng.choice(_others(thing, kind))))
    return _edit(scene, kind, rng)


def _others(thing: SceneObject | NamedObject, kind: str) -> list[str]:
    """What a thing may become: another of its group; a face only by its expression.

    Raises:
        ValueError: a thing without a name, or the wrong kind of edit for it.
    """
    if not isinstance(thing, NamedObject) or (thing.name in FACES) != (kind == "expression"):
        raise ValueError(f"expected a thing whose {kind} can change, got {thing}")
    return [n for n, group in GROUPS.items() if group == GROUPS[thing.name] and n != thing.name]


def _example(name: str, before: Scene, after: Scene) -> Example:
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


def held_out(count: int, start: int = FirstSeed.RECONSTRUCTION) -> list[tuple[Image.Image, str]]:
    """Images and prompts of `count` held-out scenes, for measurements.

    Raises:
        ValueError: more scenes than were held out.
    """
    if not 0 <= start <= start + count <= len(HELD_OUT_SEEDS):
        raise ValueError(f"expected seeds within {len(HELD_OUT_SEEDS)}, got {start} + {count}")
    scenes = [sample_scene(seed) for seed in HELD_OUT_SEEDS[start : start + count]]
    return [(Image.fromarray(render(scene).image), caption(scene)) for scene in scenes]


def photographs() -> dict[str, Image.Image]:
    """Photographs that scikit-image ships: real images without a download."""
    names = ("astronaut", "chelsea", "coffee", "rocket")
    return {name: Image.fromarray(getattr(skimage.data, name)()) for name in names}
