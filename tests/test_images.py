"""Whatever image comes in, the right pixels go out, and every change is said."""

import struct
import warnings
import zlib

import numpy as np
import pytest
from image_files import (
    ADOBE_RGB,
    DISPLAY_P3,
    SRGB,
    chunk,
    cmyk_profile,
    deep_png,
    fixed,
    grey_profile,
    png,
    profile,
    rgb_profile,
    srgb_from_lab,
    srgb_from_xyz,
)
from PIL import ExifTags, Image, ImageCms, ImageOps

from erddci.images import ImageChanged, open_image

SIZE = 16
RED, GREEN, WHITE = (255, 0, 0), (0, 128, 0), (255, 255, 255)


def sample_image(mode="RGB", size=(SIZE, SIZE), colour=RED):
    return Image.new(mode, size, colour)


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def srgb_by_table():
    """sRGB as old profiles hold it: its curve in a table of 1,024 values."""
    levels = np.linspace(0, 1, 1024)
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    curve = b"curv" + bytes(4) + struct.pack(">I", 1024)
    curve += np.round(linear * 65535).astype(">u2").tobytes()
    tags = {b"rgb"[i : i + 1] + b"XYZ": fixed(b"XYZ ", *SRGB[i]) for i in range(3)}
    tags |= {b"rgb"[i : i + 1] + b"TRC": curve for i in range(3)}
    return profile(b"RGB ", b"XYZ ", b"mntr", tags)


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
            "scaled from 16 to 8 bits; repeated from grey to RGB",
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


def test_values_beyond_the_range_are_refused(tmp_path):
    for image in (
        sample_image("I", colour=70_000),
        sample_image("I", colour=-1),
        sample_image("F", colour=1.5),
        sample_image("F", colour=float("nan")),
    ):
        with pytest.raises(ValueError, match=f"mode {image.mode} with values from"):
            open_image(image, SIZE)


def test_eight_bits_in_a_wider_type_are_refused():
    for source in (sample_image("I", colour=200), np.full((SIZE, SIZE), 200, np.uint16)):
        with pytest.raises(ValueError, match="none above 200: if they are 8-bit values"):
            open_image(source, SIZE)


def test_floats_of_a_tiff_are_scaled(tmp_path):
    values = np.linspace(0, 1, SIZE * SIZE, dtype=np.float32).reshape(SIZE, SIZE)
    Image.fromarray(values).save(tmp_path / "float.tiff")
    image = opened(
        tmp_path / "float.tiff", "float.tiff was scaled from floats to 8 bits; repeated"
    )
    assert (image == np.round(values * 255.0)[..., None]).all()


@pytest.mark.parametrize("bands", [1, 2, 3, 4])
def test_sixteen_bits_of_all_colours(bands, tmp_path):
    values = noise(SIZE, SIZE, bands).astype(np.uint16) * 257
    if bands in (2, 4):
        values[..., -1] = 65535
    (tmp_path / "deep.png").write_bytes(deep_png(values))
    image = opened(tmp_path / "deep.png", "deep.png was scaled from 16 to 8 bits")
    assert (image == values[..., : 3 if bands > 2 else 1] // 257).all()


def test_twelve_bits_reach_white(tmp_path):
    # Two samples in three bytes, by hand: Pillow writes no such file.
    pixels = bytes((0xFF, 0xF0, 0x00)) * (SIZE * SIZE // 2)
    counts = {256: SIZE, 257: SIZE, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: SIZE}
    counts[279] = len(pixels)
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, n) for tag, n in counts.items())
    header = b"II*\0" + struct.pack("<I", 8 + len(pixels))
    directory = struct.pack("<H", len(counts)) + entries + bytes(4)
    (tmp_path / "deep.tiff").write_bytes(header + pixels + directory)
    image = opened(tmp_path / "deep.tiff", "deep.tiff was scaled from 12 to 8 bits")
    assert (image[:, ::2] == 255).all() and (image[:, 1::2] == 0).all()


