"""The interactive views: what they draw and say, what they keep, and how they fail."""

import base64
import io
import re
from dataclasses import replace

import pytest
from PIL import Image

import erddci
from erddci import widgets

pytestmark = pytest.mark.filterwarnings("ignore::erddci.images.ImageChanged")


@pytest.fixture(scope="module")
def example():
    return erddci.examples()[0]


@pytest.fixture
def explorer(tiny):
    return widgets.reconstruction_explorer(tiny)


def controls(explorer):
    """The controls of an explorer by what is written beside them."""
    *found, _, _ = explorer.children
    return {control.description: control for control in found}


def shown(explorer):
    return explorer.children[-2]


def words(explorer):
    return explorer.children[-1].value


@pytest.fixture
def count(tiny):
    """Counts the network rows that a change costs."""

    def count(control, value):
        before = tiny.nfe
        control.value = value
        return tiny.nfe - before

    return count


def test_reconstruction_in_images_and_words(tiny, example):
    x, condition = tiny.encode(example.image), tiny.condition(example.source)
    path = erddci.invert(tiny, x, condition, "ddim", 5)
    figure, said = widgets.reconstruction_view(tiny, example.image, path, 2)
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == ["input image", "VAE round trip", "w = 2", "difference × 10"]
    error = path.latent_error(erddci.reconstruct(tiny, path, condition.with_guidance(2)))[0].max()
    assert "dB to the VAE round trip" in said and "dB to the input image" in said
    assert f"Largest latent error: {error:.1e}." in said
    assert said.endswith("Network rows: 5 to noise, 10 back.")


def test_exact_reconstruction_has_no_difference(tiny, example):
    path = erddci.invert(tiny, tiny.encode(example.image), tiny.condition(""), steps=5)
    figure, said = widgets.reconstruction_view(tiny, example.image, path, 1)
    assert figure.axes[-1].images[0].get_array().max() < 1e-3
    assert "inf" not in said and said.endswith("Network rows: 10 to noise, 0 back.")


def test_explorer_shows_a_image_with_alternative_text(explorer):
    code = re.fullmatch(
        r'<img alt="(.+)" src="data:image/png;base64,(.+)">', shown(explorer).value
    )
    assert code[1] == words(explorer)
    image = Image.open(io.BytesIO(base64.b64decode(code[2])))
    assert image.width > 2 * image.height


def test_explorer_inverts_once_while_only_w_moves(explorer, count):
    w = controls(explorer)["w"]
    assert count(w, 3) == 20  # the way back alone, where the chain's own noise is kept
    assert count(w, 1) == 0
    assert count(w, 3) == 0  # seen before
    assert "Network rows: 40 to noise, 20 back." in words(explorer)


def test_explorer_inverts_again_for_another_walk(explorer, count):
    control = controls(explorer)
    assert count(control["method"], "ddim") == 20 + 20
    assert count(control["steps N"], 10) == 10 + 10
    assert count(control["method"], "dual-chain") == 20
    assert count(control["prompt"], "a red sphere") == 20


def test_explorer_brings_the_prompt_with_the_image(explorer, count):
    control, source = controls(explorer), erddci.examples()[1].source
    assert count(control["image"], "scene 2") == 40  # once, though two controls changed
    assert control["prompt"].value == source
    assert count(control["image"], "photograph: coffee") == 40
    assert control["prompt"].value == ""
    assert len(control["image"].options) == 12


def test_explorer_says_what_is_wrong_and_goes_on(explorer, count):
    control = controls(explorer)
    before = shown(explorer).value
    control["prompt"].value = "a <b>dog</b>"
    assert "does not know all words of “a &lt;b&gt;dog&lt;/b&gt;”" in words(explorer)
    assert words(explorer).startswith("ValueError: ")
    assert not shown(explorer).value
    assert count(control["prompt"], erddci.examples()[0].source) == 0
    assert shown(explorer).value == before


def test_trajectories_in_three_dimensions(tiny, example):
    figure, said = widgets.trajectory_view(tiny, example, 5, 2)
    names = [trace.name for trace in figure.data]
    assert names == ["DDIM inversion", "DDIM inference", "dual-chain inference"]
    assert all(len(trace.x) == 5 for trace in figure.data)
    assert re.match(r"Three components hold \d+% of the variance", said)


def test_trajectory_explorer_draws_for_jupyterlab(tiny, example, count):
    explorer = widgets.trajectory_explorer(tiny, example)
    (output,) = shown(explorer).outputs
    assert len(output["data"]["application/vnd.plotly.v1+json"]["data"]) == 3
    control = controls(explorer)
    assert not any(each.continuous_update for each in control.values())
    assert count(control["steps N"], 5) == 5 + 10 + 5
    assert count(control["w"], 2) == 5 + 10 + 10 + 5
    assert count(control["w"], 1) == 0
    assert shown(explorer).outputs != (output,)


def test_trajectory_explorer_shows_errors(tiny, example):
    explorer = widgets.trajectory_explorer(tiny, replace(example, source="a dog"))
    assert shown(explorer).outputs == ()
    assert words(explorer).startswith("ValueError: the model does not know")
