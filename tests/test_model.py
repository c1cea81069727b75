"""Stable Diffusion as a denoiser: against diffusers' own pipeline, and what cannot be loaded."""

import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

import erddci
from erddci.images import ImageChanged

PROMPT, OTHER = "a small red matte cube on a teal floor", "a large blue sphere"


@pytest.fixture(scope="module")
def pipeline(tiny_folder):
    return StableDiffusionPipeline.from_pretrained(tiny_folder)


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)) for _ in range(2)]


@pytest.fixture
def copied(tiny_folder, tmp_path):
    return shutil.copytree(tiny_folder, tmp_path / "copied")


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# Against diffusers.


@pytest.mark.parametrize("negative", ["", OTHER])
@pytest.mark.parametrize("w", [1, 5])
def test_sampling_equals_the_pipeline_of_diffusers(tiny, pipeline, w, negative):
    condition = tiny.condition(PROMPT, negative, guidance_scale=w)
    mine = tiny.sample(condition, 5, torch.Generator().manual_seed(0), count=2)
    start = torch.randn(
        2, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    theirs = pipeline(
        [PROMPT] * 2,
        negative_prompt=[negative] * 2,
        guidance_scale=w,
        latents=start.float(),
        num_inference_steps=5,
        output_type="latent",
    ).images
    assert mine.shape == theirs.shape and mine.dtype == torch.float64
    torch.testing.assert_close(mine.float(), theirs, rtol=1e-4, atol=1e-4)
    decoded = pipeline.image_processor.postprocess(
        pipeline.vae.decode(theirs / pipeline.vae.config.scaling_factor).sample.detach(), "np"
    )
    np.testing.assert_allclose(tiny.decode(mine), decoded, atol=1e-3)


def test_encoded_prompts_equal_those_of_diffusers(tiny, pipeline):
    text, null = pipeline.encode_prompt(PROMPT, "cpu", 1, True, negative_prompt=OTHER)
    condition = tiny.condition(PROMPT, OTHER)
    torch.testing.assert_close(condition.text, text)
    torch.testing.assert_close(condition.null, null)
    assert condition.guidance_scale == 1 and condition.prompt == PROMPT


def test_encoded_images_equal_those_of_diffusers(tiny, pipeline, images):
    pixels = VaeImageProcessor(vae_scale_factor=2).preprocess(images)
    expected = pipeline.vae.encode(pixels).latent_dist.mean * pipeline.vae.config.scaling_factor
    latents = tiny.encode(images)
    assert latents.shape == (2, 4, 8, 8) and latents.dtype == torch.float64
    torch.testing.assert_close(latents.float(), expected.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(tiny.encode(images[1]), latents[1:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_every_prediction_type_steps_as_in_diffusers(copied, latents, kind):
    edit(copied / "scheduler" / "scheduler_config.json", prediction_type=kind)
    model = erddci.load(copied, device="cpu", dtype=torch.float64)
    scheduler = DDIMScheduler.from_pretrained(copied, subfolder="scheduler")
    scheduler.set_timesteps(10)
    condition, grid = model.condition(PROMPT), model.grid(10)
    for i in (10, 5, 1):
        output = model.unet(latents, grid.t[i], condition.text.expand(2, -1, -1)).sample
        theirs = scheduler.step(output, int(grid.t[i]), latents).prev_sample
        mine = grid.step(latents, model(latents, grid.t[i], condition), i, i - 1)
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


def test_grid_is_read_from_the_scheduler_of_the_checkpoint(copied):
    edit(copied / "scheduler" / "scheduler_config.json", timestep_spacing="trailing")
    grid = erddci.load(copied, device="cpu").grid(4)
    assert grid.t.tolist() == [0, 249, 499, 749, 999]


# What goes in and out.


def test_decoded_images_are_images(tiny, latents):
    images = tiny.decode(100 * latents)
    assert images.shape == (2, 16, 16, 3) and images.dtype == np.float32
    assert images.min() == 0 and images.max() == 1
    many = tiny.decode(latents[:1].repeat(9, 1, 1, 1))
    np.testing.assert_allclose(many, tiny.decode(latents[:1]).repeat(9, 0), atol=1e-5)


def test_images_are_read_as_the_model_sees_them(tiny, images):
    assert tiny.resolution == 16
    read = tiny.to_array(images[0])
    assert read.shape == (16, 16, 3) and read.dtype == np.float32
    assert np.array_equal(np.round(read * 255), np.asarray(images[0]))
    with pytest.warns(ImageChanged, match="resized from 40 × 40 to 16 × 16"):
        assert tiny.to_array(images[0].resize((40, 40))).shape == (16, 16, 3)
    with pytest.warns(ImageChanged, match="grey"):
        assert tiny.encode(images[0].convert("L")).shape == (1, 4, 8, 8)


def test_noise_has_the_dtype_of_the_latents_and_rows_are_counted(tiny, latents):
    before, t = tiny.nfe, torch.tensor(500)
    assert tiny(latents, t, tiny.condition(PROMPT)).dtype == torch.float64
    assert tiny(latents.float(), t, tiny.condition(PROMPT)).dtype == torch.float32
    tiny(latents, t, tiny.condition(PROMPT, guidance_scale=2))
    assert tiny.nfe - before == 2 + 2 + 4


def test_half_precision_networks_walk_in_double_precision(tiny_folder, latents):
    model = erddci.load(tiny_folder, device="cpu", dtype=torch.bfloat16)
    assert model.dtype == model.vae.dtype == model.text_encoder.dtype == torch.bfloat16
    path = erddci.invert(model, latents, model.condition(PROMPT), steps=4)
    assert path.xs.dtype == torch.float64
    assert path.latent_error(erddci.reconstruct(model, path)).max() < 1e-10
    assert model.decode(path.x0).dtype == np.float32


def test_samples_repeat_with_the_generator(tiny):
    condition = tiny.condition(PROMPT)
    one, same, other = (
        tiny.sample(condition, 2, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert not one.requires_grad


# Names.


def test_the_name_tells_weights_apart(tiny, copied, tiny_folder):
    again = erddci.load(copied, device="cpu")
    assert again.name.split("@")[1] == tiny.name.split("@")[1]
    assert tiny.name.startswith(f"{tiny_folder}@")
    with torch.no_grad():
        again.unet.conv_out.weight[0, 0, 0, 0] += 1e-3
    again.unet.save_pretrained(copied / "unet")
    assert erddci.load(copied, device="cpu").name.split("@")[1] != tiny.name.split("@")[1]


def test_precision_of_the_same_weights_keeps_the_name(tiny, tiny64):
    assert tiny.name == tiny64.name


# Prompts.


def test_a_prompt_too_long_says_what_would_be_cut_off(tiny):
    longest = "a " * 20 + "red cube"
    assert tiny.condition(longest).text.shape == (1, 24, 16)
    with pytest.raises(ValueError, match="has 24 tokens, expected at most 22.*“blue cone”"):
        tiny.condition(f"{longest} blue cone")


@pytest.mark.parametrize("prompt", ["a ferrari", "are", "redcube", "a red cube, on", "café"])
def test_words_that_were_never_trained_are_refused(tiny, prompt):
    with pytest.raises(ValueError, match=f"“{prompt}”: it was trained on a, on, floor, .*khaki"):
        tiny.condition(prompt)
    with pytest.raises(ValueError, match="it was trained on"):
        tiny.condition(PROMPT, negative_prompt=prompt)


def test_letter_case_and_spaces_do_not_matter(tiny):
    assert tiny.condition("A RED  cube").equivalent(tiny.condition("a red cube"))


def test_a_tokenizer_without_a_word_list_takes_any_word(copied):
    config = copied / "tokenizer" / "tokenizer_config.json"
    config.write_text(
        json.dumps({k: v for k, v in json.loads(config.read_text()).items() if k != "words"})
    )
    assert erddci.load(copied, device="cpu").condition("are").text.shape == (1, 24, 16)


# What it is, besides a label: tests/test_identity.py.


def test_a_path_of_other_weights_is_refused_wherever_they_lie(tiny, copied, latents):
    path = erddci.invert(tiny, latents, tiny.condition(PROMPT), steps=5)
    other = erddci.load(copied, device="cpu")
    # The same weights at another place are the same model.
    assert path.latent_error(erddci.reconstruct(other, path)).max() < 1e-10
    with torch.no_grad():
        other.unet.mid_block.resnets[0].conv1.weight.add_(1e-3)
    with pytest.raises(ValueError, match=r"expected a trajectory of .* \(another unet\)"):
        erddci.reconstruct(other, path)
