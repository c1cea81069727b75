"""Running figure scripts: each leaves a figure, the data it was drawn from, and a manifest."""

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
from erddci.plots import png
from erddci.workbook.files import named

FIGURES = Path(__file__).parents[2] / "figures"
RESULTS = FIGURES / "results"
PACKAGES = ("erddci", "torch", "diffusers", "transformers", "numpy", "matplotlib")

Draw = Callable[[StableDiffusion], tuple[Figure, dict[str, pd.DataFrame]]]


def scripts(names: list[str] | None = None, folder: Path = FIGURES) -> list[Path]:
    """The figure scripts of a folder, or those whose names start with one of `names`.

    Raises:
        ValueError: a name that fits no script, or no scripts at all.
    """
    return named(folder, ["fig*.py", "table*.py"], names, "figure")


def rows_folder(model: StableDiffusion, table: str = "table_reconstruction") -> Path:
    """Where a benchmark keeps a model's rows: those of the embedded one come with the table."""
    if model.name.startswith("scenes@"):
        return RESULTS / table
    return Path("runs") / model.name.replace("/", "_") / table


def cached_table(
    model: StableDiffusion, name: str, table: str, measure: Callable[[], pd.DataFrame]
) -> pd.DataFrame:
    """Load a figure's table from its CSV if that is of the same model, else measure it.

    So a figure whose measurement takes long is redrawn at once; remove the CSV to measure anew.
    """
    manifest, rows = RESULTS / f"{name}.json", RESULTS / f"{name}_{table}.csv"
    known = json.loads(manifest.read_text()) if manifest.is_file() else {}
    if rows.is_file() and known and not model.difference(known["fingerprint"]):
        return pd.read_csv(rows)
    return measure()


def run(script: Path, model: StableDiffusion, out: Path | None = None) -> list[Path]:
    """Run a script of `figures/` and save all that it returns; lists the files.

    A figure's `draw(model)` returns a figure and the tables it was drawn from, by name.  The
    figure goes to PNG and PDF, each table to CSV, and how they were made to a JSON manifest.
    A table's `table(model)` returns one table, which goes to CSV, Markdown and LaTeX.
    """
    spec = importlib.util.spec_from_file_location(script.stem, script)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    caption = (module.__doc__ or "").strip()
    if hasattr(module, "table"):
        return save_table(module.table(model), model, script.stem, caption, out)
    draw: Draw = module.draw
    figure, tables = draw(model)
    return save(figure, tables, model, script.stem, caption, out)


def save(
    figure: Figure,
    tables: dict[str, pd.DataFrame],
    model: StableDiffusion,
    name: str,
    caption: str,
    out: Path | None = None,
) -> list[Path]:
    """Write a figure as PNG and PDF, its tables as CSV and its manifest as JSON."""
    out = out or RESULTS
    out.mkdir(parents=True, exist_ok=True)
    files = [out / f"{name}.png", out / f"{name}.pdf", out / f"{name}.json"]
    files[0].write_bytes(png(figure, dpi=160))
    figure.savefig(files[1], metadata={"CreationDate": None})
    plt.close(figure)
    manifest = _manifest(model, caption) | {"tables": [f"{name}_{key}.csv" for key in tables]}
    files[2].write_text(json.dumps(manifest, indent=1) + "\n")
    for key, table in tables.items():
        files.append(out / f"{name}_{key}.csv")
        table.to_csv(files[-1], index=False, float_format="%.6g")
    return files


def save_table(
    table: pd.DataFrame,
    model: StableDiffusion,
    name: str,
    caption: str,
    out: Path | None = None,
) -> list[Path]:
    """Write a table as CSV, and for reading as Markdown and LaTeX, with its manifest as JSON.

    Columns "x_low" and "x_high" beside a column "x" become its interval.
    """
    out = out or RESULTS
    out.mkdir(parents=True, exist_ok=True)
    files = [out / f"{name}.{kind}" for kind in ("csv", "md", "tex", "json")]
    table.to_csv(files[0], index=False, float_format="%.6g")
    shown = with_intervals(table)
    files[1].write_text(f"{caption}\n\n{shown.to_markdown(index=False)}\n")
    files[2].write_text(shown.to_latex(index=False, escape=True, caption=caption))
    files[3].write_text(json.dumps(_manifest(model, caption), indent=1) + "\n")
    return files


def with_intervals(table: pd.DataFrame) -> pd.DataFrame:
    """Fold columns "x", "x_low" and "x_high" into one of texts, "x [low, high]"."""
    shown = table.astype(object).map(lambda v: f"{v:.4g}" if isinstance(v, float) else str(v))
    for column in [name for name in table if f"{name}_low" in table]:
        low, high = shown.pop(f"{column}_low"), shown.pop(f"{column}_high")
        wide = (low != shown[column]) | (high != shown[column])
        shown[column] += (" [" + low + ", " + high + "]").where(wide, "")
    return shown


def _manifest(model: StableDiffusion, caption: str) -> dict:
    return {
        "caption": caption,
        "model": model.name,
        "fingerprint": model.fingerprint,
        "device": str(model.device),
        "dtype": str(model.dtype),
        "python": platform.python_version(),
        "versions": {package: importlib.metadata.version(package) for package in PACKAGES},
    }
