"""Masks as people have them, as shares of each latent pixel."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from erddci.notices import NoEffect, notify

MaskInput = np.ndarray | Tensor | Image.Image

# Masks of integers count to 1 or to 255; what ends in between is rather a map of labels.
DARKEST_WHITE = 128


def latent_mask(mask: MaskInput, height: int, width: int) -> Tensor:
    """Bring a mask to latents: the share of each latent pixel that may change.

    Args:
        mask: an array, a tensor or a PIL image, [H, W] with any axes of length 1 around it, or
            grey in equal channels [H, W, 3]; of bool, of floats in [0, 1], or of integers from 0
            to 1 or from 0 to 255.  Its size is that of the latents or a whole multiple.
        height, width: of the latents.

    Returns:
        [1, 1, height, width], float64 in [0, 1], the mean over the pixels of each latent pixel.

    Raises:
        ValueError: a mask of another kind, type, size or range, or one that can be read in two
            ways.
    """
    shares = torch.from_numpy(_shares(_grey(_as_array(mask))))
    ratio = len(shares) // height
    if ratio < 1 or shares.shape != (ratio * height, ratio * width):
        raise ValueError(
            f"expected a mask of the image or of its latents, [{height}, {width}] or a "
            f"multiple, got {list(shares.shape)}: resize it first, and crop it as the image was"
        )
    if shares.max() == 0 or shares.min() == 1:
        value, effect = (1, "has no effect") if shares.max() else (0, "lets nothing change")
        notify(f"the mask is {value} everywhere: it {effect}", NoEffect)
    return F.avg_pool2d(shares[None, None], ratio)


def _as_array(mask: MaskInput) -> np.ndarray:
    if isinstance(mask, Image.Image):
        return _pixels(mask)
    if isinstance(mask, Tensor):
        mask = mask.detach().cpu().to_dense()
        # NumPy has no bfloat16.
        return (mask.double() if mask.is_floating_point() else mask).numpy()
    if isinstance(mask, np.ndarray) and not isinstance(mask, np.ma.MaskedArray):
        return mask
    raise ValueError(
        f"expected a mask as an array, a tensor or a PIL image, got {type(mask).__name__}"
    )


def _pixels(mask: Image.Image) -> np.ndarray:
    try:
        mask = ImageOps.exif_transpose(mask)
    # Decoders of damaged files raise whatever they trip over.
    except Exception as error:
        raise ValueError(
            "the mask is not an image that can be read: expected an undamaged PNG, JPEG, …"
        ) from error
    if mask.has_transparency_data:
        mask = mask.convert("RGBA")
    elif mask.mode not in ("1", "L", "F") and not mask.mode.startswith("I"):
        mask = mask.convert("RGB")
    return np.asarray(mask)


def _grey(values: np.ndarray) -> np.ndarray:
    """The mask [H, W] in an array with further axes that say nothing."""
    shape = list(values.shape)
    while values.ndim > 2 and len(values) == 1:
        values = values[0]
    if values.ndim == 3 and values.shape[2] in (2, 4):
        alpha = values[..., -1]
        if alpha.size and (alpha.min() < alpha.max() or alpha.max() == 0):
            raise ValueError(
                "expected a mask in grey, got one with transparency: pass the grey or the alpha "
                "channel alone"
            )
        values = values[..., :-1]
    if values.ndim == 3 and values.shape[2] in (1, 3):
        if (values != values[..., :1]).any():
            raise ValueError("expected a mask in grey, got colours: pass one channel")
        values = values[..., 0]
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"expected a mask [H, W] for all samples, got shape {shape}")
    return values


def _shares(values: np.ndarray) -> np.ndarray:
    """Values of any type as float64 in [0, 1], in memory of their own."""
    kind = values.dtype.kind
    if kind not in "bfiu":
        raise ValueError(f"expected a mask of bool, floats or integers, got {values.dtype}")
    low, high = values.min(), values.max()
    # Written so that NaN, which compares as false, is refused too.
    if not (low >= 0 and high <= (1 if kind == "f" else 255)):
        raise ValueError(
            f"expected a mask of floats from 0 to 1 or of integers from 0 to 255, got "
            f"{values.dtype} from {low} to {high}: scale it first"
        )
    if kind in "iu" and 1 < high < DARKEST_WHITE:
        raise ValueError(
            f"expected a mask of integers from 0 to 1 or from 0 to 255, got 0 to {high}, which "
            "could be either: pass bool, or floats from 0 to 1"
        )
    scale = 255 if kind in "iu" and high > 1 else 1
    return np.array(values, dtype=np.float64, order="C") / scale
