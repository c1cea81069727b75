"""Masks as people have them become shares of latent pixels, or are refused in one sentence."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from erddci.masks import latent_mask
from erddci.notices import NoEffect

HEIGHT, WIDTH = 4, 6


def soft_mask(ratio=2):
    """Multiples of 1/255, with a black and a white pixel."""
    levels = np.random.default_rng(0).integers(0, 256, (ratio * HEIGHT, ratio * WIDTH))
    levels[0, 0], levels[0, 1] = 0, 255
    return levels


def means(shares):
    """The mean of each latent pixel, by reshaping."""
    ratio = len(shares) // HEIGHT
    return shares.reshape(HEIGHT, ratio, WIDTH, ratio).mean((1, 3))


def read(mask):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = latent_mask(mask, HEIGHT, WIDTH)
    assert found.shape == (1, 1, HEIGHT, WIDTH) and found.dtype == torch.float64
    return found[0, 0].numpy()


LEVELS = soft_mask()
KINDS = {
    "float64": LEVELS / 255,
    "swapped float32": (LEVELS / 255).astype(">f4"),
    "float16": (LEVELS / 255).astype(np.float16),
    "uint8": LEVELS.astype(np.uint8),
    "int64": LEVELS,
    "swapped uint16": LEVELS.astype(">u2"),
    "tensor of floats": torch.from_numpy(LEVELS / 255),
    "tensor of bfloat16": torch.from_numpy(LEVELS / 255).bfloat16(),
    "tensor of bytes": torch.from_numpy(LEVELS.astype(np.uint8)),
    "tensor with a gradient": torch.from_numpy(LEVELS / 255).requires_grad_(),
    "batch of one": torch.from_numpy(LEVELS / 255)[None, None],
    "one channel": LEVELS[..., None] / 255,
    "equal channels": np.repeat(LEVELS[..., None] / 255, 3, axis=2),
    "L": Image.fromarray(LEVELS.astype(np.uint8)),
    "F": Image.fromarray((LEVELS / 255).astype(np.float32)),
    "I": Image.fromarray(LEVELS.astype(np.int32)),
    "RGB": Image.fromarray(LEVELS.astype(np.uint8)).convert("RGB"),
    "RGBA": Image.fromarray(LEVELS.astype(np.uint8)).convert("RGBA"),
    "LA": Image.fromarray(LEVELS.astype(np.uint8)).convert("LA"),
    "P": Image.fromarray(LEVELS.astype(np.uint8)).convert("P"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_shares_of_all_kinds(kind):
    error = {"float16": 1e-3, "tensor of bfloat16": 4e-3, "swapped float32": 1e-7, "F": 1e-7}
    assert np.abs(read(KINDS[kind]) - means(LEVELS / 255)).max() <= error.get(kind, 1e-15)


@pytest.mark.parametrize(
    "whole",
    [
        lambda mask: mask,
        lambda mask: mask.astype(np.uint8),
        lambda mask: mask.astype(float),
        lambda mask: mask * 255,
        lambda mask: mask.tolist() and torch.from_numpy(mask),
        lambda mask: torch.from_numpy(mask).to(torch.uint8).T.contiguous().T,
        lambda mask: Image.fromarray(mask),
    ],
    ids=["bool", "0 and 1", "floats", "0 and 255", "tensor", "transposed tensor", "1 bit"],
)
@pytest.mark.parametrize("ratio", [1, 3])
def test_masks_of_yes_and_no(whole, ratio):
    mask = soft_mask(ratio) > 127
    assert np.array_equal(read(whole(mask)), means(mask.astype(float)))


@pytest.mark.parametrize(
    "layout",
    [
        lambda mask: mask[:, ::-1],
        lambda mask: mask[::-1],
        lambda mask: np.asfortranarray(mask),
        lambda mask: np.broadcast_to(mask[0], mask.shape),
        lambda mask: np.repeat(mask, 2, axis=1)[:, ::2],
    ],
    ids=["mirrored", "upside down", "by columns", "read-only", "strided"],
)
def test_any_layout(layout):
    mask = layout(LEVELS / 255)
    assert np.abs(read(mask) - means(np.array(mask.tolist()))).max() < 1e-15
    tensor = torch.from_numpy(LEVELS / 255).T.contiguous().T
    assert not tensor.is_contiguous() and np.array_equal(read(tensor), read(LEVELS / 255))


def test_the_mask_of_the_caller_is_left_alone():
    mask = LEVELS / 255
    latent_mask(mask, 2 * HEIGHT, 2 * WIDTH)[:] = 0
    assert np.array_equal(mask, LEVELS / 255)


def test_a_palette_is_looked_up():
    mask = soft_mask() > 127
    image = Image.fromarray(mask.astype(np.uint8), "P")
    image.putpalette([255] * 3 + [0] * 3)
    assert np.array_equal(read(image), means(1.0 - mask))


def test_a_mask_is_turned_upright_as_its_image_is():
    image = Image.fromarray(LEVELS.astype(np.uint8))
    image.getexif()[0x0112] = 3
    assert np.array_equal(read(image), read(np.rot90(LEVELS, 2)))


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (np.zeros((5, 5)), r"\[4, 6\] or a multiple, got \[5, 5\]: resize it first"),
        (np.zeros((8, 6)), r"got \[8, 6\]"),
        (np.zeros((6, 4)), r"got \[6, 4\]"),
        (np.zeros((2, 3)), r"got \[2, 3\]"),
        (np.zeros((2, HEIGHT, WIDTH)), r"mask \[H, W\] for all samples, got shape \[2, 4, 6\]"),
        (np.zeros((0, WIDTH)), r"got shape \[0, 6\]"),
        (np.zeros(()), r"got shape \[\]"),
        (np.zeros(24), r"got shape \[24\]"),
        (np.full((HEIGHT, WIDTH), np.nan), "got float64 from nan to nan"),
        (np.full((HEIGHT, WIDTH), np.inf), "got float64 from inf to inf"),
        (np.full((HEIGHT, WIDTH), 255.0), "from 255.0 to 255.0: scale it first"),
        (np.full((HEIGHT, WIDTH), -0.1), "from -0.1 to -0.1"),
        (np.full((HEIGHT, WIDTH), -1), "got int64 from -1 to -1"),
        (np.full((HEIGHT, WIDTH), 65535, np.uint16), "got uint16 from 65535 to 65535"),
        (np.arange(24).reshape(HEIGHT, WIDTH), "got 0 to 23, which could be either"),
        (np.zeros((HEIGHT, WIDTH), complex), "floats or integers, got complex128"),
        (np.zeros((HEIGHT, WIDTH), "U1"), "floats or integers, got <U1"),
        (np.ma.zeros((HEIGHT, WIDTH)), "got MaskedArray"),
        ([[0, 1]], "an array, a tensor or a PIL image, got list"),
        ("mask.png", "got str"),
        (Image.new("RGB", (WIDTH, HEIGHT), "red"), "in grey, got colours"),
        (Image.new("RGBA", (WIDTH, HEIGHT)), "in grey, got one with transparency"),
        (Image.new("L", (0, 0)), r"got shape \[0, 0\]"),
    ],
)
def test_what_cannot_be_a_mask_is_refused(mask, words):
    with pytest.raises(ValueError, match=words):
        latent_mask(mask, HEIGHT, WIDTH)


def test_a_mask_in_the_alpha_channel_is_refused():
    image = Image.new("RGBA", (WIDTH, HEIGHT), "white")
    image.putalpha(Image.fromarray(soft_mask(1).astype(np.uint8)))
    with pytest.raises(ValueError, match="pass the grey or the alpha channel alone"):
        latent_mask(image, HEIGHT, WIDTH)


def test_a_damaged_image_is_refused(tmp_path):
    path = tmp_path / "mask.png"
    Image.fromarray(LEVELS.astype(np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match="the mask is not an image that can be read"):
        latent_mask(Image.open(path), HEIGHT, WIDTH)


@pytest.mark.parametrize(("value", "effect"), [(0, "lets nothing change"), (1, "has no effect")])
@pytest.mark.parametrize("kind", [bool, float, np.uint8])
def test_a_mask_without_effect_is_said(value, effect, kind):
    mask = np.full((HEIGHT, WIDTH), value, kind)
    with pytest.warns(NoEffect, match=f"the mask is {value} everywhere: it {effect}") as said:
        found = latent_mask(mask, HEIGHT, WIDTH)
    assert (found == value).all() and [each.filename for each in said] == [__file__]


DTYPES = ["?", "u1", "i8", ">u2", "f2", "<f4", ">f8", "c8"]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.sampled_from(DTYPES).flatmap(
        lambda dtype: arrays(
            np.dtype(dtype),
            st.one_of(
                array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6),
                st.sampled_from([(HEIGHT, WIDTH), (2 * HEIGHT, 2 * WIDTH), (HEIGHT, WIDTH, 3)]),
            ),
            elements={"min_value": 0, "max_value": 255} if dtype in ("u1", "i8") else None,
        )
    )
)
def test_any_array_gives_shares_or_a_sentence(mask):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            found = latent_mask(mask, HEIGHT, WIDTH)
        except ValueError as error:
            assert str(error).isprintable() and not said
            return
    assert found.shape == (1, 1, HEIGHT, WIDTH)
    assert found.isfinite().all() and found.min() >= 0 and found.max() <= 1
    assert {each.category for each in said} <= {NoEffect}
