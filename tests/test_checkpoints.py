"""At the door: damaged checkpoints, and such of other kinds, give one sentence or a conversion."""

import json
import logging
import os
import re
import shutil
import struct
import warnings
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from transformers.utils import logging as transformers_logging

import erddci
from erddci.checkpoint import device as devices
from erddci.checkpoint import hub
from erddci.checkpoint.scheduler import FAMILIES, _with_defaults
from erddci.checkpoint.weights import weight_files
from erddci.model import ModelChanged
from erddci.workbook import doctor

PROMPT = "a small red matte cube on a teal floor"
UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
WEIGHTS = (UNET, VAE, TEXT)
CONFIGS = (
    "model_index.json",
    "unet/config.json",
    "vae/config.json",
    "text_encoder/config.json",
    "scheduler/scheduler_config.json",
    "tokenizer/tokenizer_config.json",
)
DOCUMENTED = (ValueError, FileNotFoundError, ConnectionError)


@pytest.fixture
def copied(tiny_folder, tmp_path):
    return shutil.copytree(tiny_folder, tmp_path / "copied")


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refused(folder, match, kind=ValueError):
    """One sentence of a documented kind, on one line, that says what came and what to do."""
    with pytest.raises(DOCUMENTED, match=match) as caught:
        erddci.load(folder, device="cpu")
    message = str(caught.value)
    assert type(caught.value) is kind
    assert "expected" in message and "got" in message and len(message.splitlines()) == 1
    return message


# Config files.

