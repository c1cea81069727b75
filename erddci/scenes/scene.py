"""What a scene is: one or two objects on a floor, how it is drawn at random, and its caption.

A scene is plain data.  `render` turns it into an image, `caption` into a sentence, and `change`
into another scene that differs in one attribute, which is what gives every edit a true answer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Literal

import numpy as np

from erddci.registry import lookup, unknown
from erddci.scenes.things import EXTENTS, NAMES, NamedObject

SHAPES = ("sphere", "cube", "cylinder", "cone")
COLOURS = {
    "red": (0.86, 0.08, 0.08),
    "orange": (0.96, 0.47, 0.05),
    "yellow": (0.97, 0.86, 0.12),
    "green": (0.10, 0.62, 0.17),
    "cyan": (0.14, 0.80, 0.86),
    "blue": (0.10, 0.22, 0.86),
    "purple": (0.48, 0.12, 0.72),
    "pink": (0.97, 0.46, 0.70),
}
MATERIALS = ("matte", "shiny")
SIZES = {"small": 0.42, "large": 0.68}
FLOORS = {
    "white": (0.88, 0.88, 0.86),
    "grey": (0.52, 0.53, 0.55),
    "brown": (0.45, 0.30, 0.19),
    "teal": (0.13, 0.47, 0.47),
    "navy": (0.12, 0.16, 0.36),
    "khaki": (0.56, 0.54, 0.28),
}

FIELD_OF_VIEW = 0.34  # half the image's width at distance 1
CLOSER = 0.285  # the same where there are named things, which have more to show

# Seeds are split once and for all: nothing a model was trained on is ever used to judge it.
TRAIN_SEEDS = range(0, 1_000_000)
HELD_OUT_SEEDS = range(1_000_000, 2_000_000)


class FirstSeed(IntEnum):
    """Where in `HELD_OUT_SEEDS` each use starts: no result is on scenes that chose a default."""

    EXAMPLES = 0
    RECONSTRUCTION = 100
    EDITS = 10_000
    DYNAMIC_CONTROL = 30_000
    EDITING_BENCHMARK = 50_000
    EVALUATION = 500_000


# Every word a caption can hold, in the order of the embedded model's vocabulary.
WORDS = (
    "a on floor left right of".split()
    + [*SIZES, *COLOURS, *MATERIALS, *SHAPES]
    + [floor for floor in FLOORS if floor not in COLOURS]
)

# The same for scenes with named things, whose names are one word or, a face's, two.
WORLD_WORDS = tuple(dict.fromkeys([*WORDS, *" ".join(NAMES).split()]))

Attribute = Literal["colour", "shape", "material", "size"]
ATTRIBUTES: dict[Attribute, tuple[str, ...]] = {
    "size": tuple(SIZES),
    "colour": tuple(COLOURS),
    "material": MATERIALS,
    "shape": SHAPES,
}


@dataclass(frozen=True)
class SceneObject:
    """One object: four named attributes, and a pose on the floor that no caption mentions."""

    size: str
    colour: str
    material: str
    shape: str
    x: float  # to the right, in floor units
    z: float  # towards the camera
    yaw: float  # about the vertical, in radians

    @property
    def radius(self) -> float:
        return SIZES[self.size]

    def __str__(self) -> str:
        return f"a {self.size} {self.colour} {self.material} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """One or two objects, ordered from left to right, on a floor under one light."""

    objects: tuple[SceneObject | NamedObject, ...]
    floor: str
    light: float  # azimuth of the light, in radians
    right_first: bool = False  # whether the caption starts with the thing on the right
    field_of_view: float = FIELD_OF_VIEW

    def __post_init__(self) -> None:
        if not 1 <= len(self.objects) <= 2:
            raise ValueError(f"a scene holds one or two objects, not {len(self.objects)}")
        if list(self.objects) != sorted(self.objects, key=lambda thing: thing.x):
            raise ValueError("the things of a scene are ordered from left to right")


def sample_scene(seed: int) -> Scene:
    """Draw the scene of a seed: the same scene on every machine.

    Take training seeds from `TRAIN_SEEDS` and all others from `HELD_OUT_SEEDS`.
    """
    rng = np.random.default_rng(seed)
    count = 2 if rng.random() < 0.65 else 1
    while True:
        objects = tuple(sorted((sample_object(rng) for _ in range(count)), key=lambda t: t.x))
        if count == 1 or _apart(*objects):
            break
    return _on_a_floor(objects, rng)


def _on_a_floor(objects: tuple[SceneObject | NamedObject, ...], rng: np.random.Generator) -> Scene:
    """The scene of some objects, with a floor, a light and an order of words drawn for it."""
    return Scene(
        objects,
        floor=str(rng.choice(list(FLOORS))),
        light=float(rng.uniform(-0.9, 0.9)),
        right_first=bool(rng.random() < 0.5),
    )


def sample_named_scene(seed: int) -> Scene:
    """Sample the scene of a seed from the world in which half of the things have names.

    The same seeds as `sample_scene`'s train and judge; no training scene shows a pair of things
    that `held_out_pair` keeps from it.
    """
    rng = np.random.default_rng([seed, 1])  # a stream of its own, not `sample_scene`'s
    count = 2 if rng.random() < 0.65 else 1
    # What is in a scene is settled before where: a pair without room tries other places alone.
    drawn = [sample_any(rng) for _ in range(count)]
    while count == 2 and seed in TRAIN_SEEDS and held_out_pair(*drawn):
        drawn = [sample_any(rng) for _ in range(count)]
    while True:
        objects = tuple(sorted((_placed(t, rng) for t in drawn), key=lambda t: t.x))
        if count == 1 or _apart(*objects):
            break
    return replace(_on_a_floor(objects, rng), field_of_view=CLOSER)


def sample_any(rng: np.random.Generator) -> SceneObject | NamedObject:
    """Sample a named thing or a shape, with even odds, where the closer view has room for it."""
    return _placed(sample_named_object(rng) if rng.random() < 0.5 else sample_object(rng), rng)


def _placed(
    thing: SceneObject | NamedObject, rng: np.random.Generator
) -> SceneObject | NamedObject:
    # The closer view cuts off nothing of a large thing at these places.
    x, z = rng.uniform(-0.85, 0.85), rng.uniform(-0.6, 0.4)
    return replace(thing, x=float(x), z=float(z))


def sample_named_object(rng: np.random.Generator) -> NamedObject:
    """Sample one named thing, in the middle of the floor: its name and its size."""
    return NamedObject(str(rng.choice(list(EXTENTS))), str(rng.choice(NAMES)), x=0.0, z=0.0)


def held_out_pair(one: SceneObject | NamedObject, other: SceneObject | NamedObject) -> bool:
    """Whether no training scene shows these two together: one pair in eight of those with names.

    Only the name or the shape counts, and not which stands on the left.
    """
    if isinstance(one, SceneObject) and isinstance(other, SceneObject):
        return False
    nouns = (*NAMES, *SHAPES)
    return (nouns.index(noun(one)) + nouns.index(noun(other))) % 8 == 7


def noun(thing: SceneObject | NamedObject) -> str:
    """What a caption calls a thing: its name or its shape."""
    return thing.name if isinstance(thing, NamedObject) else thing.shape


def sample_object(rng: np.random.Generator) -> SceneObject:
    """Draw one thing: its attributes and its pose."""
    return SceneObject(
        size=str(rng.choice(list(SIZES))),
        colour=str(rng.choice(list(COLOURS))),
        material=str(rng.choice(MATERIALS)),
        shape=str(rng.choice(SHAPES)),
        x=float(rng.uniform(-1.2, 1.2)),
        z=float(rng.uniform(-0.6, 0.6)),
        yaw=float(rng.uniform(0, np.pi / 2)),
    )


def _apart(left: SceneObject | NamedObject, right: SceneObject | NamedObject) -> bool:
    # Room for both at full size, so that no change of size or shape makes them touch.
    return right.x - left.x > _room(left) + _room(right)


def _room(thing: SceneObject | NamedObject) -> float:
    return EXTENTS["large"] / 2 if isinstance(thing, NamedObject) else 0.625


def caption(scene: Scene, brief: bool = False) -> str:
    """Describe a scene: "a large red shiny cone left of a small blue matte cube on a teal floor".

    A brief caption names neither sizes nor materials.
    """
    names = [_brief(thing) if brief else str(thing) for thing in scene.objects]
    if len(names) == 1:
        return f"{names[0]} on a {scene.floor} floor"
    left, right = names
    first, side, second = (right, "right", left) if scene.right_first else (left, "left", right)
    return f"{first} {side} of {second} on a {scene.floor} floor"


def subjects(scene: Scene, brief: bool = False) -> list[int | None]:
    """What each word of a scene's caption speaks of: a thing, the floor, or neither (None).

    Things are counted from the left; the floor comes after the last.
    """
    order = (1, 0) if scene.right_first and len(scene.objects) == 2 else range(len(scene.objects))
    found: list[int | None] = []
    for index in order:
        thing = scene.objects[index]
        words = (_brief(thing) if brief else str(thing)).split()
        found += [None, None] if found else []  # "left of"
        found += [None, *[index] * (len(words) - 1)]  # "a" is nobody's
    floor = len(scene.objects)
    return [*found, None, None, floor, floor]  # "on a teal floor"


def _brief(thing: SceneObject | NamedObject) -> str:
    return (
        f"a {thing.name}" if isinstance(thing, NamedObject) else f"a {thing.colour} {thing.shape}"
    )


def change(scene: Scene, index: int | None = None, **attributes: str) -> Scene:
    """Return the scene with attributes of one thing, or its floor, changed and all else kept.

    `index` counts things from the left; `floor=` needs none.

    Raises:
        ValueError: an unknown attribute or value, or a thing that is not there.
    """
    floor = attributes.pop("floor", scene.floor)
    if floor not in FLOORS:
        raise unknown(floor, FLOORS, "floor")
    objects = list(scene.objects)
    if attributes:
        if index is None or not 0 <= index < len(objects):
            raise ValueError(f"expected the index of one of {len(objects)} objects, got {index}")
        for name, value in attributes.items():
            known = lookup(attributes_of(objects[index]), name, "attribute")
            if value not in known:
                raise unknown(value, known, name)
        objects[index] = replace(objects[index], **attributes)
    return replace(scene, objects=tuple(objects), floor=floor)


def attributes_of(thing: SceneObject | NamedObject) -> dict[str, tuple[str, ...]]:
    """What can be changed about a thing, and to what."""
    if isinstance(thing, SceneObject):
        return {**ATTRIBUTES}
    return {"size": tuple(EXTENTS), "name": NAMES}


def swap(scene: Scene) -> Scene:
    """Return the scene with its two things in each other's place."""
    if len(scene.objects) != 2:
        raise ValueError(f"expected a scene of two objects, got {scene}")
    left, right = scene.objects
    objects = (replace(right, x=left.x, z=left.z), replace(left, x=right.x, z=right.z))
    return replace(scene, objects=objects)


def remove(scene: Scene, index: int) -> Scene:
    """Return the scene without one of its two things."""
    if len(scene.objects) != 2 or index not in (0, 1):
        raise ValueError(f"expected 0 or 1 and a scene of two objects, got {index} of {scene}")
    return replace(scene, objects=(scene.objects[1 - index],))


def add(scene: Scene, thing: SceneObject | NamedObject) -> Scene:
    """Return the scene of one thing with a second thing beside it."""
    objects = tuple(sorted((*scene.objects, thing), key=lambda t: t.x))
    if len(objects) != 2 or not _apart(*objects):
        raise ValueError("expected a scene of one thing with room for the new one")
    return replace(scene, objects=objects)
