"""Executing the notebooks with papermill: the same way for readers, figures and tests."""

from __future__ import annotations

import os
import time
from pathlib import Path

import nbformat
import papermill

from erddci.workbook.files import named

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def files(names: list[str] | None = None, folder: Path = NOTEBOOKS) -> list[Path]:
    """The notebooks of a folder, or those whose names start with one of `names`.

    Raises:
        ValueError: a name that fits no notebook, or no notebooks at all.
    """
    return named(folder, ["*.ipynb"], names, "notebook")


def execute(
    path: Path, out: Path, save: bool = False, parameters: dict[str, object] | None = None
) -> float:
    """Execute a notebook into a copy in `out` and return the seconds it took.

    Interactive views are left out (`live` is false) and progress bars are silent.  With `save`,
    the outputs are also written into the notebook itself, and nothing else of it changes.

    Raises:
        papermill.PapermillExecutionError: a cell failed; the copy shows which.
    """
    out.mkdir(parents=True, exist_ok=True)
    before = dict(os.environ)
    os.environ |= {"ERDDCI_STATIC": "1", "TQDM_DISABLE": "1"}
    start = time.monotonic()
    try:
        papermill.execute_notebook(
            path,
            out / path.name,
            parameters,
            kernel_name="python3",
            cwd=path.parent,
            progress_bar=False,
            execution_timeout=600,
        )
    finally:
        os.environ.clear()
        os.environ.update(before)
    seconds = time.monotonic() - start
    if save:
        _keep_outputs(path, out / path.name)
    return seconds


def _keep_outputs(path: Path, executed: Path) -> None:
    notebook, copy = nbformat.read(path, 4), nbformat.read(executed, 4)
    outputs = {cell.id: cell for cell in copy.cells if cell.cell_type == "code"}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [o for o in outputs[cell.id].outputs if not _is_progress(o)]
            cell.execution_count = outputs[cell.id].execution_count
    nbformat.write(notebook, path)


def _is_progress(output: nbformat.NotebookNode) -> bool:
    # In a kernel tqdm draws its bars whatever TQDM_DISABLE says, as text or as a widget.
    widget = "application/vnd.jupyter.widget-view+json" in output.get("data", {})
    return widget or (output.get("name") == "stderr" and "%|" in output.text)