# What is written into a config file, and what the sentence says.
EDITS = [
    ("model_index.json", {"_class_name": "FluxPipeline"}, "(SD 1 or 2), got FluxPipeline"),
    ("model_index.json", {"_class_name": "StableDiffusionXLPipeline"}, "got StableDiffusionXL"),
    ("model_index.json", {"_class_name": "StableDiffusionInpaintPipeline"}, "text to image"),
    ("model_index.json", {"_class_name": ["StableDiffusionPipeline"]}, "got ['StableD"),
    ("model_index.json", {"_class_name": None}, "got None"),
    ("model_index.json", {"unet": ["my_code", "MyUNet"]}, "UNet2DConditionModel as unet, got MyU"),
    ("model_index.json", {"vae": ["diffusers", "AutoencoderTiny"]}, "got AutoencoderTiny"),
    (
        "model_index.json",
        {"vae": ["diffusers", "AsymmetricAutoencoderKL"]},
        "AutoencoderKL as vae",
    ),
    (
        "model_index.json",
        {"text_encoder": [None, None]},
        "CLIPTextModel as text_encoder, got None",
    ),
    ("model_index.json", {"tokenizer": []}, "CLIPTokenizer as tokenizer, got []"),
    ("model_index.json", {"scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"]}, "flow"),
    ("model_index.json", {"scheduler": None}, "got None"),
    (
        "unet",
        {"in_channels": 9},
        "the VAE's 4 latent channels as in_channels, got 9, as for inpain",
    ),
    ("unet", {"in_channels": 5}, "got 5, as for depth"),
    ("unet", {"in_channels": 7}, "got 7, as for upscaling"),
    ("unet", {"in_channels": 8}, "got 8, as for InstructPix2Pix"),
    ("unet", {"in_channels": "4"}, "got 4"),
    ("unet", {"in_channels": []}, "got []"),
    ("unet", {"out_channels": 8}, "4 out_channels, got 8"),
    ("unet", {"_class_name": "UNet3DConditionModel"}, "got UNet3DConditionModel"),
    ("unet", {"_class_name": "UNetMotionModel"}, "got UNetMotionModel"),
    (
        "unet",
        {"encoder_hid_dim_type": "ip_image_proj"},
        "encoder_hid_dim_type (embeddings of an im",
    ),
    ("unet", {"encoder_hid_dim": 32}, "encoder_hid_dim (embeddings of another width)"),
    (
        "unet",
        {"time_cond_proj_dim": 256},
        "time_cond_proj_dim (the guidance scale, as in latent co",
    ),
    ("unet", {"class_embed_type": "timestep"}, "class_embed_type (a class or a noise level"),
    ("unet", {"num_class_embeds": 1000}, "num_class_embeds (a class"),
    ("unet", {"addition_embed_type": "text_time"}, "addition_embed_type (pooled text"),
    ("unet", {"cross_attention_dim": 768}, "hidden_size 16 as cross_attention_dim, got 768"),
    ("unet", {"sample_size": [8, 12]}, "a square sample_size, got [8, 12]; images are square"),
    ("unet", {"sample_size": [8]}, "a square sample_size, got [8]"),
    ("unet", {"sample_size": 0}, "a whole number as sample_size, got 0"),
    ("unet", {"sample_size": -8}, "a whole number as sample_size, got -8"),
    (
        "unet",
        {"sample_size": "8"},
        "sample_size, got 8; set the latents' side, that of images divided",
    ),
    ("unet", {"sample_size": 8.5}, "sample_size, got 8.5"),
    ("unet", {"sample_size": True}, "sample_size, got True"),
    ("unet", {"block_out_channels": [8]}, "an error"),
    ("unet", {"block_out_channels": [8, 32]}, "expected weights"),
    ("unet", {"block_out_channels": "wide"}, "an error"),
    ("unet", {"down_block_types": ["NoSuchBlock2D", "DownBlock2D"]}, "NoSuchBlock2D"),
    ("unet", {"norm_num_groups": 3}, "an error"),
    ("unet", {"layers_per_block": 2}, "expected weights that fit config.json"),
    ("unet", {"layers_per_block": None}, "an error"),
    ("vae", {"latent_channels": 16}, "16 latent channels as in_channels, got 4"),
    ("vae", {"latent_channels": None}, "latent_channels, got None"),
    ("vae", {"latent_channels": 2.5}, "latent_channels, got 2.5"),
    ("vae", {"in_channels": 4}, "3 in_channels, got 4"),
    ("vae", {"out_channels": 1}, "3 out_channels, got 1"),
    ("vae", {"scaling_factor": None}, "a positive scaling_factor, got None"),
    ("vae", {"scaling_factor": 0}, "a positive scaling_factor, got 0"),
    ("vae", {"scaling_factor": float("nan")}, "a positive scaling_factor, got nan"),
    ("vae", {"scaling_factor": "0.18"}, "a positive scaling_factor, got 0.18"),
    ("vae", {"shift_factor": 0.1159}, "no shift_factor, got 0.1159; latents that are shifted"),
    ("vae", {"latents_mean": [0, 0, 0, 0]}, "no latents_mean"),
    ("vae", {"_class_name": "AutoencoderTiny"}, "expected AutoencoderKL, got AutoencoderTiny"),
    ("vae", {"block_out_channels": []}, "a list of block_out_channels, got []"),
    ("vae", {"block_out_channels": [8, 0]}, "a list of block_out_channels, got [8, 0]"),
    ("vae", {"block_out_channels": [8, 16, 16]}, "an error"),
    ("vae", {"act_fn": "swoosh"}, "an error"),
    ("text_encoder", {"model_type": "t5"}, "a clip_text_model, got t5"),
    ("text_encoder", {"hidden_size": None}, "a whole number as hidden_size, got None"),
    ("text_encoder", {"hidden_size": 32}, "hidden_size 32 as cross_attention_dim, got 16"),
    ("text_encoder", {"max_position_embeddings": 0}, "max_position_embeddings, got 0"),
    ("text_encoder", {"max_position_embeddings": 77}, "the shapes that config.json tells"),
    ("text_encoder", {"vocab_size": 9}, "the shapes that config.json tells, got another as"),
    ("text_encoder", {"num_attention_heads": 3}, "text_encoder: expected"),
    ("text_encoder", {"num_hidden_layers": 2}, "all weights, got none as"),
    ("text_encoder", {"num_hidden_layers": 0}, "no weights that config.json tells nothing of"),
    ("text_encoder", {"hidden_act": "swoosh"}, "an error"),
    ("tokenizer", {"words": "all"}, "a list of words, got 'all'"),
    ("tokenizer", {"words": [1, 2]}, "a list of words, got [1, 2]"),
    ("scheduler", {"_class_name": "FlowMatchEulerDiscreteScheduler"}, "flow matching is not"),
    ("scheduler", {"_class_name": "FlowMatchHeunDiscreteScheduler"}, "flow matching is not"),
    ("scheduler", {"_class_name": "EDMEulerScheduler"}, "EDM's noise levels are not"),
    ("scheduler", {"_class_name": "EDMDPMSolverMultistepScheduler"}, "EDM's noise levels are not"),
    ("scheduler", {"_class_name": "LCMScheduler"}, "a network distilled to few steps"),
    ("scheduler", {"_class_name": "TCDScheduler"}, "a network distilled to few steps"),
    ("scheduler", {"_class_name": "KarrasVeScheduler"}, "a scheduler on betas (DDIM, DDPM, PNDM"),
    ("scheduler", {"_class_name": {}}, "got {}"),
    ("scheduler", {"use_flow_sigmas": True}, "set to flow matching"),
    ("scheduler", {"prediction_type": "flow_prediction"}, "set to flow matching"),
    ("scheduler", {"timestep_type": "continuous"}, "on continuous noise levels"),
    ("scheduler", {"sigma_data": 0.5}, "on continuous noise levels"),
    ("scheduler", {"prediction_type": "x0"}, "epsilon or v_prediction or sample, got 'x0'"),
    ("scheduler", {"prediction_type": None}, "prediction_type epsilon or"),
    ("scheduler", {"beta_schedule": None}, "beta_schedule linear or scaled_linear or squared"),
    ("scheduler", {"beta_schedule": "sigmoid"}, "got 'sigmoid'; write what the model was trained"),
    ("scheduler", {"beta_start": None}, "between 0 and 1 as beta_start, got None"),
    ("scheduler", {"beta_start": "0.00085"}, "as beta_start, got '0.00085'"),
    ("scheduler", {"beta_end": 12}, "as beta_end, got 12"),
    ("scheduler", {"beta_end": float("inf")}, "as beta_end, got inf"),
    ("scheduler", {"beta_end": 0.9}, "betas that lead from an image to noise"),
    ("scheduler", {"trained_betas": [0.1, 0.2]}, "1000 numbers as trained_betas, got a list of 2"),
    ("scheduler", {"trained_betas": "linear"}, "1000 numbers as trained_betas, got 'linear'"),
    ("scheduler", {"trained_betas": [-0.1] * 1000}, "betas that lead from an image to noise"),
    ("scheduler", {"trained_betas": [float("nan")] * 1000}, "1000 numbers as trained_betas"),
    ("scheduler", {"num_train_timesteps": 0}, "as num_train_timesteps, got 0"),
    ("scheduler", {"num_train_timesteps": 1e3}, "as num_train_timesteps, got 1000.0"),
    ("scheduler", {"steps_offset": -1}, "a steps_offset from 0 to 999, got -1"),
    ("scheduler", {"steps_offset": 1000}, "a steps_offset from 0 to 999, got 1000"),
    ("scheduler", {"timestep_spacing": "karras"}, "leading or trailing or linspace, got 'karras'"),
    ("scheduler", {"set_alpha_to_one": "no"}, "true or false as set_alpha_to_one, got 'no'"),
    ("scheduler", {"rescale_betas_zero_snr": 1}, "true or false as rescale_betas_zero_snr, got 1"),
    ("scheduler", {"rescale_betas_zero_snr": True}, "v_prediction or sample with zero terminal"),
]
FILES = {path.split("/")[0]: path for path in CONFIGS}


