"""Which weight files a checkpoint holds, and whether they are what they say."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from safetensors import safe_open

from erddci.checkpoint.files import read_json, refuse

# How weight files are called; a variant or the number of a shard may follow.
WEIGHTS = {
    "vae": "diffusion_pytorch_model",
    "unet": "diffusion_pytorch_model",
    "text_encoder": "model",
}
PICKLED = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
ADAPTERS = re.compile(r"(.*lora.*|.*adapter.*)\.(safetensors|bin)", re.IGNORECASE)
SHARD = r"(-\d+-of-\d+)"
FETCH = "fetch the file again"
DTYPES = ("F16", "BF16", "F32", "F64")


def weight_files(names: Iterable[str]) -> list[str]:
    """Of a checkpoint's files, "unet/…", those to load: safetensors, plain before a variant."""
    names = list(names)
    return [name for part in WEIGHTS for name in _forms(part, names).get(variant(part, names), [])]


def variant(part: str, names: Iterable[str]) -> str | None:
    """The variant of a network's weights to load, None where there are plain ones, or none."""
    forms = _forms(part, names)
    if None in forms or not forms:
        return None
    return "fp16" if "fp16" in forms else sorted(map(str, forms))[0]


def missing_weights(folder: Path, names: Iterable[str]) -> list[str]:
    """The weight files that a folder should hold and does not, shards one by one.

    Raises:
        ValueError: the weights of a network are there in pickled form alone.
    """
    names, missing = list(names), []
    for part, base in WEIGHTS.items():
        files = _forms(part, names).get(variant(part, names))
        pickled = [n for n in names if n.startswith(f"{part}/") and n.endswith(PICKLED)]
        if not files and pickled:
            raise refuse(
                folder / pickled[0],
                "safetensors",
                "pickled weights, which may run code when read",
                "fetch the checkpoint's safetensors, or save it anew with safe_serialization=True",
            )
        if not files:
            missing.append(f"{part}/{base}.safetensors")
        for name in files or []:
            if name.endswith(".json"):
                missing += [shard for shard in _shards(folder / name) if shard not in names]
    return missing


def check_weights(path: Path) -> None:
    """Read the header of a safetensors file.

    Raises:
        ValueError: it is damaged, cut short, or holds what is no part of a plain network.
    """
    if path.suffix != ".safetensors":
        return
    try:
        with safe_open(path, "pt") as file:
            dtypes = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors raises its own kind, and plain ones
        raise refuse(path, "safetensors", _why(path, error), FETCH) from error
    odd = [f"{n} in {d}" for n, d in dtypes.items() if d not in DTYPES and "position_ids" not in n]
    if odd:
        raise refuse(path, f"weights in {', '.join(DTYPES)}", odd[0], "load what is not quantised")
    apart = [name for name in dtypes if "lora" in name.lower() or "_ip." in name]
    if apart:
        raise refuse(
            path,
            "the weights of a plain network",
            f"an adapter's ({apart[0]})",
            "fuse the LoRA or unload the IP-Adapter, and save the pipeline anew",
        )


def adapters(folder: Path) -> list[str]:
    """The files of LoRAs and other adapters that lie in a checkpoint's folder."""
    found = [*folder.glob("*"), *folder.glob("*/*")]
    return sorted(path.name for path in found if ADAPTERS.fullmatch(path.name))


def _forms(part: str, names: Iterable[str]) -> dict[str | None, list[str]]:
    """The safetensors files of a network by their variant; an index comes with its shards."""
    base = re.escape(f"{part}/{WEIGHTS[part]}")
    pattern = re.compile(
        rf"{base}(?:{SHARD}?(?:\.(?P<a>\w+))?{SHARD}?\.safetensors"
        rf"|\.safetensors\.index(?:\.(?P<b>\w+))?\.json)"
    )
    forms: dict[str | None, list[str]] = {}
    for name in names:
        if match := pattern.fullmatch(name):
            forms.setdefault(match["a"] or match["b"], []).append(name)
    return forms


def _shards(path: Path) -> list[str]:
    weights = read_json(path).get("weight_map")
    if not isinstance(weights, dict) or not weights:
        raise refuse(path, "a weight_map of shards", "none", FETCH)
    shards = sorted({str(name) for name in weights.values()})
    outside = [name for name in shards if Path(name).name != name]
    if outside:
        raise refuse(path, "shards beside their index", outside[0], FETCH)
    return [f"{path.parent.name}/{name}" for name in shards]


def _why(path: Path, error: Exception) -> str:
    try:
        start = path.open("rb").read(20)
    except OSError as unreadable:
        return str(unreadable.strerror)
    if start.startswith(b"version https://git"):
        return "a pointer of Git LFS in its place (run `git lfs pull`)"
    return f"a damaged file of {path.stat().st_size} bytes ({error})"