def test_sixteen_bits_in_which_zero_is_white(tmp_path):
    image = sample_image("I;16", colour=257 * 100)
    image.save(tmp_path / "negative.tiff", tiffinfo={262: 0})
    with Image.open(tmp_path / "negative.tiff") as stored:
        value = stored.getpixel((0, 0))
        assert stored.tag_v2[262] == 0
    pixels = opened(tmp_path / "negative.tiff", "negative.tiff was scaled from 16 to 8 bits")
    assert (pixels == 255 - value // 257).all()


def test_lab():
    # Lightness up to 255; a and b are signed bytes.
    image = Image.frombytes("LAB", (SIZE, SIZE), bytes((128, 20, 10)) * SIZE**2)
    pixels = opened(image, "the image was converted from LAB to RGB$")
    assert np.abs(pixels - srgb_from_lab(128 / 2.55, 20, 10)).max() <= 1


# Colour profiles.


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tiff"])
@pytest.mark.parametrize("primaries", [ADOBE_RGB, DISPLAY_P3], ids=["Adobe RGB", "Display P3"])
def test_wide_colours_become_srgb(primaries, ending, tmp_path):
    colour, gamma = (60, 200, 60), 563 / 256
    path = tmp_path / f"wide.{ending}"
    options = {"quality": 100} | ({"lossless": True} if ending == "webp" else {})
    sample_image(colour=colour).save(
        path, icc_profile=rgb_profile(primaries, gamma, b"wide gamut"), **options
    )
    expected = srgb_from_xyz((np.array(colour) / 255) ** gamma @ np.array(primaries))
    image = opened(path, r"converted from its colour profile \(wide gamut\) to sRGB$")
    assert np.abs(image - expected).max() <= (3 if ending == "jpg" else 1)


def test_alpha_and_sixteen_bits_do_not_hide_a_profile(tmp_path):
    colour, gamma = (60, 200, 60), 563 / 256
    values = np.full((SIZE, SIZE, 4), (*colour, 255), np.uint16) * 257
    values[:8, :, 3] = 0
    data = b"icc\0\0" + zlib.compress(rgb_profile(ADOBE_RGB, gamma))
    (tmp_path / "all.png").write_bytes(deep_png(values, chunk(b"iCCP", data)))
    expected = srgb_from_xyz((np.array(colour) / 255) ** gamma @ np.array(ADOBE_RGB))
    words = "scaled from 16 to 8 bits; laid on white .*; converted from its colour profile"
    image = opened(tmp_path / "all.png", words)
    assert (image[:8] == 255).all()
    assert np.abs(image[8:] - expected).max() <= 1


@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_srgb_is_left_alone_however_it_is_written(mode, tmp_path):
    image = Image.fromarray(noise(SIZE, SIZE, 3)).convert(mode)
    for number, data in enumerate((ImageCms.createProfile("sRGB"), srgb_by_table())):
        data = data if isinstance(data, bytes) else ImageCms.ImageCmsProfile(data).tobytes()
        path = tmp_path / f"{number}.png"
        image.save(path, icc_profile=data)
        pixels = opened_in_silence(path) if mode == "RGB" else opened(path, "to RGB$")
        assert np.array_equal(pixels, np.asarray(image.convert("RGB")))


def test_grey_follows_its_profile(tmp_path):
    path = tmp_path / "grey.png"
    sample_image("L", colour=90).save(path, icc_profile=grey_profile(1.0))
    pixels = opened(path, r"grey.png was converted from its colour profile \(made by hand\)")
    white = np.array((0.9642, 1, 0.8249))
    assert np.abs(pixels - srgb_from_xyz(90 / 255 * white)).max() <= 1


@pytest.mark.parametrize("kind", ["jpg", "tiff"])
def test_cmyk_follows_its_profile(kind, tmp_path):
    # Cyan ink is a green here, as no formula would have it; all other inks are black.
    lab = np.zeros((2, 2, 2, 2, 3))
    lab[0, 0, 0, 0], lab[1, 0, 0, 0] = (100, 0, 0), (60, -40, 30)
    for ink, expected in ((0, (255, 255, 255)), (255, srgb_from_lab(60, -40, 30))):
        path = tmp_path / f"print.{kind}"
        sample_image("CMYK", colour=(ink, 0, 0, 0)).save(path, icc_profile=cmyk_profile(lab))
        image = opened(path, "print.* was converted from its colour profile")
        assert np.abs(image - expected).max() <= 3


@pytest.mark.parametrize(
    ("mode", "data", "words"),
    [
        ("RGB", b"no profile", "read as sRGB, its colour profile being damaged"),
        ("RGB", rgb_profile(ADOBE_RGB, 2.2)[:200], "its colour profile being damaged"),
        ("RGB", rgb_profile(ADOBE_RGB, 2.2).replace(b"RGB ", b"6CLR"), "of an unknown kind"),
        ("RGB", grey_profile(1.0), "read as sRGB, its colour profile being for L images$"),
        ("CMYK", rgb_profile(ADOBE_RGB, 2.2), "being for RGB images; converted from CMYK"),
        ("RGB", rgb_profile(ADOBE_RGB, 2.2, b"a\nb\x07" + b"c" * 99), r"\(a b c{56}\) to"),
    ],
)
def test_profiles_that_cannot_be_followed_are_said(mode, data, words, tmp_path):
    path = tmp_path / "odd.tiff"
    sample_image(mode, colour=0).save(path, icc_profile=data)
    image = opened(path, words)
    assert (image == (255 if mode == "CMYK" else 0)).all()


def test_a_profile_that_cannot_be_unpacked_is_said(tmp_path):
    pixels = noise(SIZE, SIZE, 3)
    data = png(pixels.reshape(SIZE, -1), 8, 2, chunk(b"iCCP", b"icc\0\0not packed"))
    (tmp_path / "odd.png").write_bytes(data)
    assert (opened(tmp_path / "odd.png", "its colour profile being damaged") == pixels).all()


def test_other_colours_without_a_profile_are_said(tmp_path):
    pixels = noise(SIZE, SIZE, 3)
    rows = pixels.reshape(SIZE, -1)
    primaries = struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
    ours = struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
    usual = (chunk(b"gAMA", struct.pack(">I", 45455)), chunk(b"cHRM", ours))
    for name, data in {
        "gamma.png": png(rows, 8, 2, chunk(b"gAMA", struct.pack(">I", 100_000))),
        "primaries.png": png(rows, 8, 2, chunk(b"cHRM", primaries)),
        "both.png": png(rows, 8, 2, chunk(b"cHRM", primaries), chunk(b"gAMA", bytes(4))),
    }.items():
        (tmp_path / name).write_bytes(data)
        image = opened(tmp_path / name, f"{name} was read as sRGB, though it names another gamma")
        assert (image == pixels).all()
    linear = chunk(b"gAMA", struct.pack(">I", 100_000))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    stronger = (chunk(b"sRGB", b"\0"), chunk(b"iCCP", b"icc\0\0" + zlib.compress(srgb)))
    for chunks in (usual, (linear, stronger[0]), (linear, stronger[1])):
        (tmp_path / "usual.png").write_bytes(png(rows, 8, 2, *chunks))
        opened_in_silence(tmp_path / "usual.png")


def test_adobe_rgb_by_exif_alone_is_said(tmp_path):
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[0xA005] = {1: "R03"}
    sample_image().save(tmp_path / "camera.jpg", exif=exif, quality=100)
    opened(tmp_path / "camera.jpg", "read as sRGB, though its EXIF data name Adobe RGB$")


# Transparent colours of a PNG, which are in the units of the file.


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_transparent_grey_at_every_depth(depth, tmp_path):
    # The left half holds the transparent value 1 in the file's units, the right half 0.
    bits = np.zeros((SIZE, SIZE, depth), np.uint8)
    bits[:, :8, -1] = 1
    rows = np.packbits(bits.reshape(SIZE, -1), axis=1)
    (tmp_path / "key.png").write_bytes(png(rows, depth, 0, chunk(b"tRNS", b"\0\1")))
    image = opened(tmp_path / "key.png", "laid on white where it is transparent")
    assert (image[:, :8] == 255).all() and (image[:, 8:] == 0).all()


def test_a_transparent_colour_of_sixteen_bits(tmp_path):
    values = np.full((SIZE, SIZE, 3), (0x1234, 0x5678, 0x9ABC), np.uint16)
    values[:, 8:] = (0x3400, 0x7800, 0xBC00)  # the lower bytes above, as upper ones
    key = struct.pack(">3H", 0x1234, 0x5678, 0x9ABC)
    (tmp_path / "key.png").write_bytes(deep_png(values, chunk(b"tRNS", key)))
    image = opened(tmp_path / "key.png", "from 16 to 8 bits; laid on white")
    assert (image[:, :8] == 255).all() and (image[:, 8:] == (0x34, 0x78, 0xBC)).all()


@pytest.mark.parametrize(("mode", "key"), [("RGB", (2**70, 0, 0)), ("L", 2**70), ("P", -(2**70))])
def test_transparent_colours_that_do_not_exist_are_no_error(mode, key):
    image = sample_image(mode, colour=1)
    image.info["transparency"] = key
    opened(image, "the image was laid on white")


def test_alphas_of_a_palette(tmp_path):
    image = sample_image("P", colour=1)
    image.putpalette([*RED, *RED, *GREEN])
    image.paste(0, (0, 0, 8, SIZE))
    image.save(tmp_path / "palette.png", transparency=bytes((0, 51, 255)))
    pixels = opened(tmp_path / "palette.png", "laid on white where it is transparent$")
    assert (pixels[:, :8] == 255).all() and (pixels[:, 8:] == (255, 204, 204)).all()


def test_more_alphas_than_colours_do_no_harm(tmp_path):
    image = sample_image("P", colour=1)
    image.putpalette([*RED, *GREEN])
    image.save(tmp_path / "palette.png")
    data = (tmp_path / "palette.png").read_bytes()
    start = data.index(b"IDAT") - 4
    more = chunk(b"tRNS", bytes((255, 0)) + bytes(300))
    (tmp_path / "palette.png").write_bytes(data[:start] + more + data[start:])
    assert (opened(tmp_path / "palette.png", "laid on white") == 255).all()


def test_texts_of_a_png_are_not_taken_for_its_colours(tmp_path):
    names = (b"transparency", b"icc_profile", b"gamma", b"chromaticity", b"srgb")
    texts = [chunk(b"tEXt", name + b"\0words") for name in names]
    pixels = noise(SIZE, SIZE, 3)
    (tmp_path / "words.png").write_bytes(png(pixels.reshape(SIZE, -1), 8, 2, *texts))
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        assert np.array_equal(open_image(tmp_path / "words.png", SIZE), pixels)


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


@pytest.mark.parametrize("orientation", range(2, 9))
def test_all_orientations_are_those_of_pillow(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(noise(SIZE, SIZE, 3)).save(tmp_path / "camera.png", exif=exif)
    with Image.open(tmp_path / "camera.png") as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored))
    assert np.array_equal(opened(tmp_path / "camera.png", "turned upright"), expected)


