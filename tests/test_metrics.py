"""Measures against their formulas, computed here another way."""

import math

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from erddci.metrics import MEASURES, compare, mse, psnr, ssim


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    one = rng.random((40, 36, 3))
    return one, np.clip(one + 0.1 * rng.standard_normal(one.shape), 0, 1)


def windowed_ssim(one, other):
    """Structural similarity as in Wang et al. 2004, from the moments of 7 × 7 windows."""
    one, other = (sliding_window_view(each, (7, 7), (0, 1)) for each in (one, other))
    within = (-2, -1)
    mean, other_mean = one.mean(within), other.mean(within)
    variance, other_variance = one.var(within, ddof=1), other.var(within, ddof=1)
    product = (one - mean[..., None, None]) * (other - other_mean[..., None, None])
    covariance = product.sum(within) / 48
    light = (2 * mean * other_mean + 1e-4) / (mean**2 + other_mean**2 + 1e-4)
    structure = (2 * covariance + 9e-4) / (variance + other_variance + 9e-4)
    return (light * structure).mean()


def test_psnr_and_mse_by_hand(pair):
    squares = [(a - b) ** 2 for a, b in zip(pair[0].flat, pair[1].flat, strict=True)]
    mean = math.fsum(squares) / len(squares)
    assert mse(*pair) == pytest.approx(mean, rel=1e-12)
    assert psnr(*pair) == pytest.approx(-10 * math.log10(mean), rel=1e-12)


def test_an_error_of_one_tenth_is_twenty_decibels():
    black = np.zeros((8, 8, 3), np.float32)
    assert psnr(black, black + 0.1) == pytest.approx(20, abs=1e-4)
    assert mse(black, black + 0.1) == pytest.approx(0.01)


def test_ssim_by_its_definition(pair):
    assert ssim(*pair) == pytest.approx(windowed_ssim(*pair), rel=1e-9)
    # For flat images only the comparison of light is left.
    flat = np.full((9, 9, 3), 0.2), np.full((9, 9, 3), 0.6)
    assert ssim(*flat) == pytest.approx((2 * 0.12 + 1e-4) / (0.04 + 0.36 + 1e-4))


def test_equal_images(pair):
    one = pair[0]
    best = {"psnr": math.inf, "ssim": pytest.approx(1), "mse": 0, "lpips": 0}
    assert compare(one, one.copy()) == best


def test_images_too_small_for_lpips_are_compared_without_it(pair):
    assert set(compare(*(each[:30] for each in pair))) == set(MEASURES) - {"lpips"}


def test_order_does_not_matter_and_narrow_floats_agree(pair):
    one, other = pair
    wide, narrow = compare(one, other), compare(one.astype("f4"), other.astype("f4"))
    assert set(wide) == set(MEASURES)
    assert compare(other, one) == pytest.approx(wide)
    assert narrow == pytest.approx(wide, rel=1e-4)


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x[:-1], "one size"),
        (lambda x: x[None], "one size"),
        (lambda x: (x * 255).astype(np.uint8), "divide 8-bit values by 255"),
        (lambda x: x * 255, "floats between 0 and 1"),
        (lambda x: x - 1, "floats between 0 and 1"),
        (lambda x: np.where(x > 0.5, np.nan, x), "floats between 0 and 1"),
    ],
    ids=["other size", "batch", "bytes", "too bright", "negative", "not a number"],
)
def test_other_things_than_images_are_refused(pair, measure, change, words):
    for arguments in ((pair[0], change(pair[1])), (change(pair[0]), pair[1])):
        with pytest.raises(ValueError, match=words):
            measure(*arguments)


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_grey_images_are_refused(measure):
    grey = np.zeros((8, 8))
    with pytest.raises(ValueError, match=r"\[H, W, 3\]"):
        measure(grey, grey)
