"""Rows on disk: a CSV file for each group of items, replaced as a whole whenever it grows.

So no file is ever torn, whenever a run is stopped, and processes that share a run write files of
their own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from erddci.model import StableDiffusion


@dataclass(frozen=True)
class RowStore:
    """A folder of rows; those up to the column "image" tell a row from others."""

    folder: Path
    columns: tuple[str, ...]

    def read(self) -> pd.DataFrame:
        """All rows; what was measured twice is read once."""
        frames = [pd.read_csv(path) for path in sorted(self.folder.glob("rows-*.csv"))]
        if not frames:
            return pd.DataFrame(columns=list(self.columns))
        key = self.columns[: self.columns.index("image") + 1]
        return pd.concat(frames, ignore_index=True).drop_duplicates(list(key), ignore_index=True)

    def known(self, cases: Sequence[Any]) -> set[tuple]:
        """The fields of a case and the number of an image, of each row."""
        if not cases:
            return set()
        names = [field.name for field in fields(cases[0])]
        rows = self.read()[[*names, "image"]]
        return set(rows.itertuples(index=False, name=None))

    def add(self, group: int, rows: Sequence[dict[str, Any]]) -> None:
        """Add rows to the file of a group.

        Raises:
            ValueError: the file holds other columns.
        """
        path = self.folder / f"rows-{group}.csv"
        header = ",".join(self.columns) + "\n"
        text = path.read_text() if path.is_file() else header
        if not text.startswith(header):
            raise ValueError(
                f"expected columns {', '.join(self.columns)} in {path}, got "
                f"{text.partition(chr(10))[0]}: name another folder"
            )
        frame = pd.DataFrame([_rounded(row) for row in rows], columns=list(self.columns))
        _write(path, text + frame.to_csv(index=False, header=False))

    def claim(self, model: StableDiffusion, items: Sequence[str]) -> None:
        """Write down what the rows are of, or check that it is the same; items may be more.

        Args:
            items: a text for each, such as its prompt.

        Raises:
            ValueError: the folder holds rows of another model or of other items.
        """
        marks = [hashlib.sha256(item.encode()).hexdigest()[:8] for item in items]
        path = self.folder / "settings.json"
        settings = {"model": model.name, "fingerprint": model.fingerprint, "items": marks}
        if path.is_file():
            known = json.loads(path.read_text())
            difference = model.difference(known["fingerprint"])
            shared = min(len(marks), len(known["items"]))
            if not difference and known["items"][:shared] != marks[:shared]:
                difference = "other images or prompts"
            if difference:
                raise ValueError(
                    f"{self.folder} holds rows of {known['model']}, got {model.name} "
                    f"({difference}): go on with the same model and images, or name another folder"
                )
            settings["items"] = max(marks, known["items"], key=len)
        self.folder.mkdir(parents=True, exist_ok=True)
        _write(path, json.dumps(settings) + "\n")


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    """What was measured, to six digits; a guidance scale stays what it is, as it tells rows."""
    exact = ("guidance_scale", "inverted_at")
    return {
        name: f"{value:.6g}" if isinstance(value, float) and name not in exact else value
        for name, value in row.items()
    }


def _write(path: Path, text: str) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    partial.replace(path)
