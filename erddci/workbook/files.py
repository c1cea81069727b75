"""Finding the numbered files of the repository, by the start of their names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from erddci.registry import unknown


def named(
    folder: Path, patterns: Iterable[str], names: Sequence[str] | None, what: str
) -> list[Path]:
    """The files of a folder that fit a pattern, or those whose names start with one of `names`.

    Raises:
        ValueError: a name that fits no file, or no files at all.
    """
    found = sorted(path for pattern in patterns for path in folder.glob(pattern))
    if not found:
        raise ValueError(f"no {what}s in {folder}: run in a clone of the repository")
    for name in names or ():
        if not any(path.stem.startswith(name) for path in found):
            raise unknown(name, [path.stem for path in found], what)
    return [path for path in found if not names or path.stem.startswith(tuple(names))]