@pytest.mark.parametrize(
    ("file", "changes", "words"), EDITS, ids=[f"{f}-{str(c)[1:40]}" for f, c, _ in EDITS]
)
def test_a_config_of_another_kind_is_refused(copied, file, changes, words):
    path = copied / FILES[file]
    edit(path, **changes)
    assert str(copied) in refused(copied, re.escape(words))


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe{}", b"\xef\xbb\xbf{}", b"<html>404</html>"],
    ids=repr,
)
@pytest.mark.parametrize("file", CONFIGS)
def test_a_damaged_config_is_named(copied, file, content):
    (copied / file).write_bytes(content)
    assert file in refused(copied, "expected (JSON|a JSON object), got a")


def test_betas_that_are_not_there_are_not_made_up(copied):
    path = copied / "scheduler" / "scheduler_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in config.items() if not k.startswith("beta")}))
    refused(copied, "a number between 0 and 1 as beta_start, got None")


@pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")
@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_defaults_of_a_family_are_its_own(name):
    if name == "DPMSolverSDEScheduler":
        pytest.skip("diffusers has it with torchsde alone")
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    theirs = getattr(diffusers, name)(**betas)
    mine = _with_defaults(betas, name)
    for key in set(mine) & set(theirs.config):
        assert mine[key] == theirs.config[key], key
    torch.testing.assert_close(DDIMScheduler(**mine).alphas_cumprod, theirs.alphas_cumprod)


