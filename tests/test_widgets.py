"""The interactive views: what they draw and say, what they keep, and how they fail."""

import base64
import html
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
    (line,) = re.fullmatch(r"<div[^>]*>(.*)</div>", explorer.children[-1].value).groups()
    return html.unescape(line)


@pytest.fixture
def count(tiny):
    """Counts the function evaluations that a change costs."""

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
    assert said.endswith("NFE: 5 for the inversion, 10 for the reconstruction.")


def test_exact_reconstruction_has_no_difference(tiny, example):
    path = erddci.invert(tiny, tiny.encode(example.image), tiny.condition(""), steps=5)
    figure, said = widgets.reconstruction_view(tiny, example.image, path, 1)
    assert figure.axes[-1].images[0].get_array().max() < 1e-3
    assert "inf" not in said and said.endswith(
        "NFE: 10 for the inversion, 0 for the reconstruction."
    )


def test_explorer_shows_an_image_with_alternative_text(explorer):
    code = re.fullmatch(
        r'<img alt="(.+)" style=".+" src="data:image/png;base64,(.+)">', shown(explorer).value
    )
    assert html.unescape(code[1]) == words(explorer)
    image = Image.open(io.BytesIO(base64.b64decode(code[2])))
    assert image.width > 2 * image.height


def test_explorer_inverts_once_while_only_w_moves(explorer, count):
    w = controls(explorer)["guidance w"]
    assert count(w, 3) == 20  # the unconditional noise alone: the conditional one is stored
    assert count(w, 1) == 0
    assert count(w, 3) == 0  # seen before
    assert "NFE: 40 for the inversion, 20 for the reconstruction." in words(explorer)


def test_explorer_inverts_again_for_another_inversion(explorer, count):
    control = controls(explorer)
    assert count(control["method"], "ddim") == 20 + 20
    assert count(control["steps N"], 10) == 10 + 10
    assert count(control["method"], "dual-chain") == 20
    assert count(control["prompt"], "a red sphere") == 20


def test_explorer_inverts_at_each_w_what_is_to_be_inverted_at_w(explorer, count):
    control = controls(explorer)
    assert count(control["method"], "edit-friendly") == 20 + 20
    assert count(control["guidance w"], 3) == 2 * (20 + 20)
    assert re.match(r"Reconstruction: (1\d\d\.\d|∞) dB to the VAE round trip", words(explorer))
    assert count(control["method"], "direct") == 20 + 2 * 20 + 2 * 20
    assert re.match(r"Reconstruction: (1\d\d\.\d|∞) dB to the VAE round trip", words(explorer))


def test_explorer_brings_the_prompt_with_the_image(explorer, count):
    control, source = controls(explorer), erddci.examples()[1].source
    assert count(control["image"], "scene 2: shape") == 40  # once, though two controls changed
    assert control["prompt"].value == source
    assert count(control["image"], "photograph: coffee") == 40
    assert control["prompt"].value == ""
    assert len(control["image"].options) == 12


def test_explorer_says_what_is_wrong_and_goes_on(explorer, count):
    control = controls(explorer)
    before = shown(explorer).value
    control["prompt"].value = "a <b>dog</b>"
    assert "does not know all words of “a <b>dog</b>”" in words(explorer)
    assert "<b>" not in explorer.children[-1].value
    assert words(explorer).startswith("ValueError: ")
    assert not shown(explorer).value
    assert count(control["prompt"], erddci.examples()[0].source) == 0
    assert shown(explorer).value == before


def test_trajectories_in_three_dimensions(tiny, example):
    figure, said = widgets.trajectory_view(tiny, example, 5, 2)
    names = [trace.name for trace in figure.data]
    assert names == ["DDIM inversion", "DDIM inference", "dual-chain inference"]
    assert all(len(trace.x) == 5 for trace in figure.data)
    assert re.match(r"The three components explain \d+% of the variance", said)


def test_trajectory_explorer_draws_for_jupyterlab(tiny, example, count):
    explorer = widgets.trajectory_explorer(tiny, example)
    (output,) = shown(explorer).outputs
    assert len(output["data"]["application/vnd.plotly.v1+json"]["data"]) == 3
    control = controls(explorer)
    assert not any(each.continuous_update for each in control.values())
    assert count(control["steps N"], 5) == 5 + 10 + 5
    assert count(control["guidance w"], 2) == 5 + 10 + 10 + 5
    assert count(control["guidance w"], 1) == 0
    assert shown(explorer).outputs != (output,)


def test_trajectory_explorer_shows_errors(tiny, example):
    explorer = widgets.trajectory_explorer(tiny, replace(example, source="a dog"))
    assert shown(explorer).outputs == ()
    assert words(explorer).startswith("ValueError: the model does not know")
