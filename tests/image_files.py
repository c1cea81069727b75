"""Images as people have them, as bytes: made by hand where Pillow writes no such file."""

import struct
import zlib
from io import BytesIO

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 24, 20

# Adapted to D50, as profiles hold them: X, Y and Z of red, green and blue.
ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
DISPLAY_P3 = (
    (0.51512, 0.24120, -0.00105),
    (0.29198, 0.69225, 0.04189),
    (0.15710, 0.06657, 0.78407),
)
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def smooth(*bands):
    """A gradient of 8 bits, which JPEG keeps well."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    planes = (rows * 12, columns * 10, 255 - rows * 12, (rows + columns) * 5)
    pixels = np.stack(planes[: bands[0]] if bands else planes[:1], -1)
    return pixels.astype(np.uint8) if bands else pixels[..., 0].astype(np.uint8)


def saved(image, kind, **options):
    out = BytesIO()
    # Pillow notes on images how they were saved, to the harm of the next time.
    more = [each.copy() for each in options.get("append_images", [])]
    options = options | ({"append_images": more} if more else {})
    image.copy().save(out, kind, **options)
    return out.getvalue()


# PNG, of any depth and with any chunks.


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(rows, depth, colour, *chunks):
    """A PNG of an array [H, bytes of a row]; colour is 0 for grey, 2 for RGB, + 4 with alpha."""
    samples = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    width = rows.shape[1] * 8 // (depth * samples)
    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    parts = chunk(b"IHDR", header), *chunks, chunk(b"IDAT", data), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def deep_png(values, *chunks):
    """A PNG of 16 bits of an array [H, W, bands] of uint16."""
    bands = values.shape[2]
    rows = np.ascontiguousarray(values.astype(">u2")).view(np.uint8).reshape(len(values), -1)
    return png(rows, 16, {1: 0, 2: 4, 3: 2, 4: 6}[bands], *chunks)


# Colour profiles: ICC.1 of version 2, with nothing in them but what is needed.


def profile(space, pcs, kind, tags, name=b"made by hand"):
    description = b"desc" + bytes(4) + struct.pack(">I", len(name) + 1) + name + bytes(79)
    tags = {
        b"desc": description,
        b"cprt": b"text" + bytes(4) + b"none\0",
        b"wtpt": fixed(b"XYZ ", 0.9642, 1, 0.8249),
        **tags,
    }
    table, body = struct.pack(">I", len(tags)), b""
    for key, data in tags.items():
        data += bytes(-len(data) % 4)
        table += key + struct.pack(">II", 128 + 4 + 12 * len(tags) + len(body), len(data))
        body += data
    size = struct.pack(">I", 128 + len(table) + len(body))
    head = size + bytes(4) + b"\x02\x40\0\0" + kind + space + pcs
    head += bytes(12) + b"acsp" + bytes(28) + fixed(b"", 0.9642, 1, 0.8249)[4:]
    return head.ljust(128, b"\0") + table + body


def fixed(kind, *numbers):
    """A tag of numbers with 16 bits behind the point."""
    return kind + bytes(4) + b"".join(struct.pack(">i", round(n * 65536)) for n in numbers)


def gamma_curve(gamma):
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))


def rgb_profile(primaries, gamma, name=b"made by hand"):
    columns = {b"rgb"[i : i + 1] + b"XYZ": fixed(b"XYZ ", *primaries[i]) for i in range(3)}
    curves = {b"rgb"[i : i + 1] + b"TRC": gamma_curve(gamma) for i in range(3)}
    return profile(b"RGB ", b"XYZ ", b"mntr", columns | curves, name)


def grey_profile(gamma):
    return profile(b"GRAY", b"XYZ ", b"mntr", {b"kTRC": gamma_curve(gamma)})


def cmyk_profile(lab):
    """A profile by a table of Lab at no and full ink: array [2, 2, 2, 2, 3] over C, M, Y, K."""
    straight = bytes(range(256))
    scaled = np.asarray(lab, float) * (2.55, 1, 1) + (0, 128, 128)
    table = b"mft1" + bytes(4) + bytes((4, 3, 2, 0))
    table += fixed(b"", 1, 0, 0, 0, 1, 0, 0, 0, 1)[4:] + 4 * straight
    table += np.round(scaled).astype(np.uint8).tobytes() + 3 * straight
    return profile(b"CMYK", b"Lab ", b"prtr", {b"A2B0": table})


def srgb_from_xyz(xyz):
    """8-bit sRGB of X, Y, Z [..., 3] under D50, by the matrix in Lindbloom's tables."""
    matrix = (
        (3.1338561, -1.6168667, -0.4906146),
        (-0.9787684, 1.9161415, 0.0334540),
        (0.0719453, -0.2289914, 1.4052427),
    )
    linear = np.clip(np.asarray(xyz) @ np.transpose(matrix), 0, 1)
    curved = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(255 * curved)