@pytest.mark.parametrize(
    "name", ["PNDMScheduler", "EulerDiscreteScheduler", "UniPCMultistepScheduler"]
)
def test_schedulers_on_betas_are_taken_by_them(copied, tiny_folder, name):
    ours = StableDiffusionPipeline.from_pretrained(tiny_folder).scheduler.config
    getattr(diffusers, name).from_config(ours).save_pretrained(copied / "scheduler")
    edit(copied / "model_index.json", scheduler=["diffusers", name])
    edit(copied / "scheduler" / "scheduler_config.json", beta_end=0.01)
    model = erddci.load(copied, device="cpu")
    betas = torch.linspace(0.00085**0.5, 0.01**0.5, 1000, dtype=torch.float64) ** 2
    torch.testing.assert_close(model.alphas_cumprod, (1 - betas).cumprod(0), rtol=1e-4, atol=1e-6)


# What is taken in another way is said.


def changed(folder, match):
    with pytest.warns(ModelChanged, match=match) as caught:
        model = erddci.load(folder, device="cpu")
    assert len(caught) == 1 and caught[0].filename == __file__
    return model


def test_a_whole_checkpoint_loads_without_a_word(copied, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        erddci.load(copied, device="cpu")
    assert capfd.readouterr() == ("", "")


def test_a_square_pair_is_a_size(copied):
    edit(copied / "unet/config.json", sample_size=[8, 8])
    model = erddci.load(copied, device="cpu")
    condition = model.condition(PROMPT)
    assert model.resolution == 16
    assert model.sample(condition, 1, torch.Generator()).shape == (1, 4, 8, 8)


@pytest.mark.parametrize("size", [16, [16, 16]])
def test_a_size_that_is_null_is_the_vaes(copied, size):
    edit(copied / "unet/config.json", sample_size=None)
    edit(copied / "vae/config.json", sample_size=size)
    assert changed(copied, "no sample_size: 8 was taken, from the VAE's 16").resolution == 16


def test_a_size_that_nothing_tells_is_asked_for(copied):
    edit(copied / "unet/config.json", sample_size=None)
    edit(copied / "vae/config.json", sample_size=None)
    refused(copied, "a whole number as sample_size, got None; set the latents' side")


@pytest.mark.parametrize("variant", ["fp16", "non_ema"])
def test_a_variant_alone_is_taken_and_said(copied, tiny, variant):
    for file in WEIGHTS:
        (copied / file).rename((copied / file).with_suffix(f".{variant}.safetensors"))
    words = (
        f"of vae ({variant}), unet ({variant}), text_encoder ({variant}) only a variant is there"
    )
    model = changed(copied, re.escape(words))
    assert model.identity == tiny.identity


def test_a_variant_beside_plain_weights_is_left(copied, tiny):
    shutil.copy(copied / UNET, copied / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert erddci.load(copied, device="cpu").identity == tiny.identity


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_shards_are_one_network(copied, tiny, tiny_folder, variant):
    (copied / UNET).unlink()
    tiny.unet.save_pretrained(copied / "unet", max_shard_size="100KB", variant=variant)
    edit(copied / "unet/config.json", **json.loads((tiny_folder / "unet/config.json").read_text()))
    shards = sorted((copied / "unet").glob("*-of-*"))
    assert len(shards) > 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ModelChanged)
        assert erddci.load(copied, device="cpu").identity == tiny.identity
    gone = [shards[0], shards[-1]]
    for shard in gone:
        shard.unlink()
    message = refused(copied, "without", FileNotFoundError)
    assert all(f"unet/{shard.name}" in message for shard in gone)


def test_an_adapter_beside_a_model_is_said_not_to_be_loaded(copied):
    save_file({"a": torch.zeros(1)}, copied / "pytorch_lora_weights.safetensors")
    changed(copied, "pytorch_lora_weights.safetensors in its folder was not loaded: fuse it")


@pytest.mark.parametrize(
    "setting", ["use_karras_sigmas", "use_beta_sigmas", "clip_sample", "thresholding"]
)
def test_settings_of_a_scheduler_without_an_effect_are_said(copied, setting):
    edit(copied / "scheduler/scheduler_config.json", **{setting: True})
    changed(copied, f"{setting} of its scheduler has no effect")


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("kind", ["v_prediction", "sample"])
def test_zero_terminal_snr_works_with_every_spacing_and_says_how(copied, latents, spacing, kind):
    edit(
        copied / "scheduler/scheduler_config.json",
        rescale_betas_zero_snr=True,
        prediction_type=kind,
        timestep_spacing=spacing,
    )
    words = "stops before it: set 'trailing'" if spacing == "leading" else "is taken as 2⁻²⁴"
    model = changed(copied, words)
    condition = model.condition(PROMPT)
    path = erddci.invert(model, latents, condition, "dual-chain", 7)
    assert path.xs.isfinite().all()
    assert path.latent_error(erddci.reconstruct(model, path)).max() < 1e-9
    assert int(path.grid.t[-1]) == (999 if spacing != "leading" else 853)


def test_zero_terminal_snr_samples_as_in_diffusers(copied):
    edit(
        copied / "scheduler/scheduler_config.json",
        rescale_betas_zero_snr=True,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
    )
    with pytest.warns(ModelChanged):
        model = erddci.load(copied, device="cpu", dtype=torch.float64)
    scheduler = DDIMScheduler.from_pretrained(copied, subfolder="scheduler")
    scheduler.set_timesteps(5)
    condition = model.condition(PROMPT)
    mine = model.sample(condition, 5, torch.Generator().manual_seed(0))
    theirs = torch.randn(
        1, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    for t in scheduler.timesteps:
        output = model.unet(theirs, t, condition.text).sample
        theirs = scheduler.step(output, t, theirs).prev_sample
    # √2⁻²⁴ = 2.4e-4 of the start is taken for image that diffusers' ᾱ = 0 takes for noise.
    torch.testing.assert_close(mine, theirs, rtol=0, atol=2e-3)


# Files.

PARTS = [*CONFIGS, *WEIGHTS, "tokenizer/tokenizer.json"]


@pytest.mark.parametrize("file", PARTS)
def test_a_missing_file_is_named(copied, file):
    (copied / file).unlink()
    assert file in refused(copied, "holds no whole model", FileNotFoundError)


@pytest.mark.parametrize("file", PARTS)
def test_a_link_to_nothing_is_a_missing_file(copied, file):
    (copied / file).unlink()
    (copied / file).symlink_to(copied / "gone")
    assert file in refused(copied, "holds no whole model", FileNotFoundError)


@pytest.mark.parametrize("file", PARTS)
def test_a_folder_in_place_of_a_file_is_a_missing_file(copied, file):
    (copied / file).unlink()
    (copied / file).mkdir()
    assert file in refused(copied, "holds no whole model", FileNotFoundError)


@pytest.mark.parametrize("part", ["vae", "unet", "text_encoder", "tokenizer", "scheduler"])
def test_all_missing_files_are_named_one_by_one(copied, part):
    gone = [f"{part}/{path.name}" for path in (copied / part).iterdir()]
    shutil.rmtree(copied / part)
    message = refused(copied, "holds no whole model", FileNotFoundError)
    assert all(name in message for name in gone)


def test_an_empty_folder_is_refused(tmp_path):
    refused(tmp_path, "without model_index.json", FileNotFoundError)


def test_half_of_the_older_form_of_a_tokenizer_is_named(copied):
    (copied / "tokenizer/tokenizer.json").rename(copied / "tokenizer/vocab.json")
    assert "without tokenizer/merges.txt;" in refused(copied, "without", FileNotFoundError)


@pytest.mark.parametrize(
    "content",
    ["", "{}", "[", '{"version": "1.0"}', '{"model": {"type": "BPE", "vocab": {}, "merges": []}}'],
)
def test_a_damaged_tokenizer_is_refused(copied, content):
    (copied / "tokenizer/tokenizer.json").write_text(content)
    refused(copied, "tokenizer: expected")


def test_a_tokenizer_of_another_text_encoder_is_refused(copied):
    path = copied / "tokenizer/tokenizer.json"
    rules = json.loads(path.read_text())
    rules["model"]["vocab"]["zebra</w>"] = 5000
    path.write_text(json.dumps(rules))
    refused(copied, "expected tokens of the text encoder, which knows 142, got")


def test_a_tokenizer_without_a_length_has_the_text_encoders(copied):
    path = copied / "tokenizer/tokenizer_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in config.items() if k != "model_max_length"}))
    assert erddci.load(copied, device="cpu").condition(PROMPT).text.shape == (1, 24, 16)


# Weights.


def cut(share):
    return lambda data: data[: int(len(data) * share)]


DAMAGES = {
    "empty": (lambda data: b"", "a damaged file of 0 bytes"),
    "cut in the header": (cut(0.01), "a damaged file of"),
    "cut in half": (cut(0.5), "a damaged file of"),
    "a byte short": (lambda data: data[:-1], "a damaged file of"),
    "a byte more": (lambda data: data + b"\0", "a damaged file of"),
    "zeros": (lambda data: bytes(len(data)), "a damaged file of"),
    "endless header": (lambda data: struct.pack("<Q", 2**60) + data[8:], "a damaged file of"),
    "no JSON": (lambda data: data[:8] + b"\xff" * (len(data) - 8), "a damaged file of"),
    "a web page": (lambda data: b"<!doctype html>" + data[15:], "a damaged file of"),
    "LFS": (lambda data: b"version https://git-lfs.github.com/spec/v1\n", "run `git lfs pull`"),
}


@pytest.mark.parametrize("file", WEIGHTS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_weights_are_refused(copied, file, damage):
    change, words = DAMAGES[damage]
    (copied / file).write_bytes(change((copied / file).read_bytes()))
    assert file in refused(copied, f"expected safetensors, got .*{words}")


def rewrite(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def drop(tensors):
    del tensors[max(tensors)]


def reshape(tensors):
    tensors[max(tensors)] = torch.zeros(7, 3)


def poison(value):
    def change(tensors):
        tensors[max(tensors)].flatten()[-1:] = value

    return change


def add(name, tensor):
    return lambda tensors: tensors.update({name: tensor})


CHANGES = {
    "one is missing": (drop, "all weights, got none as"),
    "one has another shape": (reshape, r"expected shape|of the shapes that"),
    "NaN": (poison(torch.nan), "finite weights, got NaN or infinity in .*, read as torch.float32"),
    "infinity": (poison(-torch.inf), "finite weights, got NaN or infinity in"),
    "one too many": (add("extra.weight", torch.zeros(2)), "nothing of, got extra.weight"),
    "whole numbers": (add("extra.weight", torch.zeros(2, dtype=torch.int8)), "extra.weight in I8"),
    "8 bits": (add("a", torch.zeros(2, dtype=torch.float8_e4m3fn)), "a in F8_E4M3; load what is"),
    "LoRA": (
        add("mid.to_q.lora_A.default.weight", torch.zeros(2)),
        "an adapter's .*fuse the LoRA",
    ),
    "IP-Adapter": (add("a.to_k_ip.0.weight", torch.zeros(2)), "an adapter's .*unload the IP-Ada"),
}


@pytest.mark.parametrize("file", WEIGHTS)
@pytest.mark.parametrize("change", CHANGES)
def test_weights_that_do_not_fit_are_refused(copied, file, change):
    alter, words = CHANGES[change]
    rewrite(copied / file, alter)
    assert f"{copied / file.split('/')[0]}" in refused(copied, words)


def test_all_but_one_of_the_weights_missing_is_one_sentence(copied):
    save_file({"conv_in.bias": torch.zeros(8)}, copied / UNET, metadata={"format": "pt"})
    refused(copied, "got none as conv_in.weight and 206 more; fetch")


def test_weights_too_large_for_half_precision_are_refused_there_alone(copied):
    rewrite(copied / UNET, poison(1e6))
    erddci.load(copied, device="cpu")
    with pytest.raises(
        ValueError, match="in .*, read as torch.float16; .*load it in torch.float32"
    ):
        erddci.load(copied, device="cpu", dtype=torch.float16)


@pytest.mark.parametrize("file", WEIGHTS)
@pytest.mark.parametrize("suffix", [".bin", ".ckpt", ".pt"])
def test_pickled_weights_are_refused_and_not_read(copied, file, suffix):
    evil = Path(copied / "run")

    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(evil),))

    (copied / file).unlink()
    torch.save(Evil(), (copied / file).with_suffix(suffix))
    refused(copied, "expected safetensors, got pickled weights, which may run code when read")
    assert not evil.exists()


def test_pickled_weights_beside_safetensors_are_left(copied, tiny):
    (copied / UNET).with_suffix(".bin").write_bytes(b"no pickle")
    assert erddci.load(copied, device="cpu").identity == tiny.identity


@pytest.mark.parametrize("index", ["{}", '{"weight_map": {"a": "../../etc/passwd"}}', "["])
def test_a_damaged_index_of_shards_is_refused(copied, index):
    (copied / UNET).unlink()
    (copied / "unet/diffusion_pytorch_model.safetensors.index.json").write_text(index)
    refused(copied, "index.json: expected")


def test_older_names_of_weights_still_load(copied, tiny):
    # transformers 4 wrote "text_model." and position ids; diffusers 0.17 other names in VAEs.
    def older(tensors):
        for name in list(tensors):
            tensors[f"text_model.{name}"] = tensors.pop(name)
        tensors["text_model.embeddings.position_ids"] = torch.arange(24)[None]

    def oldest(tensors):
        new = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
        for name in [each for each in tensors if "attentions" in each]:
            for now, then in new.items():
                if f".{now}." in name:
                    tensors[name.replace(now, then)] = tensors.pop(name)

    rewrite(copied / TEXT, older)
    rewrite(copied / VAE, oldest)
    assert erddci.load(copied, device="cpu").identity == tiny.identity


# Whatever is damaged, the error is of a documented kind.


def documented(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            erddci.load(folder, device="cpu")
        except DOCUMENTED as error:
            assert str(error) and "\n" not in str(error)
            return True
    return False


@pytest.mark.parametrize("seed", range(40))
def test_any_flipped_bytes_load_or_are_refused(copied, seed):
    rng = np.random.default_rng(seed)
    file = copied / PARTS[seed % len(PARTS)]
    data = bytearray(file.read_bytes())
    for place in rng.integers(0, min(len(data), 20_000), 1 + seed % 4):
        data[place] = rng.integers(256)
    file.write_bytes(data)
    documented(copied)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "scheduler", "tokenizer"])
def test_any_odd_value_in_a_config_loads_or_is_refused(copied, part):
    path, odd = copied / FILES[part], [None, "odd", -1, 0, [], {}, True, 2.5, [3, 5]]
    whole = path.read_text()
    refusals = 0
    for place, key in enumerate(json.loads(whole)):
        edit(path, **{key: odd[place % len(odd)]})
        refusals += documented(copied)
        path.write_text(whole)
    assert refusals >= (1 if part == "tokenizer" else 4)


# Where it lies.


@pytest.mark.parametrize("name", ["nope", "./no/folder", "~nobody/model", "a\0b", "x" * 5000, ""])
def test_an_unknown_name_says_what_there_is(name):
    words = "no model .*expected 'scenes' for the embedded one, a folder, or a hub id"
    with pytest.raises(FileNotFoundError, match=words):
        erddci.load(name, device="cpu")


@pytest.mark.parametrize("name", [None, 3, b"scenes"])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(ValueError, match="expected the name of a model or a folder, got"):
        erddci.load(name, device="cpu")


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_a_single_file_says_how_to_make_a_folder_of_it(tmp_path, suffix):
    file = tmp_path / f"v1-5-pruned{suffix}"
    file.write_bytes(b"")
    with pytest.raises(ValueError, match="is a single file: expected a folder.*from_single_file"):
        erddci.load(file, device="cpu")


def test_a_lora_alone_is_no_model(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "pytorch_lora_weights.safetensors")
    refused(tmp_path, "an adapter alone .*load it into its model, fuse it, and save")


def test_the_spelling_of_a_path_plays_no_part(copied, tiny, monkeypatch):
    monkeypatch.setenv("HOME", str(copied.parent))
    monkeypatch.chdir(copied.parent)
    for name in ("~/copied", "copied", "./copied/", "../" + copied.parent.name + "/copied"):
        assert erddci.load(name, device="cpu").identity == tiny.identity


@pytest.mark.parametrize("name", hub.MOVED)
def test_a_withdrawn_hub_id_names_its_replacement(name):
    with pytest.raises(ValueError, match=f"withdrawn from the hub: load '{hub.MOVED[name]}'"):
        erddci.load(name, device="cpu")


def test_a_hub_id_out_of_reach_says_so():
    with pytest.raises(ConnectionError, match="no model 'nobody/nothing'.*needs a network"):
        erddci.load("nobody/nothing", device="cpu")


def test_a_hub_id_loads_from_its_copy_without_a_network(copied, tiny, tmp_path, monkeypatch):
    home = tmp_path / "hub" / "models--some--model"
    shutil.copytree(copied, home / "snapshots" / ("0" * 40))
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert erddci.load("some/model", device="cpu").identity == tiny.identity
    (home / "snapshots" / ("0" * 40) / UNET).unlink()
    refused("some/model", f"without {UNET}", FileNotFoundError)


def test_of_the_hub_configs_come_first_and_then_one_form_of_the_weights(copied, monkeypatch):
    asked = []
    plain = [f"{p}/{n}" for p, n in (f.split("/") for f in WEIGHTS)]
    variants = [name.replace(".safetensors", ".fp16.safetensors") for name in plain]
    pickled = [name.replace(".safetensors", ".bin") for name in plain]
    extra = ["safety_checker/model.safetensors", "v1-5-pruned.safetensors"]

    def download(name, allow_patterns):
        asked.append(allow_patterns)
        return copied

    monkeypatch.setattr(hub, "snapshot_download", download)
    monkeypatch.setattr(
        hub.HfApi, "list_repo_files", lambda self, name: [*variants, *plain, *pickled, *extra]
    )
    erddci.load("some/model", device="cpu")
    assert asked[0] == hub.CONFIGS and sorted(asked[1]) == sorted([*hub.CONFIGS, *plain])
    edit(copied / "unet/config.json", in_channels=9)
    refused("some/model", "as for inpainting")
    assert len(asked) == 3  # nothing of its weights was fetched
    assert sorted(weight_files(variants)) == sorted(variants)


# On what it runs.


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "cuda", "mps", "meta", "", None, 99])
def test_a_device_that_is_not_there_is_refused(tiny_folder, name):
    if name in devices._devices():
        pytest.skip("this machine has one")
    words = r"expected a device of this machine \(.*cpu\), got .*: name one of these, or 'auto'"
    with pytest.raises(ValueError, match=words):
        erddci.load(tiny_folder, device=name)


