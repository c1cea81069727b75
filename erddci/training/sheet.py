"""Rebuild the sheet of named things from the npm package that its pictures come from.

Run `python -m erddci.training.sheet FOLDER` after `npm pack @lobehub/fluent-emoji-3d@1.1.0` in
that folder.  The package is MIT, and so are Microsoft's pictures.
"""

from __future__ import annotations

import csv
import io
import sys
import tarfile
from pathlib import Path

from PIL import Image

from erddci.scenes.things import CELL, COLUMNS, INDEX, SHEET
from erddci.training.archives import Archive

FLUENT = Archive(
    "npm pack @lobehub/fluent-emoji-3d@1.1.0",
    "lobehub-fluent-emoji-3d-1.1.0.tgz",
    "Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g==",
    "MIT, Copyright (c) Microsoft Corporation",
)


def build(archives: Path, out: Path = SHEET) -> Path:
    """Write the sheet of the things in `things.csv`, and return where it is.

    Args:
        archives: a folder with the file of `FLUENT`.
    Raises:
        FileNotFoundError, ValueError: it is not there, or it is another one.
    """
    data = FLUENT.read(archives)
    with INDEX.open(newline="") as file:
        codes = [row["code"] for row in csv.DictReader(file)]
    rows = -(-len(codes) // COLUMNS)
    sheet = Image.new("RGBA", (COLUMNS * CELL, rows * CELL))
    with tarfile.open(fileobj=io.BytesIO(data)) as files:
        for number, code in enumerate(codes):
            source = files.extractfile(f"package/assets/{code}.webp")
            row, column = divmod(number, COLUMNS)
            sheet.paste(_cell(source.read()), (column * CELL, row * CELL))  # type: ignore[union-attr]
    sheet.save(out, quality=88, alpha_quality=95, method=6)
    return out


def _cell(data: bytes) -> Image.Image:
    """One thing, as large as a cell allows, standing in the middle of its last row."""
    whole = Image.open(io.BytesIO(data)).convert("RGBA")
    # Faint glows around a thing are not part of it.
    thing = whole.crop(whole.getchannel("A").point([0] * 33 + [255] * 223).getbbox())
    scale = CELL / max(thing.size)
    size = (round(thing.width * scale), round(thing.height * scale))
    cell = Image.new("RGBA", (CELL, CELL))
    cell.paste(
        thing.resize(size, Image.Resampling.LANCZOS), ((CELL - size[0]) // 2, CELL - size[1])
    )
    return cell


if __name__ == "__main__":
    print(build(Path(sys.argv[1])))
