"""What the embedded weights promise: exact inversion, faithful images, obedience to prompts."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

import erddci
from erddci.checkpoint.hub import EMBEDDED
from erddci.guidance import Condition
from erddci.images import ImageChanged
from erddci.metrics import lpips as lpips_module
from erddci.metrics import psnr, ssim
from erddci.metrics.lpips import lpips
from erddci.scenes.classifier import attributes, load_classifier
from erddci.scenes.examples import held_out
from erddci.scenes.render import render
from erddci.scenes.scene import HELD_OUT_SEEDS, caption, sample_scene


@pytest.fixture(scope="module")
def scenes64():
    return erddci.load("scenes", device="cpu", dtype=torch.float64)


@pytest.fixture(scope="module")
def classifier():
    return load_classifier()


@pytest.fixture(scope="module")
def drawn():
    return [sample_scene(seed) for seed in HELD_OUT_SEEDS[5000:5100]]


@pytest.fixture
def batch():
    """Images of two held-out scenes and their prompts."""
    return held_out(2)


def conditions(model, prompts, guidance_scale=1.0):
    """One condition for a batch of prompts."""
    each = [model.condition(prompt) for prompt in prompts]
    text, null = (torch.cat([getattr(c, end) for c in each]) for end in ("text", "null"))
    return Condition(text, null, guidance_scale)


def nets():
    """The nets of LPIPS at hand: VGG16 has to be fetched once."""
    fetched = lpips_module.weights_path("vgg", lpips_module.user_cache()).is_file()
    return ["alex", "vgg"] if fetched else ["alex"]


def check_exactness(model, images, prompts, limit):
    """Dual-chain inversion is exact, also if all noise is asked for again; DDIM is not."""
    x, condition = model.encode(images), conditions(model, prompts)
    path = erddci.invert(model, x, condition, "dual-chain", 50)
    # What a path kept under another scale is of no use at w = 1.
    again = erddci.reconstruct(
        model, replace(path, condition=condition.with_guidance(2), guided=True), condition
    )
    assert again.nfe == 50
    plain = erddci.invert(model, x, condition, "ddim", 50)
    ddim = plain.latent_error(erddci.reconstruct(model, plain))[0]
    round_trip = model.decode(x)
    for back in (erddci.reconstruct(model, path), again):
        drift = path.latent_error(back)
        assert drift.max() <= limit
        assert (ddim >= 100 * drift[0]).all()
        for reference, image in zip(round_trip, model.decode(back.x0), strict=True):
            assert ssim(reference, image) >= 0.9999
            assert all(lpips(reference, image, net) <= 1e-4 for net in nets())


def test_scenes_come_back(scenes, batch):
    check_exactness(scenes, *map(list, zip(*batch, strict=True)), limit=1e-4)


def test_scenes_come_back_in_double_precision(scenes64, batch):
    check_exactness(scenes64, *map(list, zip(*batch, strict=True)), limit=1e-10)


@pytest.mark.parametrize("w", [1, 7.5])
@pytest.mark.parametrize(
    "method", [name for name, m in erddci.METHODS.items() if m.reversible != "approximate"]
)
def test_exact_methods_are_exact_on_scenes(scenes64, batch, method, w):
    image, prompt = batch[0]
    condition = scenes64.condition(prompt, guidance_scale=w)
    guided = True if erddci.METHODS[method].both_common else None
    path = erddci.invert(scenes64, scenes64.encode(image), condition, method, 20, guided=guided)
    drift = path.latent_error(erddci.reconstruct(scenes64, path)).max()
    assert drift < 1e-10 * max(1, path.xs.abs().max())


def test_photographs_come_back(scenes):
    with pytest.warns(ImageChanged, match="resized"):
        check_exactness(scenes, [erddci.photographs()["astronaut"]], [""], limit=1e-4)


def test_auto_encoder_keeps_held_out_images(scenes):
    images = [image for image, _ in held_out(20)]
    decoded = scenes.decode(scenes.encode(images))
    values = [psnr(scenes.to_array(p), image) for p, image in zip(images, decoded, strict=True)]
    assert np.mean(values) >= 32


def agreement(classifier, images, truths):
    """The share of true answers that the reader gives."""
    pairs = zip(classifier.classify(images), truths, strict=True)
    return np.mean([read.get(q) == answer for read, truth in pairs for q, answer in truth.items()])


def test_reader_reads_held_out_images(classifier, drawn):
    images = np.stack([render(scene).image for scene in drawn])
    assert agreement(classifier, images, map(attributes, drawn)) >= 0.99


def test_reader_reads_what_the_auto_encoder_keeps(scenes, classifier, drawn):
    images = [render(scene).image for scene in drawn[:20]]
    decoded = scenes.decode(scenes.encode(images))
    assert agreement(classifier, decoded, map(attributes, drawn[:20])) >= 0.95


def test_samples_follow_their_prompts(scenes, classifier, drawn):
    wanted = drawn[:24]
    condition = conditions(scenes, [caption(scene) for scene in wanted], guidance_scale=7.5)
    samples = scenes.sample(condition, 25, torch.Generator().manual_seed(0), count=24)
    assert agreement(classifier, scenes.decode(samples), map(attributes, wanted)) >= 0.9


def test_the_card_tells_what_was_measured(scenes):
    measures = json.loads((EMBEDDED / "measures.json").read_text())
    card = (EMBEDDED / "README.md").read_text()
    assert measures["scenes"] == 500 and "on 500 held-out scenes" in card
    assert measures["vae psnr"] >= 32 and measures["reader on renders"] >= 0.99
    for w in ("3", "7.5"):
        share = measures[f"prompt following at w = {w}: all"]
        assert share >= 0.9 and f"| {share:.1%} |" in card


def test_weights_are_an_ordinary_checkpoint(scenes):
    pipeline = StableDiffusionPipeline.from_pretrained(
        EMBEDDED, local_files_only=True, torch_dtype=torch.float32
    )
    text, _ = pipeline.encode_prompt("a red cube on a teal floor", "cpu", 1, False)
    torch.testing.assert_close(text, scenes.condition("a red cube on a teal floor").text)
    assert pipeline.scheduler.config.steps_offset == 1
    assert not pipeline.scheduler.config.set_alpha_to_one


def test_weights_are_small_and_safe():
    files = [path for path in EMBEDDED.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".md", ".csv"}
    assert 0 < sum(path.stat().st_size for path in files) < 40e6
