"""The sweep behind every experiment and benchmark: cases × items → tidy rows.

A case is a frozen dataclass whose fields become columns; an item is an image with what is known of
it.  Items are measured in groups: all cases on the first group, then all on the next, so that a
run that was stopped knows as much of one case as of another.  Rows stay in memory, or go to a
`RowStore`, where a run goes on and several processes share it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import PartialState
from tqdm.auto import tqdm

from erddci.experiments.store import RowStore
from erddci.model import StableDiffusion
from erddci.notices import NotFinite
from erddci.registry import lookup

# Measures a case on a group of items: rows whose "image" is an item's place in the group.  The
# dict is shared by all cases of the group, for what several of them need.
Measure = Callable[[StableDiffusion, Sequence[Any], Any, dict], list[dict[str, Any]]]


def processes() -> PartialState:
    """The processes that share a run; one, unless `accelerate launch` started several."""
    return PartialState(cpu=not torch.cuda.is_available())


def sweep(
    measure: Measure,
    model: StableDiffusion,
    items: Sequence[Any],
    cases: Sequence[Any],
    batch: int | None = None,
    store: RowStore | None = None,
) -> pd.DataFrame:
    """Measure every case on every item and return the rows.

    Args:
        items: what is measured on; a store wants them in an order that never changes.
        batch: items that are measured together; all by default.
        store: where rows are kept.  What it holds is not measured again, and all that it holds
            is returned.  Which process measures a group does not change its numbers.
    """
    batch = batch or max(1, len(items))
    groups = [range(n, min(n + batch, len(items))) for n in range(0, len(items), batch)]
    known: set[tuple] = set()
    if store:
        state = processes()
        known = store.known(cases)
        # Every process must have read what is there before any of them adds to it.
        state.wait_for_everyone()
        groups = groups[state.process_index :: state.num_processes]
    todo = {group: _missing(group, cases, known) for group in groups}
    rows = []
    with tqdm(total=sum(map(len, todo.values())), desc="sweep", delay=1) as bar:
        for group, missing in todo.items():
            caches: dict[tuple[int, ...], dict] = defaultdict(dict)
            for case, numbers in missing:
                bar.set_postfix_str(" ".join(map(str, astuple(case))), refresh=False)
                measured = partial(measure, model)
                found = _rows(measured, items, numbers, case, caches[numbers])
                rows += found
                if store:
                    store.add(group.start, found)
                bar.update()
    if not store:
        return pd.DataFrame(rows)
    processes().wait_for_everyone()
    return store.read()


def _rows(
    measured: Callable[[Sequence[Any], Any, dict], list[dict[str, Any]]],
    items: Sequence[Any],
    numbers: Sequence[int],
    case: Any,  # noqa: ANN401 (any frozen dataclass)
    cache: dict,
) -> list[dict[str, Any]]:
    """The rows of some items; one whose numbers grow beyond all bounds has a row that says so."""
    try:
        rows = measured([items[n] for n in numbers], case, cache)
        return [asdict(case) | row | {"image": numbers[row["image"]]} for row in rows]
    except NotFinite as error:
        if len(numbers) == 1:
            return [asdict(case) | {"image": numbers[0], "problem": str(error)}]
        return [row for n in numbers for row in _rows(measured, items, [n], case, {})]


def _missing(
    group: range, cases: Sequence[Any], known: set[tuple]
) -> list[tuple[Any, tuple[int, ...]]]:
    """Cases that are not known of all items of a group, and of which they are not."""
    numbers = [tuple(n for n in group if (*astuple(case), n) not in known) for case in cases]
    return [(case, missing) for case, missing in zip(cases, numbers, strict=True) if missing]


@dataclass(frozen=True)
class Profile:
    """A size of a benchmark.

    Args:
        ways: what is compared, such as methods, at every scale and number of steps.
        scales: guidance scales.
        steps: numbers of DDIM steps.
        images: how many images it is measured on.
    """

    ways: tuple[Any, ...]
    scales: tuple[float, ...]
    steps: tuple[int, ...]
    images: int


@dataclass(frozen=True)
class Benchmark:
    """What a benchmark measures, and on what.

    Args:
        measure: measures a case on some items.
        columns: of a row; the fields of a case and "image" come first.
        order: columns by which rows are sorted.
        cases: from ways, guidance scales and numbers of steps.
        items: the first so many of the images it is measured on.
        identify: a text that tells an item from others.
        profiles: sizes by name.
        summarize: from rows to a table with a row for each case.
        batch: items that are measured together.
    """

    measure: Measure
    columns: tuple[str, ...]
    order: tuple[str, ...]
    cases: Callable[[Iterable[Any], Iterable[float], Iterable[int]], list[Any]]
    items: Callable[[int], Sequence[Any]]
    identify: Callable[[Any], str]
    profiles: Mapping[str, Profile]
    summarize: Callable[[pd.DataFrame], pd.DataFrame]
    batch: int = 4

    def profile(self, name: str) -> Profile:
        """One of `profiles`; raises ValueError for an unknown name."""
        return lookup(self.profiles, name, "profile")

    def read(self, folder: Path) -> pd.DataFrame:
        """All rows that a folder holds, sorted."""
        return self._sorted(RowStore(folder, self.columns).read())

    def run(
        self,
        model: StableDiffusion,
        items: Sequence[Any],
        cases: Sequence[Any],
        folder: Path,
        batch: int | None = None,
    ) -> pd.DataFrame:
        """Measure every case on every item, and return all rows of the folder, sorted.

        Args:
            folder: where rows are kept; made if missing.  What it holds is not measured again.

        Raises:
            ValueError: the folder holds rows of another model, of other items, or other columns.
        """
        store = RowStore(folder, self.columns)
        state = processes()
        if state.is_main_process:
            store.claim(model, [self.identify(item) for item in items])
        state.wait_for_everyone()
        rows = sweep(self.measure, model, items, cases, batch or self.batch, store)
        return self._sorted(rows)

    def run_profile(
        self,
        model: StableDiffusion,
        profile: str | Profile,
        folder: Path,
        batch: int | None = None,
    ) -> pd.DataFrame:
        """The rows of a profile: those that the folder holds, and the rest measured now."""
        chosen = self.profile(profile) if isinstance(profile, str) else profile
        cases = self.cases(chosen.ways, chosen.scales, chosen.steps)
        rows = self.run(model, self.items(chosen.images), cases, folder, batch)
        return select(rows, cases, chosen.images)

    def _sorted(self, rows: pd.DataFrame) -> pd.DataFrame:
        return rows.sort_values(list(self.order), ignore_index=True)


def select(rows: pd.DataFrame, cases: Sequence[Any], images: int) -> pd.DataFrame:
    """The rows of some cases on the first `images`."""
    wanted = pd.DataFrame([asdict(case) for case in cases])
    found = rows.merge(wanted, on=list(wanted))
    return found[found["image"] < images]


def summarize(
    rows: pd.DataFrame, by: Sequence[str], columns: Sequence[str], statistic: str = "median"
) -> pd.DataFrame:
    """Median or mean of some columns for each case, with a bootstrap 95 % interval.

    Returns:
        one row per case, with "x", "x_low" and "x_high" for each column x, and the number of
        images; those whose latents diverged are counted in "failed" alone, and measures that an
        image is too small for are missing.
    """
    found = []
    for key, group in rows.groupby(list(by), sort=False):
        failed = int(group["problem"].notna().sum()) if "problem" in group else 0
        row: dict = dict(zip(by, key, strict=True))
        row |= {"images": len(group) - failed, "failed": failed}
        for column in columns:
            row |= interval(column, group[column].dropna().to_numpy(), statistic)
        found.append(row)
    return pd.DataFrame(found)


def interval(
    column: str, values: np.ndarray, statistic: str = "median", resamples: int = 2000
) -> dict[str, float]:
    """Median or mean of some values, named "column", and its bootstrap 95 % interval.

    The draws are those of `scipy.stats.bootstrap(…, method="percentile")` for the same generator,
    but that interpolates: PSNR may be infinite, so nearest order statistics are taken instead.
    """
    names = (column, f"{column}_low", f"{column}_high")
    if not len(values):
        return dict.fromkeys(names, np.nan)
    draws = np.random.default_rng(0).integers(len(values), size=(resamples, len(values)))
    resampled = values[draws]
    if statistic == "mean":
        estimate = values.mean()
        estimates = resampled.mean(1)
    else:
        estimate = np.quantile(values, 0.5, method="nearest")
        estimates = np.quantile(resampled, 0.5, axis=1, method="nearest")
    low, high = np.quantile(estimates, [0.025, 0.975], method="nearest")
    return dict(zip(names, map(float, (estimate, low, high)), strict=True))
