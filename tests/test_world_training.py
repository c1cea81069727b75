"""Training the world of named things, and what measures it, at the smallest size."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from erddci.checkpoint.hub import EMBEDDED
from erddci.scenes.captions import tokenizer
from erddci.scenes.scene import (
    TRAIN_SEEDS,
    WORDS,
    WORLD_WORDS,
    Scene,
    SceneObject,
    sample_named_scene,
)
from erddci.scenes.things import NamedObject
from erddci.scenes.world_classifier import WorldClassifier, attributes, targets
from erddci.training.archives import Archive
from erddci.training.denoiser import (
    NOBODY,
    Captions,
    misplaced,
    new_denoiser,
    recording,
    tokens_of,
)
from erddci.training.evaluate import agreement, word_kinds
from erddci.training.loop import Recipe, train
from erddci.training.muon import Muon
from erddci.training.norm import quicken
from erddci.training.rendered import rendered
from erddci.training.vae import CHANNELS, Pictures, new_vae

CAT = NamedObject("large", "cat", x=-0.8, z=0.1)
CUBE = SceneObject("small", "red", "matte", "cube", x=0.8, z=-0.2, yaw=0.5)
PAIR = Scene((CAT, CUBE), "teal", light=0.4)


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(20, 20), nn.Linear(20, 1))


def loss(net, step):
    x = torch.randn(8, 20, generator=torch.Generator().manual_seed(step))
    return (net(x).float() - x.sum(1, keepdim=True)).square().mean()


# The loop.


def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(tmp_path):
    recipe = Recipe(6, 0.01, every=3)
    whole = train(network(), loss, tmp_path / "whole", recipe)

    def interrupted(net, step):
        if step == 4:
            raise KeyboardInterrupt
        return loss(net, step)

    with pytest.raises(KeyboardInterrupt):
        train(network(), interrupted, tmp_path / "parts", recipe)
    resumed = train(network(), loss, tmp_path / "parts", recipe)
    assert torch.equal(whole[0].weight, resumed[0].weight)
    for folder in ("whole", "parts"):
        assert pd.read_csv(tmp_path / folder / "loss.csv")["step"].tolist() == [3, 6]


def test_training_starts_from_weights_alone_and_goes_on_with_more_steps(tmp_path):
    first = train(network(), loss, tmp_path, Recipe(4, 0.01, every=4))
    more = train(network(), loss, tmp_path, Recipe(8, 0.01, every=4))
    assert not torch.equal(first[0].weight, more[0].weight)
    (tmp_path / "checkpoint.pt").unlink()
    again = train(network(), loss, tmp_path, Recipe(1, 0.0))
    assert torch.equal(again[0].weight, more[0].weight)


def test_muon_lowers_the_loss_and_takes_matrices_alone():
    net = network()
    optimizer = Muon(net.parameters(), 0.02)
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 3]
    before = loss(net, 99).item()
    for step in range(60):
        loss(net, step).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss(net, 99).item() < 0.1 * before


@pytest.mark.parametrize("mean", [0, 3])
def test_the_quick_gradient_of_group_normalisation_is_torchs(mean):
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(2, 16, 8, 8, generator=generator) + mean).bfloat16()
    x = x.contiguous(memory_format=torch.channels_last)
    wanted = torch.randn(x.shape, generator=generator).bfloat16()
    found = []
    for quick in (False, True):
        norm = nn.GroupNorm(4, 16)
        norm.weight.data = torch.rand(16, generator=torch.Generator().manual_seed(1)) + 0.5
        if quick:
            quicken(norm)
        own = x.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = norm(own)
        out.backward(wanted.to(out.dtype))
        found.append([out, own.grad, norm.weight.grad, norm.bias.grad])
    for slow, quick in zip(*found, strict=True):
        assert (slow.float() - quick.float()).norm() < 0.01 * slow.float().norm()


# Data.


def test_rendered_scenes_are_kept_and_grow(tmp_path):
    two, regions = (np.array(each) for each in rendered(tmp_path, 2))
    three, more = rendered(tmp_path, 3)
    np.testing.assert_array_equal(three[:2], two)
    np.testing.assert_array_equal(more[:2], regions)
    assert three[2].any() and more.shape == (3, 3, 16, 16)


def test_batches_mix_scenes_and_photographs(tmp_path):
    from PIL import Image

    Image.new("RGB", (200, 150), (250, 250, 250)).save(tmp_path / "white.png")
    scenes = np.zeros((3, 128, 128, 3), np.uint8)
    data = Pictures(scenes, tmp_path)
    batch = data.batch(40, 64, np.random.default_rng(0))
    assert batch.shape == (40, 64, 64, 3)
    bright = (batch.mean((1, 2, 3)) > 100).mean()
    assert 0.2 < bright < 0.6
    np.testing.assert_array_equal(batch, data.batch(40, 64, np.random.default_rng(0)))


def test_an_archive_says_how_to_get_it(tmp_path):
    archive = Archive("npm pack thing@1", "thing-1.tgz", "abc", "MIT")
    with pytest.raises(FileNotFoundError, match="run `npm pack thing@1` there"):
        archive.read(tmp_path)
    (tmp_path / "thing-1.tgz").write_bytes(b"other")
    with pytest.raises(ValueError, match="expected thing-1.tgz with SHA-512 abc, got"):
        archive.read(tmp_path)


# The denoiser.


def test_a_new_denoiser_knows_what_the_shipped_one_does():
    denoiser = new_denoiser(EMBEDDED)
    assert denoiser.unet.config["in_channels"] == denoiser.unet.config["out_channels"] == CHANNELS
    embedding = denoiser.text.get_input_embeddings().weight
    new, old = tokenizer(WORLD_WORDS).get_vocab(), tokenizer(WORDS).get_vocab()
    from transformers import CLIPTextModel

    shipped = CLIPTextModel.from_pretrained(EMBEDDED / "text_encoder", dtype=torch.float32)
    known = shipped.get_input_embeddings().weight
    assert torch.equal(embedding[new["cube</w>"]], known[old["cube</w>"]])
    assert torch.equal(embedding[new["cat</w>"]], embedding[new["dog</w>"]])


def test_recording_changes_nothing_and_maps_are_probabilities():
    denoiser = new_denoiser().eval()
    x = torch.randn(2, CHANNELS, 16, 16, generator=torch.Generator().manual_seed(0))
    tokens = tokens_of(["a large cat on a teal floor", ""], tokenizer(WORLD_WORDS))
    before = denoiser.unet.attn_processors
    with torch.no_grad():
        plain = denoiser(x, torch.tensor([10, 500]), tokens)
        with recording(denoiser.unet) as kept:
            watched = denoiser(x, torch.tensor([10, 500]), tokens)
    torch.testing.assert_close(plain, watched, atol=1e-5, rtol=1e-4)
    assert denoiser.unet.attn_processors == before
    assert {probs.shape[1] for probs in kept} == {64, 256}
    for probs in kept:
        torch.testing.assert_close(probs.sum(2), torch.ones(probs.shape[:2]))


def test_words_that_look_at_their_region_are_not_misplaced():
    regions = torch.zeros(1, 3, 16, 16)
    regions[0, 0, :8], regions[0, 1, 8:] = 1, 1
    subject = torch.tensor([[NOBODY, 0, 1]])
    probs = torch.full((1, 256, 3), 1e-6)
    probs[0, :128, 1], probs[0, 128:, 2] = 1, 1
    assert misplaced([probs], regions, subject) < 0.01
    assert misplaced([probs.flip(1)], regions, subject) > 5
    assert misplaced([torch.full((1, 64, 3), 0.1)], regions, subject) == pytest.approx(
        np.log(2), abs=1e-3
    )


def test_tokens_and_regions_of_captions_agree():
    words = tokenizer(WORLD_WORDS)
    scenes = [sample_named_scene(seed) for seed in TRAIN_SEEDS[:20]]
    captions = Captions.of(scenes, words)
    assert captions.tokens.shape == captions.subject.shape == (4, 20, words.model_max_length)
    for tokens, subject, scene in zip(
        captions.tokens[0], captions.subject[0], scenes, strict=True
    ):
        floor = tokens[subject == len(scene.objects)]
        assert words.decode(floor).split() == [scene.floor, "floor"]


# The classifier, and measures.


def test_a_classifier_answers_what_applies():
    truth = attributes(PAIR)
    assert truth == {
        "count": "2",
        "floor": "teal",
        "left noun": "cat",
        "left size": "large",
        "right noun": "cube",
        "right size": "small",
        "right colour": "red",
        "right material": "matte",
    }
    classifier = WorldClassifier().eval()
    said = classifier.read(np.zeros((2, 128, 128, 3), np.uint8))
    assert all({"count", "floor", "left noun", "left size"} <= set(each) for each in said)
    wanted = targets([PAIR])
    assert wanted["left colour"].item() == -100 and wanted["right colour"].item() == 0
    with pytest.raises(ValueError, match="expected images"):
        classifier.read(np.zeros((2, 64, 64, 3), np.uint8))


def test_agreement_counts_by_question():
    truth = attributes(PAIR)
    wrong = truth | {"left noun": "dog"}
    shares = agreement([truth, truth], [truth, wrong])
    assert shares["noun"] == 0.75 and shares["colour"] == 1
    assert shares["all"] == pytest.approx(15 / 16)


def test_every_word_says_something_of_a_kind():
    kinds = word_kinds(PAIR)
    assert [kind for kind in kinds if kind] == [
        "size",
        "name",
        "size",
        "colour",
        "material",
        "shape",
        "floor",
        "floor",
    ]


def test_a_vae_has_latents_of_16_cells():
    vae = new_vae()
    latents = vae.encode(torch.zeros(1, 3, 128, 128)).latent_dist.mean
    assert latents.shape == (1, CHANNELS, 16, 16)