@pytest.mark.parametrize("dtype", [torch.int8, torch.complex64, torch.float8_e4m3fn, "float16"])
def test_a_dtype_for_no_network_is_refused(tiny_folder, dtype):
    with pytest.raises(ValueError, match="expected a dtype of torch.float16, .*, got"):
        erddci.load(tiny_folder, device="cpu", dtype=dtype)


def test_a_dtype_that_the_device_cannot_do_is_refused(tiny_folder, monkeypatch):
    def convolve(x, weight):
        raise RuntimeError("not implemented for 'Half'")

    monkeypatch.setattr(torch.nn.functional, "conv2d", convolve)
    with pytest.raises(
        ValueError, match="expected a dtype that cpu computes in, got torch.float16"
    ):
        erddci.load(tiny_folder, device="cpu", dtype=torch.float16)


def test_a_full_device_is_refused(tiny_folder, monkeypatch):
    def full(self, device):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(diffusers.UNet2DConditionModel, "to", full)
    with pytest.raises(ValueError, match="got cpu, which is full: load it in half precision"):
        erddci.load(tiny_folder, device="cpu")


def test_an_ip_adapter_that_was_loaded_later_is_refused(tiny_folder, latents):
    model = erddci.load(tiny_folder, device="cpu")
    model.unet.encoder_hid_proj = torch.nn.Identity()
    with pytest.raises(ValueError, match="got one with an IP-Adapter: call unload_ip_adapter"):
        erddci.invert(model, latents, model.condition(PROMPT), steps=2)


