"""How alike two images are.

Every number needs a reference.  Against the *VAE round trip* of an image (encode, then decode)
an inversion method alone is measured; against the *input image* the VAE's own loss is added, and
no method can do better than the VAE floor.
"""

from __future__ import annotations

import numpy as np
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from erddci.images import check_pair
from erddci.metrics.lpips import SMALLEST, lpips


def psnr(reference: np.ndarray, image: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of images [H, W, 3] in [0, 1]; infinite if equal."""
    check_pair(reference, image)
    if np.array_equal(reference, image):
        return float("inf")
    return float(peak_signal_noise_ratio(reference, image, data_range=1.0))


def ssim(reference: np.ndarray, image: np.ndarray) -> float:
    """Structural similarity of images [H, W, 3] in [0, 1]: 1 if equal, 7 × 7 windows.

    Source: Wang et al. 2004, as scikit-image computes it by default.
    """
    check_pair(reference, image)
    value = structural_similarity(reference, image, data_range=1.0, channel_axis=-1)
    return float(value)  # type: ignore[arg-type]  # a tuple only when more is asked for


def mse(reference: np.ndarray, image: np.ndarray) -> float:
    """Mean squared error of images [H, W, 3] in [0, 1]."""
    check_pair(reference, image)
    return float(np.square(np.subtract(reference, image, dtype=np.float64)).mean())


MEASURES = {"psnr": psnr, "ssim": ssim, "mse": mse, "lpips": lpips}


def compare(reference: np.ndarray, image: np.ndarray) -> dict[str, float]:
    """All measures of one image against one reference.

    "lpips" is that of AlexNet, and left out where an image is too small for it: under 31 px.
    """
    fits = min(image.shape[:2]) >= SMALLEST["alex"]
    return {
        name: measure(reference, image)
        for name, measure in MEASURES.items()
        if fits or name != "lpips"
    }
