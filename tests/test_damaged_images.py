"""Whatever the bytes, an image is read and every change said, or refused in one sentence."""

import random
import warnings
from io import BytesIO

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from image_files import ADOBE_RGB, HEIGHT, WIDTH, chunk, rgb_profile, undamaged
from PIL import Image

from erddci.images import ImageChanged, open_image

SIZE = 16
UNDAMAGED = undamaged()
# Signatures that send bytes to a decoder.
STARTS = sorted({data[:12] for data in UNDAMAGED.values()})


@pytest.fixture(autouse=True)
def small_images_only(monkeypatch):
    """A damaged header may promise an image of any size: keep those quick to refuse."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)


def outcome(source, name="the image"):
    """What reading came to: the pixels, or None for a refusal, and the words."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            image = open_image(source, SIZE)
        except ValueError as error:
            image, words = None, [str(error)]
        else:
            assert image.mode == "RGB" and image.size == (SIZE, SIZE)
            words = [str(each.message) for each in said]
    # Nothing but our own warning, once, and none beside a refusal.
    assert [each.category for each in said] == [ImageChanged] * (image is not None) * len(words)
    assert len(words) <= 1
    for sentence in words:
        assert sentence.isprintable() and len(sentence) < 500
        assert image is not None or ":" in sentence, "a refusal says what to do"
        assert sentence.startswith(f"{name} was ") or image is None
    return image and np.asarray(image), words


# Damages, each from bytes and a generator to bytes.


def cut(data, chance):
    return data[: chance.randrange(1, len(data))]


