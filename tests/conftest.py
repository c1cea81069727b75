"""Models that the tests share."""

import os

# Read when the libraries are imported, so set before that.
os.environ["TQDM_DISABLE"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
# One thread a process: `make test` runs a process on every core, and numbers depend on neither.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

import erddci
from erddci.grid import stable_diffusion_scheduler
from erddci.scenes.captions import LENGTH, tokenizer
from erddci.toy import Mixture


@pytest.fixture
def toy():
    """A mixture of three Gaussians in the plane."""
    means = {"left": (-1.0, -0.2), "right": (0.9, 0.1), "top": (0.1, 1.2)}
    return Mixture(means, std=0.3)


@pytest.fixture
def points(toy):
    """Two points of the toy's data."""
    return toy.sample(2, "", torch.Generator().manual_seed(0))


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """An untrained Stable Diffusion of 16 px images, saved as any checkpoint is."""
    words = tokenizer()
    text = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=32,
        projection_dim=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    small = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            sample_size=16,
            **small,
        )
        unet = UNet2DConditionModel(
            sample_size=8,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=16,
            attention_head_dim=4,
            **small,
        )
        encoder = CLIPTextModel(text)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=encoder,
        tokenizer=words,
        unet=unet,
        scheduler=stable_diffusion_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tiny_folder):
    return erddci.load(tiny_folder, device="cpu")


@pytest.fixture(scope="session")
def tiny64(tiny_folder):
    return erddci.load(tiny_folder, device="cpu", dtype=torch.float64)


@pytest.fixture
def latents():
    """Two latents of the tiny model."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 4, 8, 8, generator=generator, dtype=torch.float64)


@pytest.fixture(scope="session")
def scenes():
    """The embedded model."""
    return erddci.load("scenes", device="cpu")
