"""Running figure scripts: each leaves its picture, the data it was drawn from, and a manifest."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import platform
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from erddci.model import StableDiffusion

FIGURES = Path(__file__).parents[1] / "figures"
PACKAGES = ("erddci", "torch", "diffusers", "transformers", "numpy", "matplotlib")

Draw = Callable[[StableDiffusion], tuple[Figure, dict[str, pd.DataFrame]]]


def scripts(names: list[str] | None = None, folder: Path = FIGURES) -> list[Path]:
    """The figure scripts of a folder, or those whose names start with one of `names`.

    Raises:
        ValueError: a name that fits no script, or no scripts at all.
    """
    found = sorted(folder.glob("fig*.py"))
    if not found:
        raise ValueError(f"no figure scripts in {folder}: run in a clone of the repository")
    known = ", ".join(path.stem for path in found)
    for name in names or []:
        if not any(path.stem.startswith(name) for path in found):
            raise ValueError(f"unknown figure {name!r}: expected one of {known}")
    return [path for path in found if not names or path.stem.startswith(tuple(names))]


def run(script: Path, model: StableDiffusion, out: Path | None = None) -> list[Path]:
    """Run `draw(model)` of a figure script and save all that it returns; lists the files.

    The script's `draw` returns a figure and the tables it was drawn from, by name.  Its picture
    goes to PNG and PDF, each table to CSV, and how they were made to a JSON manifest.
    """
    spec = importlib.util.spec_from_file_location(script.stem, script)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    draw: Draw = module.draw
    figure, tables = draw(model)
    return save(figure, tables, model, script.stem, (module.__doc__ or "").strip(), out)


def save(
    figure: Figure,
    tables: dict[str, pd.DataFrame],
    model: StableDiffusion,
    name: str,
    caption: str,
    out: Path | None = None,
) -> list[Path]:
    """Write a figure as PNG and PDF, its tables as CSV and its manifest as JSON."""
    out = out or FIGURES
    out.mkdir(parents=True, exist_ok=True)
    files = [out / f"{name}.png", out / f"{name}.pdf", out / f"{name}.json"]
    figure.savefig(files[0], dpi=160)
    figure.savefig(files[1], metadata={"CreationDate": None})
    plt.close(figure)
    manifest = {
        "caption": caption,
        "model": model.name,
        "device": str(model.device),
        "dtype": str(model.dtype),
        "python": platform.python_version(),
        "versions": {package: importlib.metadata.version(package) for package in PACKAGES},
        "tables": [f"{name}_{key}.csv" for key in tables],
    }
    files[2].write_text(json.dumps(manifest, indent=1) + "\n")
    for key, table in tables.items():
        files.append(out / f"{name}_{key}.csv")
        table.to_csv(files[-1], index=False, float_format="%.6g")
    return files