def without_its_end(data, chance):
    return data[: len(data) * 9 // 10]


def flipped(data, chance):
    data = bytearray(data)
    for _ in range(3):
        data[chance.randrange(8, len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


def overwritten(data, chance):
    start = chance.randrange(len(data))
    return data[:start] + bytes(len(data[start : start + 16])) + data[start + 16 :]


def doubled(data, chance):
    start = chance.randrange(len(data))
    return data[:start] + data[max(0, start - 24) :]


def lengthened(data, chance):
    return data + bytes(100)


DAMAGES = (cut, without_its_end, flipped, overwritten, doubled, lengthened)


def damaged_files():
    """At least one hundred damaged files by name, the same at every call."""
    files = {}
    for name, data in UNDAMAGED.items():
        for damage in DAMAGES:
            files[f"{damage.__name__}-{name}"] = damage(
                data, random.Random(damage.__name__ + name)
            )
    files["empty.png"], files["text.jpg"] = b"", b"an image, surely"
    files["page.png"] = b"<!doctype html><title>404</title>"
    files["photo.heic"] = b"\0\0\0\x18ftypheic" + bytes(64)
    return files


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged")
    for name, data in damaged_files().items():
        (folder / name).write_bytes(data)
    return folder


def test_there_are_enough_and_they_stay_the_same():
    files = damaged_files()
    assert len(files) >= 200
    assert files == damaged_files()
    changed = [name for name, data in files.items() if data not in UNDAMAGED.values()]
    assert len(changed) > len(files) * 0.95


def test_every_undamaged_file_is_read(tmp_path):
    for name, data in UNDAMAGED.items():
        (tmp_path / name).write_bytes(data)
        pixels, words = outcome(tmp_path / name, name)
        assert pixels is not None and "damage" not in words[0], words


def test_every_damaged_file_is_converted_or_refused(folder, capfd):
    outcomes = {}
    for path in sorted(folder.iterdir()):
        outcomes[path.name], _ = outcome(path, path.name)
        said = "".join(capfd.readouterr())
        # libtiff writes lines of its own, past Python.
        assert not said or path.suffix == ".tiff", said
    refused = [name for name, pixels in outcomes.items() if pixels is None]
    assert 0.4 * len(outcomes) < len(refused) < 0.8 * len(outcomes)


def test_a_cut_file_is_refused(folder):
    # Of formats that say how long they are, at nine tenths all lack pixels.
    for path in folder.glob("without_its_end-*"):
        if path.suffix in {".png", ".jpg", ".bmp", ".ppm", ".webp", ".tga"}:
            assert outcome(path, path.name)[0] is None, path.name


def test_a_damaged_png_never_gives_other_pixels(folder, tmp_path):
    # Each of its chunks has a checksum, so no damage to the pixels can go unseen.
    read = 0
    for path in folder.glob("*.png"):
        name = path.name.partition("-")[2]
        found, _ = outcome(path, path.name)
        if found is not None:
            (tmp_path / name).write_bytes(UNDAMAGED[name])
            assert np.array_equal(found, outcome(tmp_path / name, name)[0]), path.name
            read += 1
    assert read, "zeros behind the end of a PNG do no harm"


# Any bytes at all.


def edited(data, edits, keep, tail):
    data = bytearray(data)
    for place, value in edits:
        data[int(place * (len(data) - 1))] = value
    return bytes(data[: max(1, int(keep * len(data)))]) + tail


MUTATED = st.builds(
    edited,
    st.sampled_from(sorted(UNDAMAGED.values())),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6),
    st.one_of(st.just(1.0), st.floats(0, 1)),
    st.binary(max_size=40),
)
ANY_BYTES = st.builds(bytes.__add__, st.sampled_from([b"", *STARTS]), st.binary(max_size=300))
PNG_CHUNKS = st.lists(
    st.builds(
        lambda name, data: chunk(name, data),
        st.sampled_from(
            [b"tRNS", b"iCCP", b"eXIf", b"gAMA", b"cHRM", b"sRGB", b"tEXt", b"iTXt", b"PLTE"]
            + [b"acTL", b"fcTL", b"pHYs", b"zTXt"]
        ),
        st.one_of(
            st.binary(max_size=60),
            st.sampled_from([b"transparency\0x", b"exif\0x", b"icc_profile\0x", b"xmp\0x"]),
        ),
    ),
    max_size=3,
)


def with_chunks(data, chunks):
    """A PNG with chunks behind its header."""
    return data[:33] + b"".join(chunks) + data[33:]


PNG = st.builds(
    with_chunks,
    st.sampled_from([data for name, data in sorted(UNDAMAGED.items()) if name.endswith(".png")]),
    PNG_CHUNKS,
)


def check_bytes(folder, data):
    path = folder / "any.image"
    path.write_bytes(data)
    outcome(path, "any.image")


checked = {
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": [HealthCheck.function_scoped_fixture],
}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("scratch")


@settings(max_examples=400, **checked)
@given(st.one_of(MUTATED, PNG, ANY_BYTES))
def test_any_bytes_are_read_or_refused(scratch, data):
    check_bytes(scratch, data)


@pytest.mark.slow
@settings(max_examples=20_000, **checked | {"derandomize": False})
@given(st.one_of(MUTATED, PNG, ANY_BYTES))
def test_very_many_bytes_are_read_or_refused(scratch, data):
    check_bytes(scratch, data)


# Any image in memory, and any array.

MODES = ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16", "I;16B"]
MODES += ["LA", "La", "PA", "RGBX", "RGBa"]
INFO = st.dictionaries(
    st.sampled_from(["transparency", "icc_profile", "exif", "gamma", "chromaticity", "xmp"]),
    st.one_of(
        st.none(),
        st.integers(-5, 2**70),
        st.floats(),
        st.text(max_size=5),
        st.binary(max_size=300),
        st.tuples(*[st.integers(-5, 2**70)] * 3),
        st.sampled_from([rgb_profile(ADOBE_RGB, 2.2), b"Exif\0\0MM\0*\0\0\0\x08"]),
    ),
    max_size=3,
)


@settings(max_examples=200, **checked)
@given(st.sampled_from(MODES), st.integers(0, 20), st.integers(0, 20), INFO)
def test_any_image_is_read_or_refused(mode, width, height, info):
    image = Image.new(mode, (width, height))
    image.info |= info
    outcome(image)


DTYPES = ["u1", "<u2", ">u2", "u4", "i1", "i8", "f2", "<f4", ">f8", "?", "c8", "O", "S3", "M8[s]"]


@settings(max_examples=200, **checked)
@given(st.data())
def test_any_array_is_read_or_refused(data):
    dtype = np.dtype(data.draw(st.sampled_from(DTYPES)))
    shape = data.draw(
        st.one_of(
            array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9),
            st.tuples(st.integers(7, 18), st.integers(7, 18)),
            st.tuples(st.integers(7, 18), st.integers(7, 18), st.integers(1, 4)),
        )
    )
    small = st.floats(0, 1, width=16) if dtype.kind == "f" and data.draw(st.booleans()) else None
    array = (
        np.zeros(shape, dtype)
        if dtype.kind == "O"
        else data.draw(arrays(dtype, shape, elements=small))
    )
    outcome(array)


def test_a_damaged_file_passed_as_a_lazy_image_is_refused():
    data = UNDAMAGED["noise.png"]
    pixels, words = outcome(Image.open(BytesIO(data[: len(data) // 2])))
    assert pixels is None and words[0].startswith("the image is not an image that can be read")


def test_sizes_are_as_said():
    assert Image.open(BytesIO(UNDAMAGED["rgb.png"])).size == (WIDTH, HEIGHT)
