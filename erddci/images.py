"""Reading images: whatever comes in, a square RGB image goes out, and every change is said."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

ImageInput = str | Path | Image.Image | np.ndarray


class ImageChanged(UserWarning):
    """Says how an image was converted on its way to the model."""


def open_image(source: ImageInput, size: int) -> Image.Image:
    """Read an image as `size` × `size` RGB.

    It is turned upright as its EXIF orientation says, laid on white where it is transparent,
    scaled to 8 bits, cropped to its central square and resized; an `ImageChanged` warning lists
    what was done.  An image that already fits comes back as it is.

    Args:
        source: a path, a PIL image, or an array [H, W] or [H, W, 1, 3 or 4] of uint8, uint16 or
            floats in [0, 1].

    Raises:
        FileNotFoundError: no file at the path.
        ValueError: not an image, or an array of another shape, type or range.
    """
    name, changes = "the image", []
    if isinstance(source, str | Path):
        name = Path(source).name
        source = _read(Path(source), changes)
    elif isinstance(source, np.ndarray):
        source = _from_array(source, changes)
    elif not isinstance(source, Image.Image):
        raise ValueError(f"expected a path, a PIL image or an array, got {type(source).__name__}")

    frames = getattr(source, "n_frames", 1)
    if frames > 1:
        changes.append(f"reduced to the first of {frames} frames")
    upright = ImageOps.exif_transpose(source)
    if source.getexif().get(0x0112, 1) in range(2, 9):
        changes.append("turned upright as its EXIF orientation says")
    image = _as_rgb(upright, changes)
    if image.size != (size, size):
        width, height = image.size
        if min(width, height) < 8:
            raise ValueError(f"expected at least 8 × 8 pixels, got {width} × {height}")
        cropped = "cropped to its centre and " if width != height else ""
        changes.append(f"{cropped}resized from {width} × {height} to {size} × {size}")
        image = ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
    if changes:
        warnings.warn(f"{name} was {'; '.join(changes)}", ImageChanged, stacklevel=3)
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


def _read(path: Path, changes: list[str]) -> Image.Image:
    if not path.is_file():
        raise FileNotFoundError(f"no image at {path}: check the path and its spelling")
    try:
        image = Image.open(path)
        # Pillow keeps the upper bytes of coloured 16-bit images without a word.
        if image.mode.startswith(("RGB", "LA")) and any("16" in str(t[3]) for t in image.tile):
            changes.append("scaled from 16 to 8 bits")
        image.load()
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError) as error:
        # Pillow's words for an unknown format hold the whole path, which may be a temporary one.
        why = "unknown format" if isinstance(error, UnidentifiedImageError) else error
        raise ValueError(
            f"{path.name} is not an image that can be read ({why}): expected PNG, JPEG, …"
        ) from error
    return image


def _from_array(array: np.ndarray, changes: list[str]) -> Image.Image:
    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))
    if not fits or 0 in array.shape:
        raise ValueError(f"expected an array [H, W] or [H, W, 1, 3 or 4], got shape {array.shape}")
    if array.dtype == np.uint16:
        changes.append("scaled from 16 to 8 bits")
        array = np.round(array / 257).astype(np.uint8)
    elif np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise ValueError("expected floats between 0 and 1: divide 8-bit values by 255")
        array = np.round(array * 255).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise ValueError(f"expected an array of uint8, uint16 or floats, got {array.dtype}")
    return Image.fromarray(array[:, :, 0] if array.shape[2:] == (1,) else array)


def _as_rgb(image: Image.Image, changes: list[str]) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image)
        if image.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise ValueError(
                f"expected 8 or 16 bits a channel, got an image of mode {image.mode} with values "
                f"from {values.min()} to {values.max()}: convert it first"
            )
        changes.append("scaled from 16 to 8 bits and repeated from grey to RGB")
        image = Image.fromarray(np.round(values / 257).astype(np.uint8))
    elif image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        changes.append("laid on white where it is transparent")
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    elif image.mode in ("1", "L"):
        changes.append("repeated from grey to RGB")
    else:
        changes.append(f"converted from {image.mode} to RGB")
    return image.convert("RGB")
