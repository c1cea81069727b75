"""Whatever image comes in, the right pixels go out, and every change is said."""

import struct
import warnings

import numpy as np
import pytest
from PIL import Image

from erddci.images import ImageChanged, open_image

SIZE = 16
RED, GREEN, WHITE = (255, 0, 0), (0, 128, 0), (255, 255, 255)


def sample_image(mode="RGB", size=(SIZE, SIZE), colour=RED):
    return Image.new(mode, size, colour)


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def opened(source, words):
    """The pixels of an image that cannot be taken as it is, after checking what was said."""
    with pytest.warns(ImageChanged, match=words) as said:
        image = open_image(source, SIZE)
    assert len([each for each in said if each.category is ImageChanged]) == 1
    assert image.mode == "RGB" and image.size == (SIZE, SIZE)
    return np.asarray(image)


def opened_in_silence(source):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = open_image(source, SIZE)
    assert image.mode == "RGB" and image.size == (SIZE, SIZE)
    return np.asarray(image)


# Images that fit.


@pytest.mark.parametrize("kind", ["path", "string", "image", "array", "floats", "narrow floats"])
def test_a_image_that_fits_is_left_alone(kind, tmp_path):
    pixels, path = noise(SIZE, SIZE, 3), tmp_path / "fits.png"
    Image.fromarray(pixels).save(path)
    sources = {
        "path": path,
        "string": str(path),
        "image": Image.open(path),
        "array": pixels,
        "floats": pixels / 255,
        "narrow floats": (pixels / 255).astype(np.float32),
    }
    assert np.array_equal(opened_in_silence(sources[kind]), pixels)


def test_lossless_formats_give_the_same_pixels(tmp_path):
    pixels = noise(SIZE, SIZE, 3)
    for ending in ("bmp", "tiff", "ppm"):
        Image.fromarray(pixels).save(tmp_path / f"image.{ending}")
        assert np.array_equal(opened_in_silence(tmp_path / f"image.{ending}"), pixels)


# Transparency.


def test_transparent_pixels_become_white_and_half_transparent_ones_pale():
    pixels = np.zeros((SIZE, SIZE, 4), np.uint8)
    pixels[:, :4] = (*RED, 255)
    pixels[:, 4:8] = (*RED, 0)
    pixels[:, 8:] = (*RED, 51)  # a fifth red, four fifths white
    image = opened(pixels, "the image was laid on white where it is transparent$")
    assert image[0, 0].tolist() == [255, 0, 0]
    assert image[0, 4].tolist() == [255, 255, 255]
    assert image[0, 8].tolist() == [255, 204, 204]


def test_transparent_grey_becomes_white():
    pixels = np.zeros((SIZE, SIZE, 2), np.uint8)
    pixels[:8] = (100, 255)
    image = opened(Image.fromarray(pixels, "LA"), "laid on white")
    assert (image[:8] == 100).all() and (image[8:] == 255).all()


@pytest.mark.parametrize(
    ("mode", "transparent"), [("P", 1), ("L", 200), ("RGB", (0, 200, 0))], ids=str
)
def test_a_colour_declared_transparent_becomes_white(mode, transparent, tmp_path):
    image = sample_image(mode, colour=0)
    if mode == "P":
        image.putpalette([*RED, *GREEN])
    image.paste(transparent, (0, 0, 8, SIZE))
    path = tmp_path / "clear.png"
    image.save(path, transparency=transparent)
    pixels = opened(path, "clear.png was laid on white")
    assert (pixels[:, :8] == 255).all()
    assert (pixels[:, 8:] == (RED if mode == "P" else (0, 0, 0))).all()


# Other kinds of colour.


@pytest.mark.parametrize(
    ("image", "words", "colour"),
    [
        (sample_image("L", colour=90), "repeated from grey to RGB", (90, 90, 90)),
        (sample_image("1", colour=1), "repeated from grey to RGB", WHITE),
        (sample_image("CMYK", colour=(0, 255, 255, 0)), "converted from CMYK to RGB", RED),
        (sample_image("HSV", colour=(0, 255, 255)), "converted from HSV to RGB", RED),
        (
            sample_image("I;16", colour=257 * 70),
            "scaled from 16 to 8 bits and repeated",
            (70, 70, 70),
        ),
    ],
    ids=lambda each: getattr(each, "mode", None),
)
def test_other_modes(image, words, colour):
    assert (opened(image, words) == colour).all()


def test_palette_without_transparency():
    image = sample_image("P", colour=1)
    image.putpalette([*RED, *GREEN])
    assert (opened(image, "converted from P to RGB") == GREEN).all()


def test_sixteen_bits_are_divided_by_257(tmp_path):
    values = np.linspace(0, 65535, SIZE * SIZE).astype(np.uint16).reshape(SIZE, SIZE)
    expected = np.round(values / 257)[..., None]
    Image.fromarray(values).save(tmp_path / "deep.png")
    assert (
        opened(tmp_path / "deep.png", "deep.png was scaled from 16 to 8 bits") == expected
    ).all()
    assert (opened(values, "16 to 8 bits; repeated from grey") == expected).all()
    colour = np.repeat(values[..., None], 3, axis=2)
    assert (opened(colour, "the image was scaled from 16 to 8 bits$") == expected).all()


def test_integers_beyond_sixteen_bits_and_floating_images_are_refused():
    for image in (
        sample_image("I", colour=70_000),
        sample_image("I", colour=-1),
        sample_image("F", colour=0.5),
    ):
        with pytest.raises(ValueError, match=f"mode {image.mode} with values from"):
            open_image(image, SIZE)


# Shape.


