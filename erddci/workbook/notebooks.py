"""Executing the notebooks with papermill: the same way for readers, figures and tests."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import papermill
from ipykernel.kernelspec import write_kernel_spec
from nbclient.exceptions import CellTimeoutError, DeadKernelError

from erddci.workbook.files import named

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def files(names: list[str] | None = None, folder: Path = NOTEBOOKS) -> list[Path]:
    """The notebooks of a folder, or those whose names start with one of `names`.

    Raises:
        ValueError: a name that fits no notebook, or no notebooks at all.
    """
    return named(folder, ["*.ipynb"], names, "notebook")


class NotebookError(ValueError):
    """Says which cell of a notebook failed, and where the executed copy is."""


def execute(
    path: Path, out: Path, save: bool = False, parameters: dict[str, object] | None = None
) -> float:
    """Execute a notebook into a copy in `out` and return the seconds it took.

    It runs on this very interpreter, whatever kernels the machine lists.  Interactive views are
    left out (`live` is false) and progress bars are silent.  With `save`, the outputs are also
    written into the notebook itself, but for those of solutions, and nothing else of it changes.

    Raises:
        NotebookError: a cell failed, or the kernel died; the copy shows where.
    """
    out.mkdir(parents=True, exist_ok=True)
    copy = out / path.name
    start = time.monotonic()
    try:
        _run(path, copy, parameters)
    except papermill.PapermillExecutionError as error:
        cell = f"cell {error.exec_count}: {error.ename}: {error.evalue}"
        raise NotebookError(f"{path.name} failed in {cell}; {copy} shows where") from error
    except (DeadKernelError, CellTimeoutError) as error:
        reason = str(error).splitlines()[0]
        raise NotebookError(f"{path.name} did not end: {reason}; {copy} shows where") from error
    seconds = time.monotonic() - start
    if save:
        _keep_outputs(path, copy)
    return seconds


def _run(path: Path, copy: Path, parameters: dict[str, object] | None) -> None:
    with tempfile.TemporaryDirectory() as folder, _environment(_kernels(Path(folder))):
        papermill.execute_notebook(
            _literal(path),
            _literal(copy),
            parameters,
            kernel_name=KERNEL,
            cwd=path.parent,
            progress_bar=False,
            execution_timeout=600,
        )


KERNEL = "erddci-this-python"


def _kernels(folder: Path) -> dict[str, str]:
    """The environment of an execution, with a kernel of this interpreter in a folder."""
    write_kernel_spec(folder / "kernels" / KERNEL)
    known = os.environ.get("JUPYTER_PATH")
    return {
        "JUPYTER_PATH": os.pathsep.join([str(folder), *([known] if known else [])]),
        "ERDDCI_STATIC": "1",
        "TQDM_DISABLE": "1",
    }


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ |= variables
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _literal(path: Path) -> str:
    # papermill reads names in braces as parameters.
    return str(path).replace("{", "{{").replace("}", "}}")


def _keep_outputs(path: Path, executed: Path) -> None:
    notebook, copy = nbformat.read(path, 4), nbformat.read(executed, 4)
    outputs = {cell.id: cell for cell in copy.cells if cell.cell_type == "code"}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            hidden = "solution" in cell.metadata.get("tags", ())
            found = [] if hidden else outputs[cell.id].outputs
            cell.outputs = [o for o in found if not _is_progress(o)]
            cell.execution_count = outputs[cell.id].execution_count
    # A notebook that is there is whole: an interruption leaves only the partial one.
    partial = path.with_name(f".{path.name}.partial")
    nbformat.write(notebook, partial)
    partial.replace(path)


def _is_progress(output: nbformat.NotebookNode) -> bool:
    # In a kernel tqdm draws its bars whatever TQDM_DISABLE says, as text or as a widget.
    widget = "application/vnd.jupyter.widget-view+json" in output.get("data", {})
    return widget or (output.get("name") == "stderr" and "%|" in output.text)
