"""Reading images: whatever comes in, a square sRGB image goes out, and every change is said."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError
from PIL.Image import Transpose

from erddci.notices import notify

ImageInput = str | Path | Image.Image | np.ndarray

SMALLEST = 8

# What turns an image upright, by its EXIF orientation.
UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}

# Factors from the samples of a file to Pillow's 8 bits, by Pillow's raw mode.
SAMPLE_SCALES = {"L;2": 85, "L;4": 17}

# The mode that a profile of a colour space is for, and the images that can be brought to it.
PROFILE_MODES = {
    b"GRAY": ("L", ("1", "L")),
    b"RGB ": ("RGB", ("1", "L", "P", "RGB", "RGBX", "YCbCr", "HSV")),
    b"CMYK": ("CMYK", ("CMYK",)),
    b"Lab ": ("LAB", ("LAB",)),
}

# Levels of 8 bits by which two descriptions of sRGB may differ.
SRGB_TOLERANCE = 2

# White point and primaries of sRGB as a PNG holds them: x and y of each.
SRGB_CHROMATICITIES = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
SRGB_GAMMA = 1 / 2.2


class ImageChanged(UserWarning):
    """Says how an image was converted on its way to the model."""


def open_image(source: ImageInput, size: int) -> Image.Image:
    """Read an image as `size` × `size` sRGB.

    Its first frame is turned upright as its EXIF orientation says, scaled to 8 bits, converted
    from its colour profile, laid on white where it is transparent, cropped to its central square
    and resized; one `ImageChanged` warning lists what was done.  An image that already fits is
    read in silence, and an image that was read once fits.

    Args:
        source: a path, a PIL image, or an array [H, W] or [H, W, 1, 3 or 4] of uint8, uint16 or
            floats in [0, 1].

    Raises:
        FileNotFoundError: no file at the path.
        ValueError: not an image or a damaged one, or an array of another shape, type or range.
    """
    name, changes = "the image", []
    if isinstance(source, str | Path):
        path = Path(os.path.expanduser(source))
        name = path.name
        image = _read(path, changes)
    elif isinstance(source, np.ndarray):
        image = _from_array(source, changes)
    elif isinstance(source, Image.Image):
        with _one_sentence(name, changes):
            image = _decode(source, changes)
    else:
        raise ValueError(
            f"expected a path, a PIL image or an array, got {type(source).__name__}: pass "
            "np.asarray(image)"
        )
    if min(image.size) < SMALLEST:
        raise ValueError(
            f"{name} is too small: expected at least {SMALLEST} × {SMALLEST} pixels, got "
            f"{image.width} × {image.height}"
        )
    image = _fit(_as_rgb(image, changes), size, changes)
    if changes:
        notify(f"{name} was {'; '.join(changes)}", ImageChanged)
    return image


def check_pair(reference: np.ndarray, image: np.ndarray, batched: bool = False) -> None:
    """Refuse what cannot be compared pixel by pixel.

    Raises:
        ValueError: other than two images [H, W, 3], or with `batched` two batches of them
            [B, H, W, 3], of one size and of floats in [0, 1].
    """
    kind, ndim = ("batches [B, H, W, 3]", 4) if batched else ("images [H, W, 3]", 3)
    if reference.shape != image.shape or image.ndim != ndim or image.shape[-1] != 3:
        raise ValueError(
            f"expected two {kind} of one size, got {reference.shape} and {image.shape}"
        )
    for each in (reference, image):
        # Written so that NaN, which compares as false, is refused too.
        if not (np.issubdtype(each.dtype, np.floating) and each.min() >= 0 and each.max() <= 1):
            raise ValueError(
                f"expected floats between 0 and 1, got {each.dtype} from {each.min()} to "
                f"{each.max()}: divide 8-bit values by 255"
            )


# From a file or a lazy PIL image to its pixels.


def _read(path: Path, changes: list[str]) -> Image.Image:
    try:
        if not path.is_file():
            raise FileNotFoundError(f"no image at {path}: check the path and its spelling")
        with path.open("rb") as file, _one_sentence(path.name, changes):
            # Only this compares the checksums of a PNG's pixels.
            Image.open(file).verify()
            file.seek(0)
            return _decode(Image.open(file), changes)
    except FileNotFoundError:
        raise
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise ValueError(f"{path.name} cannot be read ({why}): check its permissions") from error


@contextmanager
def _one_sentence(name: str, changes: list[str]) -> Iterator[None]:
    """Turn what Pillow raises into one sentence, and what it warns of into a change."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            yield
        # Decoders of damaged files raise whatever they trip over.
        except Exception as error:
            raise ValueError(
                f"{name} is not an image that can be read ({_reason(error)}): expected an "
                "undamaged PNG, JPEG, TIFF, WebP, …"
            ) from error
    damage = [_one_line(each.message) for each in said if each.category is UserWarning]
    if damage:
        changes.append(f"read in spite of damage ({damage[0]})")


