"""A small ray caster: spheres, cubes, cylinders, cones and cards on a floor, lit by one light.

Rays are rows of [R, 3] arrays in floor units: x to the right, y up, z towards the camera.  A shape
stands at the origin, has radius 1, and is scaled and turned by moving the rays instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from erddci.scenes import cards
from erddci.scenes.scene import COLOURS, FLOORS, Scene, SceneObject
from erddci.scenes.things import NamedObject

Array = np.ndarray

SUPERSAMPLING = 2  # rays per pixel side
CAMERA = np.array([0.0, 3.3, 5.4], np.float32)
LOOK_AT = np.array([0.0, 0.42, 0.0], np.float32)


@dataclass(frozen=True)
class Rendering:
    """An image of a scene and where its things are."""

    image: Array  # [size, size, 3] uint8
    masks: Array  # [objects, size, size] bool: pixels where a thing covers the centre


def render(scene: Scene, size: int = 128) -> Rendering:
    """Render a scene at `size` × `size` pixels; the same scene gives the same bytes."""
    rays = _rays(size, scene.field_of_view)
    origin = np.broadcast_to(CAMERA, rays.shape)
    light = _light(scene.light)

    shapes = {i: thing for i, thing in enumerate(scene.objects) if isinstance(thing, SceneObject)}
    named = {i: thing for i, thing in enumerate(scene.objects) if isinstance(thing, NamedObject)}
    reach, owner, normal = _first_hits(shapes, origin, rays)
    point = origin + reach[:, None] * rays
    lit = _unblocked(shapes, point + 1e-3 * normal, light)
    for thing in named.values():
        lit *= cards.light_past(thing, point, light)
    colour = _shade(scene, owner, point, normal, rays, lit)
    for thing in named.values():
        colour *= cards.contact_shadow(thing, point)[:, None]
    # The farther card first, so that the nearer one covers it.
    for index, thing in sorted(named.items(), key=lambda item: item[1].z):
        opacity = cards.paint(thing, origin, rays, reach, colour)
        owner[opacity >= 0.5] = index
    grid = (size, SUPERSAMPLING, size, SUPERSAMPLING)
    pixels = np.clip(colour, 0, 1).reshape(*grid, 3).mean((1, 3)) ** (1 / 2.2)
    covered = owner.reshape(grid)[
        :, SUPERSAMPLING // 2, :, SUPERSAMPLING // 2
    ]  # by the ray next to it
    masks = np.stack([covered == index for index in range(len(scene.objects))])
    return Rendering(np.round(pixels * 255).astype(np.uint8), masks)


def _first_hits(
    shapes: dict[int, SceneObject], origin: Array, rays: Array
) -> tuple[Array, Array, Array]:
    """How far each ray gets [R], which object it meets (−1: the floor), and the normal there."""
    reach = CAMERA[1] / -rays[:, 1]  # every ray meets the floor: the camera looks down
    owner = np.full(len(rays), -1)
    normal = np.broadcast_to(np.array([0, 1, 0], np.float32), rays.shape).copy()
    for index, thing in shapes.items():
        t, n = _hit(thing, origin, rays)
        nearer = t < reach
        reach[nearer], owner[nearer], normal[nearer] = t[nearer], index, n[nearer]
    return reach, owner, normal


def _unblocked(shapes: dict[int, SceneObject], point: Array, light: Array) -> Array:
    """1 where the light reaches a point [R], 0 in the shadow of a shape."""
    lit = np.ones(len(point), np.float32)
    towards = np.broadcast_to(light, point.shape)
    for thing in shapes.values():
        lit[_hit(thing, point, towards)[0] < np.inf] = 0.0
    return lit


@lru_cache(maxsize=4)
def _rays(size: int, field_of_view: float) -> Array:
    forward = LOOK_AT - CAMERA
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, np.array([0, 1, 0], np.float32))
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    count = size * SUPERSAMPLING
    across = (np.arange(count, dtype=np.float32) + 0.5) / count * 2 - 1
    u, v = np.meshgrid(across * field_of_view, -across * field_of_view)
    rays = forward + u.reshape(-1, 1) * right + v.reshape(-1, 1) * up
    return (rays / np.linalg.norm(rays, axis=1, keepdims=True)).astype(np.float32)


def _light(azimuth: float) -> Array:
    direction = np.array([0.75 * np.sin(azimuth), 1.0, 0.75 * np.cos(azimuth)], np.float32)
    return direction / np.linalg.norm(direction)


def _shade(
    scene: Scene, owner: Array, point: Array, normal: Array, rays: Array, lit: Array
) -> Array:
    """Linear RGB [R, 3]: ambient and diffuse light, and for shiny things what they mirror."""
    floor = np.array(FLOORS[scene.floor], np.float32) ** 2.2
    albedo = np.broadcast_to(floor, rays.shape).copy()
    shiny = np.zeros(len(rays), bool)
    for index, thing in enumerate(scene.objects):
        if isinstance(thing, NamedObject):
            continue
        albedo[owner == index] = np.array(COLOURS[thing.colour], np.float32) ** 2.2
        shiny |= (owner == index) & (thing.material == "shiny")

    light = _light(scene.light)
    diffuse = np.clip(normal @ light, 0, None) * lit
    falloff = 1 / (1 + 0.05 * (point[:, 0] ** 2 + point[:, 2] ** 2))  # a pool of light
    near = np.where(
        owner >= 0, np.exp(-3 * point[:, 1]), 0
    )  # the floor darkens the foot of things
    colour = albedo * ((0.30 - 0.12 * near + 0.85 * diffuse) * falloff)[:, None]

    n, d = normal[shiny], rays[shiny]
    mirror = d - 2 * (n * d).sum(1, keepdims=True) * n
    fresnel = 0.22 + 0.5 * (1 - np.clip(-(n * d).sum(1), 0, 1)) ** 4
    # A studio of finite size with strip lights: even a flat side shows that it mirrors something.
    place = mirror + 0.9 * point[shiny]
    strips = np.clip(np.sin(3.4 * place[:, 1:2] + 2.4 * place[:, :1]), 0, 1) ** 3
    seen = np.where(mirror[:, 1:2] > 0, 0.1 + 1.6 * strips, floor * 0.6 + 1.0 * strips)
    glint = np.clip(mirror @ light, 0, 1) ** 40 * lit[shiny]
    colour[shiny] = colour[shiny] * 0.85 + fresnel[:, None] * seen + 1.4 * glint[:, None]
    return colour


def _hit(thing: SceneObject, origin: Array, ray: Array) -> tuple[Array, Array]:
    """Distance [R] along each ray to a thing (inf where it misses) and the normal there."""
    cos, sin = np.float32(np.cos(thing.yaw)), np.float32(np.sin(thing.yaw))
    turn = np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]], np.float32)
    centre = np.array([thing.x, 0, thing.z], np.float32)
    o = (origin - centre) @ turn / np.float32(thing.radius)
    d = ray @ turn
    t, n = np.full(len(o), np.inf, np.float32), np.zeros_like(o)

    # Only rays that meet the ball around the shape can meet the shape.
    middle = np.array([0, 0.9, 0], np.float32)
    along = ((o - middle) * d).sum(1)
    inside = along**2 - ((o - middle) ** 2).sum(1) + 1.45**2 > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        t[inside], n[inside] = _SHAPES[thing.shape](o[inside], d[inside])
    return t * np.float32(thing.radius), n @ turn.T


def _nearest(a: Array, b: Array, c: Array) -> tuple[Array, Array]:
    """Both roots of a·t² + 2b·t + c, the smaller first; NaN where there is none."""
    root = np.sqrt(b * b - a * c)
    first, second = (-b - root) / a, (-b + root) / a
    return np.minimum(first, second), np.maximum(first, second)


def _first(*hits: tuple[Array, Array, Array]) -> tuple[Array, Array]:
    """The nearest of several candidate hits (distance, allowed, normal)."""
    best, normal = np.full(len(hits[0][0]), np.inf, np.float32), np.zeros_like(hits[0][2])
    for t, allowed, n in hits:
        nearer = allowed & (t > 1e-4) & (t < best)
        best[nearer], normal[nearer] = t[nearer], n[nearer]
    return best, normal


def _sphere(o: Array, d: Array) -> tuple[Array, Array]:
    o = o - np.array([0, 1, 0], np.float32)
    t, _ = _nearest(np.ones(len(o), np.float32), (o * d).sum(1), (o * o).sum(1) - 1)
    return _first((t, ~np.isnan(t), o + t[:, None] * d))


def _cube(o: Array, d: Array) -> tuple[Array, Array]:
    half = np.float32(0.82)
    o = o - np.array([0, half, 0], np.float32)
    near = (-np.sign(d) * half - o) / d
    far = (np.sign(d) * half - o) / d
    axis = near.argmax(1)
    t = near.max(1)
    normal = np.where(np.arange(3) == axis[:, None], -np.sign(d), 0)
    return _first((t, t < far.min(1), normal.astype(np.float32)))


def _cylinder(o: Array, d: Array) -> tuple[Array, Array]:
    radius, height = np.float32(0.78), np.float32(1.75)
    ox, oz, dx, dz = o[:, 0], o[:, 2], d[:, 0], d[:, 2]
    t, _ = _nearest(dx * dx + dz * dz, ox * dx + oz * dz, ox * ox + oz * oz - radius**2)
    point = o + t[:, None] * d
    side = point * np.array([1, 0, 1], np.float32) / radius
    top = (height - o[:, 1]) / d[:, 1]
    lid = o + top[:, None] * d
    up = np.broadcast_to(np.array([0, 1, 0], np.float32), o.shape)
    return _first(
        (t, (point[:, 1] >= 0) & (point[:, 1] <= height), side),
        (top, lid[:, 0] ** 2 + lid[:, 2] ** 2 <= radius**2, up),
    )


def _cone(o: Array, d: Array) -> tuple[Array, Array]:
    radius, height = np.float32(0.98), np.float32(2.0)
    slope = (radius / height) ** 2
    ox, oy, oz = o[:, 0], o[:, 1] - height, o[:, 2]
    dx, dy, dz = d.T
    roots = _nearest(
        dx * dx + dz * dz - slope * dy * dy,
        ox * dx + oz * dz - slope * oy * dy,
        ox * ox + oz * oz - slope * oy * oy,
    )
    hits = []
    for t in roots:
        point = o + t[:, None] * d
        normal = point * np.array([1, 0, 1], np.float32)
        normal[:, 1] = slope * (height - point[:, 1])
        normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
        hits.append((t, (point[:, 1] >= 0) & (point[:, 1] <= height), normal))
    return _first(*hits)


_SHAPES = {"sphere": _sphere, "cube": _cube, "cylinder": _cylinder, "cone": _cone}
