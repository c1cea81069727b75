"""Things that have a name: pictures of single objects that stand in a scene as upright cards.

The pictures ship as one sheet, `things.webp`; `things.csv` says what is on it, row by row from
the top left.  They are Microsoft's Fluent emoji (MIT), see NOTICE.md beside them;
`erddci.training.sheet` rebuilds the sheet.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from erddci.registry import unknown

SHEET = Path(__file__).parent / "things.webp"
INDEX = Path(__file__).parent / "things.csv"
CELL = 96  # pixels a thing has on the sheet, each way
COLUMNS = 16

with INDEX.open(newline="") as _file:
    _ROWS = list(csv.DictReader(_file))

NAMES = tuple(row["name"] for row in _ROWS)
GROUPS = {row["name"]: row["group"] for row in _ROWS}  # animal, food, vehicle, plant, object, face
FACES = tuple(name for name in NAMES if GROUPS[name] == "face")  # one face, by its expression

# How wide and high a card is, in floor units: no smaller than a ray-cast shape of that size.
EXTENTS = {"small": 0.95, "large": 1.5}


@dataclass(frozen=True)
class NamedObject:
    """One object that has a name and a size, and a place on the floor that no caption mentions."""

    size: str
    name: str
    x: float  # to the right, in floor units
    z: float  # towards the camera

    @property
    def extent(self) -> float:
        return EXTENTS[self.size]

    def __str__(self) -> str:
        return f"a {self.size} {self.name}"


@lru_cache(maxsize=1)
def _sheet() -> np.ndarray:
    with Image.open(SHEET) as sheet:
        return np.asarray(sheet.convert("RGBA"))


@lru_cache(maxsize=len(NAMES))
def picture(name: str) -> np.ndarray:
    """The picture of a thing, [CELL, CELL, 4] uint8: sRGB and alpha, its foot on the last row.

    Raises:
        ValueError: a name that no thing has.
    """
    if name not in GROUPS:
        raise unknown(name, NAMES, "thing")
    row, column = divmod(NAMES.index(name), COLUMNS)
    return _sheet()[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL]
