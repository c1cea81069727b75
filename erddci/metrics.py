"""How alike two pictures are.

Every number needs a reference.  Against the *VAE round trip* of a picture (encode, then decode)
an inversion method alone is measured; against the *input image* the VAE's own loss is added, and
no method can do better than the VAE floor.
"""

from __future__ import annotations

import numpy as np
from skimage.metrics import peak_signal_noise_ratio, structural_similarity


def psnr(reference: np.ndarray, image: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of pictures [H, W, 3] in [0, 1]; infinite if equal."""
    _check(reference, image)
    if np.array_equal(reference, image):
        return float("inf")
    return float(peak_signal_noise_ratio(reference, image, data_range=1.0))


def ssim(reference: np.ndarray, image: np.ndarray) -> float:
    """Structural similarity of pictures [H, W, 3] in [0, 1]: 1 if equal, 7 × 7 windows.

    Source: Wang et al. 2004, as scikit-image computes it by default.
    """
    _check(reference, image)
    return float(structural_similarity(reference, image, data_range=1.0, channel_axis=-1))


def mse(reference: np.ndarray, image: np.ndarray) -> float:
    """Mean squared error of pictures [H, W, 3] in [0, 1]."""
    _check(reference, image)
    return float(np.square(np.subtract(reference, image, dtype=np.float64)).mean())


MEASURES = {"psnr": psnr, "ssim": ssim, "mse": mse}


def compare(reference: np.ndarray, image: np.ndarray) -> dict[str, float]:
    """All measures of one picture against one reference."""
    return {name: measure(reference, image) for name, measure in MEASURES.items()}


def _check(reference: np.ndarray, image: np.ndarray) -> None:
    if reference.shape != image.shape or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"expected two pictures [H, W, 3] of one size, got {reference.shape} and {image.shape}"
        )
    for each in (reference, image):
        # Written so that NaN, which compares as false, is refused too.
        if not (np.issubdtype(each.dtype, np.floating) and each.min() >= 0 and each.max() <= 1):
            raise ValueError(
                f"expected floats between 0 and 1, got {each.dtype} from {each.min()} to "
                f"{each.max()}: divide 8-bit values by 255"
            )
