"""What a bug report needs: versions, the machine, the model, and whether it works."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

import erddci

if TYPE_CHECKING:
    from erddci.model import StableDiffusion

# Functions that need torch import it themselves: the first lines are there before it is.

PACKAGES = (
    "erddci torch diffusers transformers numpy scikit-image matplotlib plotly jupyterlab "
    "ipywidgets jupyterlab_widgets papermill"
).split()


def report(model: str = "scenes", device: str = "auto") -> Iterator[str]:
    """Describe the installation line by line, ending with a reconstruction in five steps.

    Each line comes as soon as it is known, those that need no network first.
    """
    for package in PACKAGES:
        yield _line(package, _version(package))
    system = f"{platform.system()} {platform.machine()}"
    yield _line("python", f"{platform.python_version()} on {system}")
    memory = psutil.virtual_memory()
    free, total = memory.available / 2**30, memory.total / 2**30
    yield _line("memory", f"{free:.1f} of {total:.1f} GiB free")
    yield _line("processor", _processor())
    yield _line("accelerator", _accelerator())
    yield _line("hub", _hub())
    yield from _check(model, device)


def _line(name: str, text: str) -> str:
    return f"{name:<20} {text}"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing: run `make`, or pip install -c constraints.txt -e '.[notebooks]'"


def _processor() -> str:
    import torch

    return f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()}"


def _accelerator() -> str:
    import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        name = torch.cuda.get_device_name()
        return f"{name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
    return "Apple MPS" if torch.backends.mps.is_available() else "none: the CPU is enough"


def _hub() -> str:
    from huggingface_hub import constants

    state = "offline (HF_HUB_OFFLINE is set)" if constants.HF_HUB_OFFLINE else "asked when needed"
    cache = Path(constants.HF_HUB_CACHE)
    models = sorted(each.name[8:].replace("--", "/") for each in cache.glob("models--*"))
    return f"{state}; cached: {', '.join(models) or 'no models'}"


def _check(name: str, device: str) -> Iterator[str]:
    try:
        model = erddci.load(name, device)
        where = f"{model.name} on {model.device}, {model.dtype}, {model.resolution} px"
        yield _line("model", where)
    except (ValueError, FileNotFoundError, ConnectionError) as error:
        yield _line("model", str(error))
        return
    try:
        yield _line("check", _reconstruct(model, name))
    except Exception as error:  # a report is to be whole whatever is wrong
        yield _line("check", f"failed: {type(error).__name__}: {error}")


def _reconstruct(model: StableDiffusion, name: str) -> str:
    example = erddci.examples()[0]
    condition = model.condition(example.source if name == "scenes" else "")
    path = erddci.invert(model, model.encode(example.image), condition, "dual-chain", 5)
    error = path.latent_error(erddci.reconstruct(model, path)).max().item()
    return f"dual-chain reconstruction in 5 steps: largest latent error {error:.1e}"
