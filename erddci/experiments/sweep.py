"""Long measurements that may be stopped: rows on disk, resumed, and shared by processes.

A run measures every case on every item, in groups of items that are walked together: all cases on
the first group, then all on the next, so that a run that was stopped knows as much of one case as
of another.  Rows are written as they come.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from accelerate import PartialState
from tqdm.auto import tqdm

from erddci.model import StableDiffusion

Item = TypeVar("Item")

# Measures one case on some items: a row for each.  The dict is shared by the cases of a group, to
# keep what several of them need.
Measure = Callable[[StableDiffusion, list, Any, dict], list[dict]]


def processes() -> PartialState:
    """The processes that share a run; one, unless `accelerate launch` started several."""
    return PartialState(cpu=not torch.cuda.is_available())


def run(
    model: StableDiffusion,
    items: Sequence[Item],
    prompts: Sequence[str],
    todo: Sequence[Any],
    measure: Measure,
    columns: Sequence[str],
    folder: Path,
    batch: int,
) -> pd.DataFrame:
    """Measure every case on every item, save each group when it is done, and return all rows.

    What `folder` already holds is not measured again.  Under `accelerate launch` the processes
    share the groups; which process measured a group does not change its numbers.

    Args:
        items: what is measured on, in an order that never changes.
        prompts: what tells the items apart.
        todo: cases, of one frozen dataclass; their fields are columns.
        columns: the columns of a row, the case's fields and "image" among them.
        folder: where rows go, one file a process; made if missing.
        batch: items that are walked together.

    Raises:
        ValueError: the folder holds rows of another model or of other items.
    """
    state = processes()
    if state.is_main_process:
        _claim(folder, model, prompts)
    state.wait_for_everyone()
    known = _done(folder, todo, columns)
    # Every process must have read what is there before any of them adds to it.
    state.wait_for_everyone()
    groups = [range(n, min(n + batch, len(items))) for n in range(0, len(items), batch)]
    units = []
    for group in groups[state.process_index :: state.num_processes]:
        kept: dict = {}
        for case in todo:
            left = [number for number in group if (*asdict(case).values(), number) not in known]
            units += [(case, left, kept)] if left else []
    bar = tqdm(units, "benchmark", disable=not state.is_main_process, delay=1)
    path = folder / f"rows-{state.process_index}.csv"
    _mend(path)
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        if not file.tell():
            writer.writeheader()
        for case, numbers, kept in bar:
            bar.set_postfix_str(" ".join(str(value) for value in asdict(case).values()))
            # What is kept holds for a whole group, not for what is left of it.
            shared = kept.setdefault(tuple(numbers), {})
            rows = measure(model, [items[number] for number in numbers], case, shared)
            for number, row in zip(numbers, rows, strict=True):
                row = {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()}
                writer.writerow(asdict(case) | row | {"image": number})
            file.flush()
            os.fsync(file.fileno())
    state.wait_for_everyone()
    return read(folder, columns)


def read(folder: Path, columns: Sequence[str]) -> pd.DataFrame:
    """All rows that a folder holds, sorted; a line that was cut off in mid-write is left out.

    `columns` up to "image" tell rows apart; what was written twice is read once.
    """
    parts = [_whole(path) for path in sorted(folder.glob("rows-*.csv"))]
    frames = [pd.read_csv(io.StringIO(part), keep_default_na=True) for part in parts if part]
    if not frames:
        return pd.DataFrame(columns=list(columns))
    order = list(columns[: list(columns).index("image") + 1])
    rows = pd.concat([frame for frame in frames if len(frame)] or frames)
    return rows.drop_duplicates(order).sort_values(order, ignore_index=True)


def chosen(rows: pd.DataFrame, todo: Sequence[Any], items: int) -> pd.DataFrame:
    """The rows of some cases on the first `items`."""
    cases = pd.DataFrame([asdict(each) for each in todo])
    wanted = rows.merge(cases, on=list(cases))
    return wanted[wanted["image"] < items]


def summary(
    frame: pd.DataFrame,
    by: Sequence[str],
    columns: Sequence[str],
    statistic: str = "median",
    resamples: int = 2000,
) -> pd.DataFrame:
    """Median or mean of some columns for each case, with a bootstrap 95 % interval.

    Returns:
        one row per case, with `column`, `column low` and `column high` for each column, and the
        number of images; walks that led nowhere are counted in `failed`, and measures that a
        image is too small for are missing.
    """
    found = []
    for key, group in frame.groupby(list(by), sort=False):
        row: dict = dict(zip(by, key, strict=True))
        failed = int(group["problem"].notna().sum()) if "problem" in group else 0
        row |= {"images": len(group) - failed, "failed": failed}
        for column in columns:
            row |= interval(column, group[column].dropna().to_numpy(), statistic, resamples)
        found.append(row)
    return pd.DataFrame(found)


def interval(
    column: str, values: np.ndarray, statistic: str = "median", resamples: int = 2000
) -> dict[str, float]:
    """Median or mean of some values, named `column`, and its bootstrap 95 % interval."""
    names = (column, f"{column}_low", f"{column}_high")
    if not len(values):
        return dict.fromkeys(names, np.nan)
    draws = np.random.default_rng(0).integers(len(values), size=(resamples, len(values)))
    if statistic == "mean":
        middle, found = values.mean(), values[draws].mean(1)
    else:
        # Nearest order statistics: PSNR may be infinite, which cannot be averaged.
        middle = np.quantile(values, 0.5, method="nearest")
        found = np.quantile(values[draws], 0.5, axis=1, method="nearest")
    low, high = np.quantile(found, [0.025, 0.975], method="nearest")
    return dict(zip(names, map(float, (middle, low, high)), strict=True))


def _claim(folder: Path, model: StableDiffusion, prompts: Sequence[str]) -> None:
    """Write down what the rows of a folder are of, or check that it is the same.

    More items may follow those that are known.
    """
    marks = [hashlib.sha256(prompt.encode()).hexdigest()[:8] for prompt in prompts]
    settings = {"model": model.name, "dtype": str(model.dtype), "prompts": marks}
    path = folder / "settings.json"
    if path.is_file():
        known = json.loads(path.read_text())
        shared = min(len(marks), len(known["prompts"]))
        for name, value in {**settings, "prompts": marks[:shared]}.items():
            old = known["prompts"][:shared] if name == "prompts" else known[name]
            if old != value:
                raise ValueError(
                    f"{folder} holds rows of other {name} ({old}, got {value}): go on with the "
                    "same model and images, or name another folder"
                )
        settings["prompts"] = max(marks, known["prompts"], key=len)
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(settings) + "\n")


def _whole(path: Path) -> str:
    """A file's text up to its last line break: what comes after was cut off by a kill."""
    text = path.read_text()
    return text[: text.rfind("\n") + 1]


def _mend(path: Path) -> None:
    if path.is_file() and _whole(path) != path.read_text():
        path.write_text(_whole(path))


def _done(folder: Path, todo: Sequence[Any], columns: Sequence[str]) -> set[tuple]:
    if not todo:
        return set()
    names = [each.name for each in fields(todo[0])]
    rows = read(folder, columns)[[*names, "image"]].to_dict("records")
    return {tuple(row[name] for name in [*names, "image"]) for row in rows}
