"""The training loop, the image cache and the judge, at the smallest size."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from erddci.scenes.render import render
from erddci.scenes.scene import TRAIN_SEEDS, sample_scene
from erddci.training import train as training
from erddci.training.dataset import scene_images
from erddci.training.export import _agreement
from erddci.training.train import as_batch, fit


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(4, 1)


def loss(net, generator):
    x = torch.randn(8, 4, generator=generator)
    return (net(x).float() - x.sum(1, keepdim=True)).square().mean()


def train(folder, loss=loss):
    return fit(network(), loss, folder, steps=6, learning_rate=0.1)


def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 3)
    whole = train(tmp_path / "whole")
    calls = 0

    def interrupted(net, generator):
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt
        return loss(net, generator)

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", interrupted)
    resumed = train(tmp_path / "parts")
    assert torch.equal(whole.weight, resumed.weight)
    for folder in ("whole", "parts"):
        curve = pd.read_csv(tmp_path / folder / "loss.csv")
        assert curve["step"].tolist() == [3, 6]


def test_training_lowers_the_loss(tmp_path):
    before = loss(network(), torch.Generator().manual_seed(99))
    trained = fit(network(), loss, tmp_path, steps=300, learning_rate=0.1, decay=0.9)
    assert loss(trained, torch.Generator().manual_seed(99)) < 0.1 * before


def test_images_are_those_of_the_training_seeds_and_grow_without_rendering_again(tmp_path):
    two = np.array(scene_images(tmp_path, 2, size=32))
    three = scene_images(tmp_path, 3, size=32)
    np.testing.assert_array_equal(three[:2], two)
    np.testing.assert_array_equal(three[2], render(sample_scene(TRAIN_SEEDS[2]), 32).image)
    modified = (tmp_path / "images-32.npy").stat().st_mtime_ns
    scene_images(tmp_path, 2, size=32)
    assert (tmp_path / "images-32.npy").stat().st_mtime_ns == modified


def test_batches_run_from_minus_one_to_one():
    batch = as_batch(np.array([0, 255, 51], dtype=np.uint8).reshape(1, 1, 1, 3))
    np.testing.assert_allclose(batch.flatten(), [-1, 1, -0.6], atol=1e-6)


def test_agreement_counts_only_what_the_prompt_says():
    truths = [{"count": "1", "floor": "teal", "left colour": "red"}]
    said = [{"count": "1", "floor": "navy", "left colour": "red", "left shape": "cube"}]
    shares = _agreement(truths, said)
    assert shares["all"] == pytest.approx(2 / 3)
    assert (shares["colour"], shares["floor"]) == (1, 0)


def test_agreement_tells_a_wrong_side_from_a_wrong_thing():
    truth = {"count": "2", "left colour": "red", "left shape": "cube"}
    truth |= {"right colour": "blue", "right shape": "cone"}
    exchanged = {"count": "2", "left colour": "blue", "left shape": "cone"}
    exchanged |= {"right colour": "red", "right shape": "cube"}
    shares = _agreement([truth, truth], [truth, exchanged])
    assert (shares["all"], shares["things"], shares["sides"]) == (pytest.approx(0.6), 1, 0.5)
