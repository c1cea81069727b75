"""Named things in the ray caster: upright cards that face the camera and cast soft shadows.

Rays are rows of [R, 3] arrays in floor units, as in `render`.  A card is as wide as it is high
and stands on the floor on the middle of its lower edge.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from erddci.scenes.things import CELL, NamedObject, picture

Array = np.ndarray

EXPOSURE = 0.98  # what of its picture's light a thing sends back where the pool of light is full
SOFTNESS = 8  # pixels of a picture that its shadow melts into one


def paint(card: NamedObject, eye: Array, rays: Array, reach: Array, colour: Array) -> Array:
    """Lay a card over linear RGB [R, 3], in place, where it is nearer than `reach` [R].

    Returns:
        The opacity [R] of what each ray sees of the card.
    """
    opacity = np.zeros(len(rays), np.float32)
    foot = np.array([card.x, 0, card.z], np.float32)
    # The card is parallel to the picture: upright in it, and as wide as it is high.
    right, up, forward = _camera()
    t = ((foot - eye) @ forward) / (rays @ forward)
    place = eye + t[:, None] * rays - foot
    u, v = place @ right / np.float32(card.extent), place @ up / np.float32(card.extent)
    met = (t < reach) & (np.abs(u) < 0.52) & (v > -0.02) & (v < 1.02)
    seen = _look_up(_premultiplied(card.name), u[met], v[met])
    opacity[met] = seen[:, 3]
    x, z = card.x + place[met, 0], card.z + place[met, 2]
    light = EXPOSURE - 0.12 * np.exp(-3 * place[met, 1])  # darker at the foot, as shapes are
    light = light / (1 + 0.05 * (x**2 + z**2))
    colour[met] = colour[met] * (1 - seen[:, 3:]) + seen[:, :3] * light[:, None]
    return opacity


def light_past(card: NamedObject, point: Array, light: Array) -> Array:
    """What share of the light reaches each point [R, 3] past the card, turned towards it."""
    level = np.array([light[0], 0, light[2]], np.float32)
    level /= np.linalg.norm(level)
    side = np.array([level[2], 0, -level[0]], np.float32)
    place = point - np.array([card.x, 0, card.z], np.float32)
    t = -(place @ level) / (light @ level)
    u = place @ side / np.float32(card.extent)
    v = (place[:, 1] + t * light[1]) / np.float32(card.extent)
    shadow = np.zeros(len(point), np.float32)
    met = (t > 1e-3) & (np.abs(u) < 0.6) & (v < 1.1)
    shadow[met] = _look_up(_silhouette(card.name), u[met], v[met])[:, 0]
    return 1 - shadow


def contact_shadow(card: NamedObject, point: Array) -> Array:
    """What share of the light around reaches each point [R, 3] near the card's foot."""
    middle, half = _foot(card.name)
    wide = np.float32(card.extent * max(half, 0.08))
    across = (point[:, 0] - card.x - middle * card.extent) / (1.15 * wide)
    along = (point[:, 2] - card.z) / (0.4 * wide + 0.06 * card.extent)
    return 1 - 0.55 * np.exp(-(across**2) - along**2 - 6 * point[:, 1])


def _camera() -> tuple[Array, Array, Array]:
    from erddci.scenes.render import CAMERA, LOOK_AT  # `render` draws with this module

    forward = (LOOK_AT - CAMERA) / np.linalg.norm(LOOK_AT - CAMERA)
    right = np.cross(forward, np.array([0, 1, 0], np.float32))
    right /= np.linalg.norm(right)
    return right, np.cross(right, forward), forward


def _look_up(texture: Array, u: Array, v: Array) -> Array:
    """A texture [side, side, C] at u from −0.5 to 0.5 and v from 0 at the foot, bilinearly."""
    side = len(texture) - 2  # a margin of nothing goes around
    column, row = (u + 0.5) * side + 0.5, (1 - v) * side + 0.5
    column, row = (np.clip(at, 0, side + 0.999) for at in (column, row))
    left, top = column.astype(int), row.astype(int)
    across, down = (column - left)[:, None], (row - top)[:, None]
    upper = texture[top, left] * (1 - across) + texture[top, left + 1] * across
    lower = texture[top + 1, left] * (1 - across) + texture[top + 1, left + 1] * across
    return upper * (1 - down) + lower * down


@lru_cache(maxsize=256)
def _premultiplied(name: str) -> Array:
    """Linear RGB times opacity, and opacity, with a margin."""
    values = picture(name).astype(np.float32) / 255
    alpha = values[..., 3:]
    return np.pad(np.concatenate([values[..., :3] ** 2.2 * alpha, alpha], 2), _MARGIN)


@lru_cache(maxsize=256)
def _silhouette(name: str) -> Array:
    """The opacity alone, coarse, with a margin."""
    alpha = picture(name)[..., 3:].astype(np.float32) / 255
    side = CELL // SOFTNESS
    return np.pad(alpha.reshape(side, SOFTNESS, side, SOFTNESS, 1).mean((1, 3)), _MARGIN)


@lru_cache(maxsize=256)
def _foot(name: str) -> tuple[float, float]:
    """Where the lowest tenth of a picture has its middle, and half its width, of the card's."""
    columns = np.flatnonzero((picture(name)[-CELL // 10 :, :, 3] > 127).any(0))
    first, last = columns[0] / CELL - 0.5, (columns[-1] + 1) / CELL - 0.5
    return float(first + last) / 2, float(last - first) / 2


_MARGIN = ((1, 1), (1, 1), (0, 0))
