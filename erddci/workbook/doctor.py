"""What a bug report needs: versions, the machine, the model, and whether it works."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

import psutil
import torch

from erddci.inversion import invert, reconstruct
from erddci.model import load
from erddci.scenes.examples import examples

PACKAGES = (
    "erddci torch diffusers transformers numpy scikit-image matplotlib plotly jupyterlab "
    "ipywidgets jupyterlab_widgets papermill"
).split()


def report(model: str = "scenes", device: str = "auto") -> str:
    """Describe the installation in a few lines, ending with a reconstruction in five steps."""
    lines = [f"{package:<20} {_version(package)}" for package in PACKAGES]
    memory = psutil.virtual_memory()
    lines += [
        f"{'python':<20} {platform.python_version()} on {platform.system()} {platform.machine()}",
        f"{'memory':<20} {memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free",
        f"{'processor':<20} {os.cpu_count()} cores, torch uses {torch.get_num_threads()}",
        f"{'accelerator':<20} {_accelerator()}",
        f"{'hub':<20} {_hub()}",
    ]
    return "\n".join([*lines, *_check(model, device)])


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing: run `make workbook`, or pip install -c constraints.txt -e ."


def _accelerator() -> str:
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


def _check(name: str, device: str) -> list[str]:
    try:
        model = load(name, device)
    except ValueError as error:
        return [f"{'model':<20} {error}"]
    example = examples()[0]
    prompt = example.source if name == "scenes" else ""
    condition = model.condition(prompt)
    path = invert(model, model.encode(example.image), condition, "dual-chain", 5)
    error = path.latent_error(reconstruct(model, path)).max().item()
    return [
        f"{'model':<20} {model.name} on {model.device}, {model.dtype}, {model.resolution} px",
        f"{'check':<20} dual-chain reconstruction in 5 steps: largest latent error {error:.1e}",
    ]