def _reason(error: Exception) -> str:
    # Pillow's words for an unknown format hold the whole path, which may be a temporary one.
    if isinstance(error, UnidentifiedImageError):
        return "unknown format"
    if isinstance(error, Image.DecompressionBombError):
        most = Image.MAX_IMAGE_PIXELS or 0  # Pillow refuses twice as many
        limit = f"{2 * most:,}".replace(",", " ")
        return f"more than {limit} pixels: resize it first"
    said = isinstance(error, OSError | ValueError | SyntaxError) and _one_line(error)
    return said or f"damaged data, {type(error).__name__}"


def _one_line(words: object) -> str:
    printable = (c if c.isprintable() else " " for c in str(words))
    return " ".join("".join(printable).split()).rstrip(".")


def _decode(image: Image.Image, changes: list[str]) -> Image.Image:
    """The pixels of the current frame, upright; `info` holds what they mean."""
    raw_mode = " ".join(_raw_mode(tile) for tile in getattr(image, "tile", []))
    tags = getattr(image, "tag_v2", {})
    # Pillow turns a TIFF upright by itself, and forgets that it did.
    turned = tags.get(ExifTags.Base.Orientation) in UPRIGHT
    image.load()
    pixels = image.copy()
    pixels.info = {
        "icc_profile": image.info.get("icc_profile", b""),
        "transparency": _transparency(image, raw_mode),
        "black, white": _black_and_white(image.mode, raw_mode, tags.get(0x0106)),
    }
    # Pillow keeps the upper bytes of coloured 16-bit images without a word.
    if image.mode.startswith(("RGB", "LA", "CMYK")) and "16" in raw_mode:
        changes.append("scaled from 16 to 8 bits")
    _say_frames(image, changes)
    exif = _exif(image, changes)
    _say_other_colours(image.info, exif, changes)
    orientation = exif.get(ExifTags.Base.Orientation)
    upright = UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    if turned or upright is not None:
        changes.append("turned upright as its EXIF orientation says")
    return pixels if upright is None else pixels.transpose(upright)


def _raw_mode(tile: tuple) -> str:
    arguments = tile[3]
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def _transparency(image: Image.Image, raw_mode: str) -> int | tuple[int, ...] | bytes | None:
    """The transparent colour in the units of Pillow's pixels, or the alphas of a palette."""
    key = image.info.get("transparency")
    if image.mode == "P" and isinstance(key, bytes):
        return key[:256]
    if image.mode == "RGB" and isinstance(key, tuple) and len(key) == 3:
        # Pillow keeps all 16 bits here though it keeps but 8 of the pixels.
        return tuple((value >> 8 if "16" in raw_mode else value) & 255 for value in key)
    if image.mode in ("1", "L", "P") and isinstance(key, int):
        return key * SAMPLE_SCALES.get(raw_mode, 1) & 255
    return key if image.mode.startswith("I") and isinstance(key, int) else None


def _black_and_white(mode: str, raw_mode: str, photometric: int | None) -> tuple[int, int]:
    """The values of black and of white in a grey image of more than 8 bits."""
    white = 1 if mode == "F" else 4095 if raw_mode == "I;12" else 65535
    # Pillow inverts a TIFF in which 0 is white at 8 bits only.
    return (white, 0) if photometric == 0 else (0, white)


def _say_frames(image: Image.Image, changes: list[str]) -> None:
    number = image.tell()
    try:
        frames = getattr(image, "n_frames", 1)
    except Exception:  # as above: the frames behind this one may be damaged
        changes.append("reduced to one frame, others being damaged")
        return
    if frames > 1:
        which = "the first" if number == 0 else f"number {number + 1}"
        changes.append(f"reduced to {which} of {frames} frames")


def _exif(image: Image.Image, changes: list[str]) -> Image.Exif:
    try:
        data = image.info.get("exif")
        if isinstance(data, bytes):
            # Pillow's reader of JPEG passes over EXIF data that raise here.
            Image.Exif().load(data)
        exif = image.getexif()
        exif.get_ifd(ExifTags.IFD.Interop)
        return exif
    except Exception:  # as above
        changes.append("read without its EXIF data, which are damaged")
        return Image.Exif()


def _say_other_colours(info: dict, exif: Image.Exif, changes: list[str]) -> None:
    """Say where a file without a profile describes its colours in another way than as sRGB."""
    if info.get("icc_profile") or "srgb" in info:
        return
    gamma = info.get("gamma", SRGB_GAMMA)
    points = info.get("chromaticity", SRGB_CHROMATICITIES)
    # A text of these names in a PNG takes the place of its chunks.
    if isinstance(gamma, float) and isinstance(points, tuple):
        moved = max(abs(a - b) for a, b in zip(points, SRGB_CHROMATICITIES, strict=False))
        if abs(gamma - SRGB_GAMMA) > 0.02 or moved > 0.01:
            changes.append("read as sRGB, though it names another gamma or other primaries")
    # So cameras mark Adobe RGB, by the Design rule for Camera File system.
    if exif.get_ifd(ExifTags.IFD.Interop).get(ExifTags.Interop.InteropIndex) == "R03":
        changes.append("read as sRGB, though its EXIF data name Adobe RGB")


# From an array to its pixels.