@pytest.mark.parametrize(("orientation", "corner"), [(3, (15, 15)), (6, (0, 15)), (8, (15, 0))])
def test_photographs_are_turned_upright(orientation, corner, tmp_path):
    # EXIF: 3 is upside down, 6 needs a quarter turn clockwise, 8 one counterclockwise.  The top
    # left corner is red, in a block as large as JPEG compresses alone.
    image = sample_image(colour=WHITE)
    image.paste(RED, (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "phone.jpg"
    image.save(path, exif=exif, quality=100, subsampling=0)
    pixels = opened(path, "phone.jpg was turned upright as its EXIF orientation says$")
    for row, column in [(0, 0), (0, 15), (15, 0), (15, 15)]:
        red = np.abs(pixels[row, column].astype(int) - RED).max() < 10
        assert red == ((row, column) == corner)


@pytest.mark.parametrize("orientation", [0, 1])
def test_photographs_that_need_no_turn_are_left_alone(orientation, tmp_path):
    # 0 is no orientation at all; some cameras write it.
    exif = Image.Exif()
    exif[0x0112] = orientation
    sample_image().save(tmp_path / "upright.jpg", exif=exif)
    opened_in_silence(tmp_path / "upright.jpg")


@pytest.mark.parametrize("wide", [True, False])
def test_the_central_square_is_kept(wide):
    # Three squares side by side, the middle one green.
    pixels = np.zeros((SIZE, 3 * SIZE, 3), np.uint8)
    pixels[:, SIZE : 2 * SIZE] = GREEN
    pixels = pixels if wide else pixels.transpose(1, 0, 2)
    sides = "48 × 16" if wide else "16 × 48"
    words = f"cropped to its centre and resized from {sides} to 16 × 16"
    assert (opened(pixels, words) == GREEN).all()


def test_a_larger_image_keeps_its_means():
    pixels = noise(4, 4, 3).repeat(16, 0).repeat(16, 1)
    image = opened(pixels, "the image was resized from 64 × 64 to 16 × 16$")
    assert np.abs(image[1::4, 1::4].astype(int) - pixels[8::16, 8::16]).max() <= 40
    assert np.abs(image.mean((0, 1)) - pixels.mean((0, 1))).max() < 2


def test_a_smaller_image_is_enlarged():
    assert (opened(sample_image(size=(8, 8)), "resized from 8 × 8 to 16 × 16") == RED).all()


def test_a_tiny_image_is_refused():
    with pytest.raises(ValueError, match="at least 8 × 8 pixels, got 100 × 7"):
        open_image(sample_image(size=(100, 7)), SIZE)


def test_of_an_animation_the_first_frame_is_taken(tmp_path):
    path = tmp_path / "moves.gif"
    others = [sample_image(colour=colour) for colour in (GREEN, WHITE)]
    sample_image().save(path, save_all=True, append_images=others)
    assert (opened(path, "moves.gif was reduced to the first of 3 frames") == RED).all()


def test_all_changes_are_said_at_once(tmp_path):
    path = tmp_path / "much.png"
    sample_image("LA", size=(40, 20), colour=(0, 255)).save(path)
    opened(path, "much.png was laid on white .*; cropped to its centre and resized from 40 × 20")


# What is no image.


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no image at .*gone.png"):
        open_image(tmp_path / "gone.png", SIZE)
    with pytest.raises(FileNotFoundError):
        open_image(tmp_path, SIZE)


def test_files_that_hold_no_image_are_named(tmp_path):
    text, cut, empty = (tmp_path / name for name in ("text.png", "cut.png", "empty.png"))
    text.write_text("not an image")
    Image.fromarray(noise(SIZE, SIZE, 3)).save(cut)
    cut.write_bytes(cut.read_bytes()[:400])
    empty.touch()
    for path in (text, cut, empty):
        with pytest.raises(ValueError, match=f"{path.name} is not an image that can be read"):
            open_image(path, SIZE)


def test_a_image_too_large_to_decode_is_refused(tmp_path):
    # A header that promises 60 000 × 60 000 pixels: Pillow takes it for an attack.
    path = tmp_path / "huge.bmp"
    sample_image().save(path)
    data = bytearray(path.read_bytes())
    data[18:26] = struct.pack("<ii", 60_000, 60_000)
    path.write_bytes(data)
    with pytest.raises(ValueError, match="huge.bmp"):
        open_image(path, SIZE)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.full((SIZE, SIZE, 3), 1.5), "floats between 0 and 1"),
        (np.full((SIZE, SIZE, 3), -0.1), "floats between 0 and 1"),
        (np.full((SIZE, SIZE, 3), np.nan), "floats between 0 and 1"),
        (np.zeros((SIZE, SIZE, 3), np.int64), "uint8, uint16 or floats, got int64"),
        (np.zeros((SIZE, SIZE, 3), bool), "uint8, uint16 or floats, got bool"),
        (np.zeros((1, SIZE, SIZE, 3)), r"got shape \(1, 16, 16, 3\)"),
        (np.zeros((SIZE, SIZE, 2)), r"got shape \(16, 16, 2\)"),
        (np.zeros(SIZE), r"got shape \(16,\)"),
        (np.zeros((0, SIZE, 3)), r"got shape \(0, 16, 3\)"),
        ([[0.5]], "a path, a PIL image or an array, got list"),
    ],
)
def test_other_arrays_are_refused(array, words):
    with pytest.raises(ValueError, match=words):
        open_image(array, SIZE)


def test_an_array_of_one_channel_is_grey():
    pixels = noise(SIZE, SIZE, 1)
    assert (opened(pixels, "repeated from grey to RGB") == pixels).all()
    assert (opened(pixels[..., 0], "repeated from grey to RGB") == pixels).all()
