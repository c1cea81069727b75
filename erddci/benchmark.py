"""The reconstruction benchmark: methods × guidance scales × steps × pictures, one row a picture.

Rows are written as they come, so a run that was stopped goes on where it was; several processes
share a run when `accelerate launch` starts it.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import PartialState
from tqdm.auto import tqdm

from erddci.data import held_out
from erddci.experiments import Pictures, latent_errors, measures, published_order
from erddci.images import Picture
from erddci.inversion import METHODS, invert, reconstruct
from erddci.metrics import MEASURES
from erddci.model import StableDiffusion

PROFILES: dict[str, dict] = {
    "small": {"scales": (1.0, 7.5), "steps": (10,), "scenes": 2},
    # What the committed table and figure hold: few steps and scenes, all but the slowest method.
    "table": {
        "scales": (1.0, 7.5),
        "steps": (10,),
        "scenes": 10,
        "methods": tuple(name for name in METHODS if name != "spdinv"),
    },
    "full": {"scales": (1.0, 3.0, 7.5), "steps": (10, 20, 50, 100), "scenes": 100},
}

MEASURED = [f"{name} {of}" for of in ("vae", "input") for name in MEASURES]
COLUMNS = [
    *("method", "guidance_scale", "inverted_at", "steps", "picture"),
    *MEASURED,
    *("latent rms", "latent max", "rows up", "rows back", "seconds up", "seconds back"),
    *("kept MB", "peak MB", "batch", "problem"),
]

# Both ways of climbing are common for these: at w = 1, and at the w of the way back.
EITHER = ("ddim", "dual-chain")


@dataclass(frozen=True)
class Case:
    """One setting of the benchmark: what is run on every picture.

    `inverted_at` is the guidance scale of the inversion, `guidance_scale` that of the way back.
    """

    method: str
    guidance_scale: float
    inverted_at: float
    steps: int


def cases(
    methods: Iterable[str] = tuple(METHODS),
    scales: Iterable[float] = (1.0,),
    steps: Iterable[int] = (50,),
) -> list[Case]:
    """All settings of a sweep: each method climbs as its paper has it, some in either way.

    Raises:
        ValueError: an unknown method.
    """
    methods, scales, found = tuple(methods), tuple(scales), []
    unknown = [name for name in methods if name not in METHODS]
    if unknown:
        raise ValueError(f"unknown method {unknown[0]!r}: expected some of {', '.join(METHODS)}")
    for n in steps:
        for w in scales:
            for name in methods:
                ways = [1.0, w] if name in EITHER else [w if METHODS[name].guided else 1.0]
                found += [Case(name, float(w), float(way), n) for way in dict.fromkeys(ways)]
    return found


def processes() -> PartialState:
    """The processes that share a run; one, unless `accelerate launch` started several."""
    return PartialState(cpu=not torch.cuda.is_available())


def known_profile(name: str) -> dict:
    """A profile by its name; raises ValueError for an unknown one."""
    if name not in PROFILES:
        raise ValueError(f"unknown profile {name!r}: expected one of {', '.join(PROFILES)}")
    return PROFILES[name]


def profile(model: StableDiffusion, name: str, folder: Path, batch: int = 4) -> pd.DataFrame:
    """The rows of one of `PROFILES` on held-out scenes: those of `folder`, the rest measured now.

    Raises:
        ValueError: an unknown profile, or a folder of other rows.
    """
    chosen = known_profile(name)
    todo = cases(chosen.get("methods", METHODS), chosen["scales"], chosen["steps"])
    return run(model, held_out(chosen["scenes"]), todo, folder, batch)


def run(
    model: StableDiffusion,
    pictures: Pictures,
    todo: Sequence[Case],
    folder: Path,
    batch: int = 4,
) -> pd.DataFrame:
    """Run every case on every picture, save each batch when it is done, and return all rows.

    What `folder` already holds is not run again.  Under `accelerate launch` the processes share
    the batches; which process ran a batch does not change its numbers.

    Args:
        pictures: pictures with their prompts.
        folder: where rows go, one file a process; made if missing.
        batch: pictures that are walked together.

    Raises:
        ValueError: the folder holds rows of another model or of other pictures.
    """
    state = processes()
    if state.is_main_process:
        _claim(folder, model, pictures)
    state.wait_for_everyone()
    known = _done(folder)
    # Every process must have read what is there before any of them adds to it.
    state.wait_for_everyone()
    units = []
    for case in todo:
        left = [number for number in range(len(pictures)) if (case, number) not in known]
        units += [(case, left[start : start + batch]) for start in range(0, len(left), batch)]
    mine = units[state.process_index :: state.num_processes]
    bar = tqdm(mine, "benchmark", disable=not state.is_main_process, delay=1)
    path = folder / f"rows-{state.process_index}.csv"
    _mend(path)
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if not file.tell():
            writer.writeheader()
        for case, numbers in bar:
            bar.set_postfix_str(f"{case.method} w={case.guidance_scale:g} N={case.steps}")
            rows = _run_one(model, [pictures[number] for number in numbers], case)
            for number, row in zip(numbers, rows, strict=True):
                row = {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()}
                writer.writerow(asdict(case) | {"picture": number} | row)
            file.flush()
            os.fsync(file.fileno())
    state.wait_for_everyone()
    return read(folder)


def read(folder: Path) -> pd.DataFrame:
    """All rows that a folder holds, sorted; a line that was cut off in mid-write is left out."""
    parts = [_whole(path) for path in sorted(folder.glob("rows-*.csv"))]
    frames = [pd.read_csv(io.StringIO(part)) for part in parts if part]
    if not frames:
        return pd.DataFrame(columns=COLUMNS)
    order = ["steps", "guidance_scale", "method", "inverted_at", "picture"]
    rows = pd.concat([frame for frame in frames if len(frame)] or frames)
    return rows.drop_duplicates(order).sort_values(order, ignore_index=True)


def summary(
    frame: pd.DataFrame,
    columns: Sequence[str] = ("psnr vae", "ssim vae", "lpips vae"),
    resamples: int = 2000,
) -> pd.DataFrame:
    """Median of some columns for each case, with a bootstrap 95 % interval.

    Returns:
        one row per case, with `column`, `column low` and `column high` for each column, and the
        number of pictures; walks that led nowhere are counted in `failed`, and measures that a
        picture is too small for are missing.
    """
    by = ["method", "guidance_scale", "inverted_at", "steps"]
    found = []
    for key, group in frame.groupby(by, sort=False):
        row: dict = dict(zip(by, key, strict=True))
        failed = int(group["problem"].notna().sum()) if "problem" in group else 0
        row |= {"pictures": len(group) - failed, "failed": failed}
        for column in columns:
            row |= _median(column, group[column].dropna().to_numpy(), resamples)
        found.append(row)
    return pd.DataFrame(found)


def _median(column: str, values: np.ndarray, resamples: int) -> dict[str, float]:
    names = (column, f"{column} low", f"{column} high")
    if not len(values):
        return dict.fromkeys(names, np.nan)
    draws = np.random.default_rng(0).integers(len(values), size=(resamples, len(values)))
    # Nearest order statistics: PSNR may be infinite, which cannot be averaged.
    medians = np.quantile(values[draws], 0.5, axis=1, method="nearest")
    low, high = np.quantile(medians, [0.025, 0.975], method="nearest")
    middle = np.quantile(values, 0.5, method="nearest")
    return dict(zip(names, map(float, (middle, low, high)), strict=True))


def speed(
    model: StableDiffusion,
    picture: tuple[Picture, str],
    steps: int = 50,
    repeats: int = 3,
    others: Iterable[str] = ("ddim", "aidi", "edict", "null-text", "spdinv"),
) -> pd.DataFrame:
    """Time the reconstruction of one picture: the dual chain in three orders, and other methods.

    All runs of one repeat follow each other, so a busy machine slows all of them.  Everything is
    at w = 1 but null-text, which has nothing to optimise there: it runs at w = 7.5.

    Returns:
        one row per run: median seconds, `outside`, the share of them not spent in the UNet (with
        gradients, their backward pass counts as outside), network rows, the largest latent error,
        and `speedup`, how many times faster than the authors' order of calls.
    """
    x, condition = model.encode(picture[0]), model.condition(picture[1])

    def there_and_back(method: str, w: float = 1.0, **options: object) -> float:
        path = invert(model, x, condition.at(w), method, steps, **options)
        return path.drift(reconstruct(model, path)).max().item()

    runs: dict[str, Callable[[], float]] = {
        "as published": lambda: published_order(model, x, condition, steps)["latent max"],
        "dual-chain, noise kept": partial(there_and_back, "dual-chain"),
        "dual-chain, kept and shared": partial(there_and_back, "dual-chain", asks="source"),
        **{name: partial(there_and_back, name) for name in others if name != "null-text"},
    }
    if "null-text" in others:
        runs["null-text, w = 7.5"] = partial(there_and_back, "null-text", 7.5)
    found = []
    for repeat in range(repeats + 1):
        for name, go in tqdm(runs.items(), "speed", leave=False, delay=1):
            before, start = model.rows, _now(model)
            with _network_time(model) as network:
                error = go()
            seconds = _now(model) - start
            outside = 1 - sum(network) / seconds
            row = {"run": name, "seconds": seconds, "outside": outside, "latent max": error}
            if repeat:  # the first warms up
                found.append(row | {"rows": model.rows - before})
    table = pd.DataFrame(found).groupby("run", sort=False).median().reset_index()
    published = table.loc[table["run"] == "as published", "seconds"].item()
    return table.assign(speedup=published / table["seconds"])


@contextmanager
def _network_time(model: StableDiffusion) -> Iterator[list[float]]:
    """Seconds of every call of the UNet while the block runs."""
    calls: list[float] = []
    starts: list[float] = []
    before = model.unet.register_forward_pre_hook(lambda *_: starts.append(_now(model)))
    after = model.unet.register_forward_hook(lambda *_: calls.append(_now(model) - starts.pop()))
    try:
        yield calls
    finally:
        before.remove()
        after.remove()


def throughput(
    model: StableDiffusion, batches: Iterable[int] = (1, 2, 4, 8, 16), steps: int = 20
) -> pd.DataFrame:
    """Pictures reconstructed per second by the dual chain at w = 1, by batch size."""
    rows = []
    for size in tqdm(list(batches), "batch sizes", leave=False, delay=1):
        pictures = held_out(size)
        x = model.encode([picture for picture, _ in pictures])
        condition = model.condition([prompt for _, prompt in pictures])
        seconds = []
        for _ in range(3):
            start = _now(model)
            reconstruct(model, invert(model, x, condition, "dual-chain", steps))
            seconds.append(_now(model) - start)
        rows.append({"batch": size, "pictures per second": size / float(np.median(seconds))})
    table = pd.DataFrame(rows)
    return table.assign(ideal=table["batch"] * table["pictures per second"][0] / table["batch"][0])


@torch.no_grad()
def _run_one(model: StableDiffusion, pictures: Pictures, case: Case) -> list[dict]:
    """Run one case on some pictures together: a row for each."""
    x = model.encode([picture for picture, _ in pictures])
    condition = model.condition([prompt for _, prompt in pictures])
    condition, start = condition.at(case.guidance_scale), time.perf_counter()
    with _peak(model) as peak:
        path = invert(model, x, condition.at(case.inverted_at), case.method, case.steps)
        middle = _now(model)
        back = reconstruct(model, path, condition)
        end = _now(model)
    kept = sum(tensor.nbytes for tensor in path.kept.values())
    shared = {
        "rows up": path.rows,
        "rows back": back.rows,
        "seconds up": (middle - start) / len(x),
        "seconds back": (end - middle) / len(x),
        "kept MB": kept / len(x) / 1e6,
        "batch": len(x),
        **peak,
    }
    rows, round_trips, decoded = [], model.decode(x), model.decode(back.image)
    for number, (picture, _) in enumerate(pictures):
        row: dict = latent_errors(path, back, number)[0]
        del row["node"], row["t"]
        try:
            row |= measures(decoded[number], model.read(picture), round_trips[number])
        except ValueError as error:  # The walk left the numbers that a picture can have.
            row["problem"] = str(error)
        rows.append(row | shared)
    return rows


def _now(model: StableDiffusion) -> float:
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter()


@contextmanager
def _peak(model: StableDiffusion) -> Iterator[dict[str, float]]:
    """Peak memory in MB while the block runs: of the GPU, or of the process where Linux tells."""
    found: dict[str, float] = {}
    high = Path("/proc/self/status")
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(model.device)
    elif sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM back to what is in use
    yield found
    if model.device.type == "cuda":
        found["peak MB"] = torch.cuda.max_memory_allocated(model.device) / 1e6
    elif sys.platform == "linux":
        line = next(line for line in high.read_text().splitlines() if line.startswith("VmHWM"))
        found["peak MB"] = int(line.split()[1]) / 1e3


def _claim(folder: Path, model: StableDiffusion, pictures: Pictures) -> None:
    """Write down what the rows of a folder are of, or check that it is the same.

    More pictures may follow those that are known.
    """
    prompts = [hashlib.sha256(prompt.encode()).hexdigest()[:8] for _, prompt in pictures]
    settings = {"model": model.name, "dtype": str(model.dtype), "prompts": prompts}
    path = folder / "settings.json"
    if path.is_file():
        known = json.loads(path.read_text())
        shared = min(len(prompts), len(known["prompts"]))
        for name, value in {**settings, "prompts": prompts[:shared]}.items():
            old = known["prompts"][:shared] if name == "prompts" else known[name]
            if old != value:
                raise ValueError(
                    f"{folder} holds rows of other {name} ({old}, got {value}): go on with the "
                    "same model and pictures, or name another folder"
                )
        settings["prompts"] = max(prompts, known["prompts"], key=len)
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(settings) + "\n")


def _whole(path: Path) -> str:
    """A file's text up to its last line break: what comes after was cut off by a kill."""
    text = path.read_text()
    return text[: text.rfind("\n") + 1]


def _mend(path: Path) -> None:
    if path.is_file() and _whole(path) != path.read_text():
        path.write_text(_whole(path))


def _done(folder: Path) -> set[tuple[Case, int]]:
    names = list(Case.__dataclass_fields__)
    rows = read(folder)[[*names, "picture"]].to_dict("records")
    return {(Case(**{str(k): row[k] for k in names}), row["picture"]) for row in rows}