def srgb_from_lab(lightness, a, b):
    """8-bit sRGB of a colour of L*a*b* under D50."""
    y = (lightness + 16) / 116
    f = np.array((y + a / 500, y, y - b / 200))
    xyz = np.where(f > 6 / 29, f**3, (f - 4 / 29) * 3 * (6 / 29) ** 2)
    return srgb_from_xyz(xyz * (0.9642, 1, 0.8249))


# Undamaged files of most kinds.


def exif(orientation=6):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def undamaged():
    """Undamaged images of 24 × 20 by name, small and different."""
    grey, rgb, rgba = (Image.fromarray(smooth(*bands)) for bands in ((), (3,), (4,)))
    deep = (smooth(4).astype(np.uint16) * 257)[..., :4]
    palette, transparent = rgb.quantize(16), rgb.quantize(16)
    transparent.info["transparency"] = bytes(range(0, 160, 10))
    wide = rgb_profile(DISPLAY_P3, 2.2)
    frames = {"save_all": True, "append_images": [rgb.rotate(90), rgb.rotate(180)]}
    files = {
        "rgb.png": saved(rgb, "PNG"),
        "rgba.png": saved(rgba, "PNG"),
        "grey.png": saved(grey, "PNG"),
        "grey-alpha.png": saved(rgba.convert("LA"), "PNG"),
        "bits.png": saved(grey.convert("1"), "PNG"),
        "palette.png": saved(palette, "PNG"),
        "palette-alpha.png": saved(transparent, "PNG"),
        "key.png": saved(rgb, "PNG", transparency=(0, 0, 255)),
        "profile.png": saved(rgb, "PNG", icc_profile=wide),
        "exif.png": saved(rgb, "PNG", exif=exif()),
        "moving.png": saved(rgb, "PNG", **frames),
        "noise.png": saved(Image.fromarray(noise(HEIGHT, WIDTH, 3)), "PNG"),
        "photo.jpg": saved(rgb, "JPEG"),
        "grey.jpg": saved(grey, "JPEG"),
        "cmyk.jpg": saved(rgb.convert("CMYK"), "JPEG"),
        "progressive.jpg": saved(rgb, "JPEG", progressive=True),
        "profile.jpg": saved(rgb, "JPEG", icc_profile=wide),
        "exif.jpg": saved(rgb, "JPEG", exif=exif()),
        "stereo.mpo": saved(rgb, "MPO", **frames),
        "still.gif": saved(palette, "GIF"),
        "moving.gif": saved(rgb, "GIF", **frames),
        "photo.webp": saved(rgb, "WEBP"),
        "exact.webp": saved(rgba, "WEBP", lossless=True, exif=exif()),
        "moving.webp": saved(rgb, "WEBP", **frames),
        "photo.jp2": saved(rgb, "JPEG2000"),
        "image.bmp": saved(rgb, "BMP"),
        "palette.bmp": saved(palette, "BMP"),
        "image.ppm": saved(rgb, "PPM"),
        "image.tga": saved(rgba, "TGA", compression="tga_rle"),
        "image.ico": saved(rgba, "ICO", sizes=[(WIDTH, HEIGHT)]),
        "image.pcx": saved(rgb, "PCX"),
        "image.sgi": saved(rgb, "SGI"),
        "image.tiff": saved(rgb, "TIFF", exif=exif(3)),
        "pages.tiff": saved(rgb, "TIFF", **frames),
        "float.tiff": saved(Image.fromarray(smooth().astype(np.float32) / 255), "TIFF"),
        "deep.tiff": saved(Image.fromarray(deep[..., 0]), "TIFF"),
        "cmyk.tiff": saved(rgb.convert("CMYK"), "TIFF"),
        "lab.tiff": saved(rgb.convert("LAB"), "TIFF"),
    }
    for way in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits"):
        files[f"{way}.tiff"] = saved(rgb, "TIFF", compression=way)
    for bands in (1, 2, 3, 4):
        files[f"deep-{bands}.png"] = deep_png(deep[..., :bands])
    return files
