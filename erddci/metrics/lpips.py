"""LPIPS v0.1: how different two images look to a network that was trained to tell things apart.

The features of both images after five layers are brought to unit length over their channels
and subtracted; the squares are added up with a weight for each channel that was fitted to
people's judgements, and averaged over the image.  Source: Zhang et al. 2018, arXiv:1801.03924.

The weights of AlexNet come with the package, those of VGG16 by `erddci weights lpips-vgg`;
erddci/metrics/weights/NOTICE.md says whose they are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from erddci.images import check_pair
from erddci.registry import unknown

# conv0.weight, conv0.bias, …, and head0.weight [1, C, 1, 1] to head4.weight.
Weights = dict[str, Tensor]

SHIPPED = Path(__file__).parent / "weights"

# An image of fewer pixels a side has none left in the last layer.
SMALLEST = {"alex": 31, "vgg": 16}

# Mean and spread of the colours, in [-1, 1], that the weights were fitted with.
SHIFT = torch.tensor([-0.030, -0.088, -0.188])[:, None, None]
SCALE = torch.tensor([0.458, 0.448, 0.450])[:, None, None]


def lpips(reference: np.ndarray, image: np.ndarray, net: str = "alex") -> float:
    """LPIPS v0.1 of images [H, W, 3] in [0, 1]: 0 if equal, larger the less alike they look.

    Values of different nets do not compare.  Source: Zhang et al. 2018, arXiv:1801.03924.

    Args:
        net: "alex" (AlexNet), or "vgg" (VGG16), whose weights have to be fetched once.

    Raises:
        ValueError: not two images of one size, too small a size for the net, or another net.
        FileNotFoundError: the weights of VGG16 were not fetched.
    """
    check_pair(reference, image)
    return lpips_batch(reference[None], image[None], net)[0]


@torch.no_grad()
def lpips_batch(references: np.ndarray, images: np.ndarray, net: str = "alex") -> list[float]:
    """LPIPS of images [B, H, W, 3], each against its own reference; otherwise as `lpips`."""
    check_pair(references, images, batched=True)
    weights, (height, width) = _weights(net), images.shape[1:3]
    if min(height, width) < SMALLEST[net]:
        raise ValueError(
            f"expected at least {SMALLEST[net]} × {SMALLEST[net]} pixels for LPIPS with {net}, "
            f"got {height} × {width}: enlarge both images first"
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
    last = (1, 3, 6, 9, 12)  # before the image is halved, or the network ends
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
        raise unknown(net, LAYERS, "net")
    path = weights_path(net, SHIPPED if net == "alex" else user_cache())
    if not path.is_file():
        raise FileNotFoundError(
            f"no weights of LPIPS with {net} at {path}: run `erddci weights lpips-{net}` once "
            '(64 MB), or use net="alex"'
        )
    return load_file(path)


def weights_path(net: str, folder: Path) -> Path:
    """Where the weights of a net are kept in a folder."""
    return folder / f"lpips_{net}.safetensors"


def user_cache() -> Path:
    """Where weights that were fetched are kept: `erddci` in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "erddci"
