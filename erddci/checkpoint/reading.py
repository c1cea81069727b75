"""Reading the config files of a checkpoint, and refusing what is not supported."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffusers import DDIMScheduler

from erddci.checkpoint.files import is_count, is_number, read_json, refuse
from erddci.checkpoint.scheduler import read_scheduler
from erddci.checkpoint.weights import (
    WEIGHTS,
    adapters,
    check_weights,
    missing_weights,
    variant,
    weight_files,
)

# The parts of a pipeline that are used, and the classes that they may have.
PARTS = {
    "vae": ("AutoencoderKL",),
    "unet": ("UNet2DConditionModel",),
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
}
CONFIGS = (
    "unet/config.json",
    "vae/config.json",
    "text_encoder/config.json",
    "tokenizer/tokenizer_config.json",
    "scheduler/scheduler_config.json",
)
# What UNets of these numbers of input channels were made for.
OTHER_INPUTS = {5: "depth", 7: "upscaling", 8: "InstructPix2Pix", 9: "inpainting"}
# Inputs besides latents, timestep and text, by the setting of a UNet that asks for them.
OTHER_CONDITIONS = {
    "addition_embed_type": "pooled text or sizes, as in Stable Diffusion XL",
    "class_embed_type": "a class or a noise level, as in upscalers",
    "encoder_hid_dim": "embeddings of another width",
    "encoder_hid_dim_type": "embeddings of an image, as with an IP-Adapter",
    "num_class_embeds": "a class or a noise level, as in upscalers",
    "time_cond_proj_dim": "the guidance scale, as in latent consistency models",
}
KIND = "a StableDiffusionPipeline (SD 1 or 2)"
LOAD = "load a checkpoint for text to image"
FETCH = "fetch the file again"


@dataclass(frozen=True)
class Checkpoint:
    """What the files of a checkpoint say.

    Args:
        folder: where it lies.
        scheduler: DDIM on its betas.
        sample_size: the latents' height and width.
        length: how many tokens its text encoder takes.
        changes: what is taken in another way than it was written, a sentence each.
        variants: the variant of each network's weight files, None for the plain ones.
    """

    folder: Path
    scheduler: DDIMScheduler
    sample_size: int
    length: int
    changes: tuple[str, ...]
    variants: dict[str, str | None]


def read(folder: Path) -> Checkpoint:
    """Read and check the config files of a checkpoint, and the headers of its weights.

    Raises:
        FileNotFoundError: files are missing; the message names all of them.
        ValueError: a damaged file, pickled weights, or a model of a kind that is not supported.
    """
    _check_index(folder)
    names = [path.relative_to(folder).as_posix() for path in folder.glob("*/*") if path.is_file()]
    _refuse_missing(folder, [*_missing(folder), *missing_weights(folder, names)])
    checkpoint = read_configs(folder)
    for name in weight_files(names):
        check_weights(folder / name)
    variants = {part: variant(part, names) for part in WEIGHTS}
    taken = [f"{part} ({name})" for part, name in variants.items() if name]
    changes = [f"of {', '.join(taken)} only a variant is there, and was taken"] if taken else []
    changes += [f"{name} in its folder was not loaded: fuse it" for name in adapters(folder)]
    return replace(checkpoint, variants=variants, changes=(*checkpoint.changes, *changes))


def read_configs(folder: Path) -> Checkpoint:
    """Read and check the config files alone, as `read` does."""
    _check_index(folder)
    _refuse_missing(folder, _missing(folder))
    changes: list[str] = []
    paths = [folder / part / "config.json" for part in ("vae", "unet", "text_encoder")]
    vae, unet, text_encoder = map(read_json, paths)
    _check_vae(vae, paths[0])
    _check_text_encoder(text_encoder, paths[2])
    _check_unet(unet, vae, text_encoder, paths[1])
    _check_tokenizer(folder / "tokenizer" / "tokenizer_config.json")
    size = _sample_size(unet, vae, paths[1], changes)
    length = text_encoder.get("max_position_embeddings", 77)
    scheduler = read_scheduler(folder, changes)
    return Checkpoint(folder, scheduler, size, length, tuple(changes), {})


def _check_index(folder: Path) -> None:
    path = folder / "model_index.json"
    if not path.is_file():
        if adapters(folder):
            raise refuse(
                folder,
                "a whole model",
                f"an adapter alone ({adapters(folder)[0]})",
                "load it into its model, fuse it, and save the pipeline",
            )
        _refuse_missing(folder, ["model_index.json"])
    index = read_json(path)
    if index.get("_class_name") != "StableDiffusionPipeline":
        raise refuse(path, KIND, index.get("_class_name"), LOAD)
    for part, classes in PARTS.items():
        found = index.get(part)
        name = found[-1] if isinstance(found, list) and found else found
        if name not in classes:
            raise refuse(path, f"{classes[0]} as {part}", name, LOAD)


def _missing(folder: Path) -> list[str]:
    missing = [name for name in CONFIGS if not (folder / name).is_file()]
    pair = ("tokenizer/vocab.json", "tokenizer/merges.txt")
    lacking = [name for name in pair if not (folder / name).is_file()]
    if lacking and not (folder / "tokenizer/tokenizer.json").is_file():
        # Where neither form is there at all, today's is the one to name.
        missing += lacking if len(lacking) == 1 else ["tokenizer/tokenizer.json"]
    return missing


def _refuse_missing(folder: Path, missing: list[str]) -> None:
    if missing:
        raise FileNotFoundError(
            f"{folder} holds no whole model: expected a folder that diffusers' "
            f"StableDiffusionPipeline.save_pretrained wrote, got one without "
            f"{', '.join(missing)}; fetch it again"
        )


def _check_class(config: dict[str, Any], part: str, path: Path) -> None:
    name = config.get("_class_name", PARTS[part][0])
    if name not in PARTS[part]:
        raise refuse(path, PARTS[part][0], name, LOAD)


def _check_vae(vae: dict[str, Any], path: Path) -> None:
    _check_class(vae, "vae", path)
    for name in ("in_channels", "out_channels"):
        if vae.get(name, 3) != 3:
            raise refuse(path, f"3 {name}", vae[name], LOAD)
    if not is_count(vae.get("latent_channels", 4)):
        raise refuse(path, "a number of latent_channels", vae["latent_channels"], FETCH)
    blocks = vae.get("block_out_channels")
    if not (isinstance(blocks, list) and blocks and all(map(is_count, blocks))):
        raise refuse(path, "a list of block_out_channels", blocks, FETCH)
    scale = vae.get("scaling_factor", 0.18215)
    if not is_number(scale) or scale <= 0:
        raise refuse(path, "a positive scaling_factor", scale, FETCH)
    for name in ("shift_factor", "latents_mean", "latents_std"):
        if vae.get(name) is not None:
            raise refuse(path, f"no {name}", vae[name], "latents that are shifted are unsupported")


def _check_text_encoder(text_encoder: dict[str, Any], path: Path) -> None:
    kind = text_encoder.get("model_type", "clip_text_model")
    if kind != "clip_text_model":
        raise refuse(path, "a clip_text_model", kind, LOAD)
    for name, usual in {"hidden_size": 512, "max_position_embeddings": 77}.items():
        if not is_count(text_encoder.get(name, usual)):
            raise refuse(path, f"a whole number as {name}", text_encoder[name], FETCH)


def _check_unet(
    unet: dict[str, Any], vae: dict[str, Any], text_encoder: dict[str, Any], path: Path
) -> None:
    _check_class(unet, "unet", path)
    channels = vae.get("latent_channels", 4)
    found = unet.get("in_channels", 4)
    if found != channels:
        use = OTHER_INPUTS.get(found) if is_count(found) else None
        what = f"{found}, as for {use}" if use else found
        raise refuse(path, f"the VAE's {channels} latent channels as in_channels", what, LOAD)
    if unet.get("out_channels", 4) != channels:
        raise refuse(path, f"{channels} out_channels", unet["out_channels"], LOAD)
    for name, what in OTHER_CONDITIONS.items():
        if unet.get(name) is not None:
            raise refuse(path, "a network of latents, timestep and text", f"{name} ({what})", LOAD)
    width, found = text_encoder.get("hidden_size", 512), unet.get("cross_attention_dim", 1280)
    if found != width:
        expected = f"the text encoder's hidden_size {width} as cross_attention_dim"
        raise refuse(path, expected, found, "take both from one checkpoint")


def _check_tokenizer(path: Path) -> None:
    config = read_json(path)
    words = config.get("words", [])
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise refuse(path, "a list of words", repr(words)[:60], FETCH)


def _sample_size(unet: dict[str, Any], vae: dict[str, Any], path: Path, changes: list[str]) -> int:
    size, pixels = (_side(config.get("sample_size")) for config in (unet, vae))
    factor = 2 ** (len(vae["block_out_channels"]) - 1)
    if size is None and is_count(pixels) and pixels % factor == 0:
        size = pixels // factor
        changes.append(f"its UNet has no sample_size: {size} was taken, from the VAE's {pixels}")
    if isinstance(size, list):
        remedy = "images are square here: set one number in the file"
        raise refuse(path, "a square sample_size", size, remedy)
    if not is_count(size):
        remedy = f"set the latents' side, that of images divided by {factor}"
        raise refuse(path, "a whole number as sample_size", size, remedy)
    return size


def _side(size: Any) -> Any:  # noqa: ANN401
    """The side of a square pair; anything else as it is."""
    return size[0] if isinstance(size, list) and len(size) == 2 and size[0] == size[1] else size