def _from_array(array: np.ndarray, changes: list[str]) -> Image.Image:
    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))
    if not fits or 0 in array.shape:
        raise ValueError(
            f"expected an array [H, W] or [H, W, 1, 3 or 4], got shape {array.shape}: move or "
            "drop axes first"
        )
    kind = array.dtype.newbyteorder("=")
    if kind == np.uint16:
        _refuse_eight_bits(array)
        changes.append("scaled from 16 to 8 bits")
        array = _eight_bits(array, 0, 65535)
    elif np.issubdtype(kind, np.floating):
        if not (array.min() >= 0 and array.max() <= 1):
            raise ValueError("expected floats between 0 and 1: divide 8-bit values by 255")
        array = _eight_bits(array, 0, 1)
    elif kind != np.uint8:
        raise ValueError(
            f"expected an array of uint8, uint16 or floats, got {array.dtype}: convert it first"
        )
    return Image.fromarray(array[:, :, 0] if array.shape[2:] == (1,) else array)


def _refuse_eight_bits(values: np.ndarray) -> None:
    """Refuse 8-bit values in a wider type, which would be read as a dark image."""
    if 0 < values.max() < 256:
        raise ValueError(
            f"expected 16-bit values up to 65535, got none above {values.max()}: if they are "
            "8-bit values, convert them to uint8"
        )


def _eight_bits(values: np.ndarray, black: int, white: int) -> np.ndarray:
    return np.round((values.astype(np.float64) - black) * (255 / (white - black))).astype(np.uint8)


# From pixels to sRGB.


def _as_rgb(image: Image.Image, changes: list[str]) -> Image.Image:
    """Bring pixels of any mode to 8 bits, split off their transparency, and convert the rest."""
    if image.mode.startswith("I") or image.mode == "F":
        image = _from_deep_grey(image, changes)
    if image.info.get("transparency", 0) is None:
        del image.info["transparency"]
    alpha = None
    if image.has_transparency_data:
        changes.append("laid on white where it is transparent")
        grey = image.mode in ("1", "L", "LA", "La")
        image = image.convert("LA" if grey else "RGBA")
        alpha = image.getchannel("A")
        image = image.convert("L" if grey else "RGB")
    image = _from_profile(image, changes)
    if image.mode in ("1", "L"):
        changes.append("repeated from grey to RGB")
    elif image.mode != "RGB":
        changes.append(f"converted from {image.mode} to RGB")
    image = image.convert("RGB")
    return Image.composite(image, Image.new("RGB", image.size, "white"), alpha) if alpha else image


def _from_deep_grey(image: Image.Image, changes: list[str]) -> Image.Image:
    """Scale a grey image of integers or floats to 8 bits, with alpha if a value is transparent."""
    values = np.asarray(image)
    black, white = image.info["black, white"]
    if not (values.min() >= 0 and values.max() <= max(black, white)):
        expected = "floats from 0 to 1" if image.mode == "F" else "8 or 16 bits a channel"
        raise ValueError(
            f"expected {expected}, got an image of mode {image.mode} with values from "
            f"{values.min()} to {values.max()}: convert it first"
        )
    if image.mode == "I":
        _refuse_eight_bits(values)
    depth = "floats" if image.mode == "F" else f"{max(black, white).bit_length()}"
    changes.append(f"scaled from {depth} to 8 bits")
    grey = Image.fromarray(_eight_bits(values, black, white))
    if (key := image.info["transparency"]) is not None:
        alpha = Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8))
        grey = Image.merge("LA", (grey, alpha))
    grey.info = {"icc_profile": image.info["icc_profile"]}
    return grey


def _from_profile(image: Image.Image, changes: list[str]) -> Image.Image:
    """Convert an image to sRGB as its colour profile says, or leave it where none says so."""
    data = image.info.get("icc_profile", b"")
    if data == b"":
        return image
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(data))
        # Bytes 16 to 19 of a profile's header name its colour space.
        mode, sources = PROFILE_MODES[data[16:20]]
        srgb = ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(profile, srgb, mode, "RGB")
        name = _one_line(ImageCms.getProfileDescription(profile))[:60] or "without a name"
    except Exception:  # as above
        changes.append("read as sRGB, its colour profile being damaged or of an unknown kind")
        return image
    if image.mode not in sources:
        changes.append(f"read as sRGB, its colour profile being for {mode} images")
        return image
    if _keeps_colours(transform, mode):
        return image
    changes.append(f"converted from its colour profile ({name}) to sRGB")
    return transform.apply(image.convert(mode))


def _keeps_colours(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether a transform leaves all colours where they are, as from one sRGB to another."""
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(18, -1, 3)
    probe = Image.fromarray(colours).convert(mode)
    moved = np.asarray(transform.apply(probe), int) - np.asarray(probe.convert("RGB"), int)
    return np.abs(moved).max() <= SRGB_TOLERANCE


def _fit(image: Image.Image, size: int, changes: list[str]) -> Image.Image:
    width, height = image.size
    if (width, height) == (size, size):
        return image
    cropped = "cropped to its centre and " if width != height else ""
    changes.append(f"{cropped}resized from {width} × {height} to {size} × {size}")
    return ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