# The report, and what the libraries say.


@pytest.mark.parametrize(
    ("file", "changes", "words"),
    [
        ("unet", {"in_channels": 9}, "as for inpainting"),
        ("scheduler", {"_class_name": "EDMEulerScheduler"}, "EDM's noise levels"),
    ],
)
def test_the_doctor_reports_these_very_sentences(copied, file, changes, words):
    edit(copied / FILES[file], **changes)
    message = refused(copied, words)
    assert message in "".join(doctor.report(str(copied), "cpu"))


def test_the_doctor_ends_in_no_traceback(copied, monkeypatch):
    assert "got 'gpu'" in "".join(doctor.report(str(copied), "gpu"))
    assert "no model 'nobody/nothing'" in "".join(doctor.report("nobody/nothing", "cpu"))
    (copied / UNET).unlink()
    assert UNET in "".join(doctor.report(str(copied), "cpu"))


def test_what_was_set_of_the_libraries_is_back_afterwards(copied):
    loggers = (diffusers_logging, transformers_logging)
    before = [each.get_verbosity() for each in loggers]
    hook = lambda bar, args, options: bar(*args, **options)  # noqa: E731
    old = transformers_logging.set_tqdm_hook(hook)
    try:
        for each in loggers:
            each.set_verbosity(logging.DEBUG)
        erddci.load(copied, device="cpu")
        rewrite(copied / UNET, drop)
        refused(copied, "all weights")
        assert [each.get_verbosity() for each in loggers] == [logging.DEBUG] * 2
        assert transformers_logging.set_tqdm_hook(hook) is hook
    finally:
        transformers_logging.set_tqdm_hook(old)
        for each, level in zip(loggers, before, strict=True):
            each.set_verbosity(level)


def test_there_are_a_hundred_damaged_checkpoints():
    weights = len(WEIGHTS) * (len(DAMAGES) + len(CHANGES) + 3)
    assert len(EDITS) >= 100 and weights + 8 * len(CONFIGS) + 3 * len(PARTS) >= 100