@pytest.mark.parametrize("orientation", [0, 1])
def test_photographs_that_need_no_turn_are_left_alone(orientation, tmp_path):
    # 0 is no orientation at all; some cameras write it.
    exif = Image.Exif()
    exif[0x0112] = orientation
    sample_image().save(tmp_path / "upright.jpg", exif=exif)
    opened_in_silence(tmp_path / "upright.jpg")


@pytest.mark.parametrize("kind", ["tiff", "png", "webp"])
def test_other_formats_are_turned_upright_too(kind, tmp_path):
    image = sample_image(colour=WHITE)
    image.paste(RED, (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = 3
    path = tmp_path / f"turned.{kind}"
    image.save(path, exif=exif, **({"lossless": True} if kind == "webp" else {}))
    pixels = opened(path, f"turned.{kind} was turned upright as its EXIF orientation says$")
    assert np.array_equal(pixels, np.asarray(image.rotate(180)))


@pytest.mark.parametrize(
    "data",
    [b"no tags at all", b"II*\0\x08\0\0\0\xff\xff", b"II*\0\xff\xff\xff\x7f", b"MM\0*\0\0\0\x08"],
)
def test_damaged_exif_is_said(data, tmp_path):
    sample_image().save(tmp_path / "plain.jpg", quality=100)
    sample_image().save(tmp_path / "camera.jpg", exif=b"Exif\0\0" + data, quality=100)
    pixels = opened(tmp_path / "camera.jpg", "read (without its EXIF|in spite of damage .*EXIF)")
    assert np.array_equal(pixels, opened_in_silence(tmp_path / "plain.jpg"))


@pytest.mark.parametrize("value", [9, 77, 65535])
def test_orientations_that_mean_nothing_are_left_alone(value, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = value
    sample_image().save(tmp_path / "camera.png", exif=exif)
    opened_in_silence(tmp_path / "camera.png")


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


@pytest.mark.parametrize("size", [(1, 1), (100, 7), (7, 100), (0, 5)])
def test_a_tiny_image_is_refused(size):
    with pytest.raises(ValueError, match="at least 8 × 8 pixels, got {} × {}".format(*size)):
        open_image(sample_image(size=size), SIZE)


def test_a_long_image_keeps_its_middle():
    image = sample_image(size=(10_000, 10))
    image.paste(GREEN, (4_985, 0, 5_015, 10))  # resizing looks a little beyond the square
    words = "cropped to its centre and resized from 10000 × 10 to 16 × 16"
    assert (opened(image, words) == GREEN).all()


def test_of_an_animation_the_first_frame_is_taken(tmp_path):
    path = tmp_path / "moves.gif"
    others = [sample_image(colour=colour) for colour in (GREEN, WHITE)]
    sample_image().save(path, save_all=True, append_images=others)
    assert (opened(path, "moves.gif was reduced to the first of 3 frames") == RED).all()


def test_of_an_animation_that_was_wound_on_that_frame_is_taken(tmp_path):
    path = tmp_path / "moves.webp"
    others = [sample_image(colour=colour) for colour in (GREEN, WHITE)]
    sample_image().save(path, save_all=True, append_images=others, lossless=True)
    image = Image.open(path)
    image.seek(1)
    assert (opened(image, "the image was reduced to number 2 of 3 frames") == GREEN).all()


def test_an_animation_that_breaks_off_gives_its_first_frame(tmp_path):
    path = tmp_path / "moves.gif"
    others = [Image.fromarray(noise(SIZE, SIZE, 3)), sample_image(colour=WHITE)]
    sample_image().save(path, save_all=True, append_images=others)
    path.write_bytes(path.read_bytes()[:-200])
    assert (opened(path, "moves.gif was reduced to the first of 2 frames") == RED).all()


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
    with pytest.raises(ValueError, match="huge.bmp .*more than 178 956 970 pixels: resize"):
        open_image(path, SIZE)


def test_what_pillow_would_warn_of_alone_is_not_passed_on(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 40 - 1)
    sample_image(size=(40, 40)).save(tmp_path / "large.png")
    opened(tmp_path / "large.png", "large.png was resized from 40 × 40 to 16 × 16$")


def test_wrong_checksums_of_pixels_are_seen(tmp_path):
    path = tmp_path / "flipped.png"
    data = bytearray(png(noise(SIZE, SIZE * 3), 8, 2))
    data[-16] ^= 1  # the last byte of the pixels' checksum, before the last chunk
    path.write_bytes(data)
    with pytest.raises(ValueError, match="flipped.png .*bad header checksum in b'IDAT'"):
        open_image(path, SIZE)


def test_paths_start_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    sample_image().save(tmp_path / "mine.png")
    opened_in_silence("~/mine.png")


def test_files_that_may_not_be_read_are_named(tmp_path, monkeypatch):
    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "locked.png"
    sample_image().save(path)
    monkeypatch.setattr(type(path), "open", refuse)
    with pytest.raises(ValueError, match=r"^locked.png cannot be read \(Permission denied\)"):
        open_image(path, SIZE)


@pytest.mark.parametrize("name", ["", ".", "a\0b", "~nobody/image.png", "image.png/inner.png"])
def test_paths_to_nothing(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sample_image().save("image.png")
    with pytest.raises(FileNotFoundError, match="no image at"):
        open_image(name, SIZE)
    with pytest.raises(ValueError, match=r"cannot be read \(File name too long\)"):
        open_image("a" * 300, SIZE)


def test_a_closed_image_is_refused(tmp_path):
    sample_image().save(tmp_path / "image.png")
    image = Image.open(tmp_path / "image.png")
    image.close()
    with pytest.raises(ValueError, match="the image is not an image that can be read"):
        open_image(image, SIZE)


# Where the warning points.


def test_the_warning_names_the_line_of_the_caller(tiny):
    image = sample_image("L", colour=90)
    for read in (lambda: open_image(image, SIZE), lambda: tiny.to_array(image)):
        with pytest.warns(ImageChanged) as said:
            read()
        assert [each.filename for each in said] == [__file__]
    with pytest.warns(ImageChanged) as said:
        tiny.encode([image])  # through a decorator of torch
    assert [each.filename for each in said] == [__file__]


def test_an_image_that_was_read_once_is_read_in_silence(tiny):
    with pytest.warns(ImageChanged):
        array = tiny.to_array(sample_image("LA", size=(40, 30), colour=(90, 128)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = tiny.to_array(array)
        tiny.encode(array)
        tiny.encode([open_image(array, SIZE)])
    assert again.dtype == array.dtype and np.array_equal(again, array)


# Arrays.


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


@pytest.mark.parametrize("kind", ["mirrored", "turned", "strided", "read-only", "swapped"])
def test_arrays_in_any_layout(kind):
    pixels = noise(SIZE, SIZE, 3)
    wide = np.zeros((SIZE, 2 * SIZE, 3), np.uint8)
    wide[:, ::2] = pixels
    fixed_array = pixels.copy()
    fixed_array.flags.writeable = False
    source, expected = {
        "mirrored": (pixels[:, ::-1], pixels[:, ::-1]),
        "turned": (pixels.transpose(1, 0, 2), pixels.transpose(1, 0, 2)),
        "strided": (wide[:, ::2], pixels),
        "read-only": (fixed_array, pixels),
        "swapped": ((pixels / 255).astype(">f4"), pixels),
    }[kind]
    assert np.array_equal(opened_in_silence(source), expected)
