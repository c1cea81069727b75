"""Drawing: what was measured is what is drawn, and named."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from erddci import METHODS, plots


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_reconstructions_name_every_method_and_its_numbers():
    truth = np.full((16, 16, 3), 0.5)
    images = {name: truth + 0.01 * n for n, name in enumerate(METHODS)}
    figure = plots.reconstructions(truth, images, {name: f"of {name}" for name in images})
    titles = [ax.get_title() for ax in figure.axes]
    below = [ax.get_xlabel() for ax in figure.axes]
    assert [name for name in titles if name] == ["VAE round trip", *METHODS]
    assert [words for words in below if words.startswith("of ")] == [f"of {n}" for n in METHODS]
    # Each map of errors lies under its picture, and shows the mean error of the colours.
    for place, name in enumerate(["VAE round trip", *METHODS]):
        lower = figure.axes[place + 5 * (place // 5 + 1)]
        if name in images:
            np.testing.assert_allclose(lower.images[0].get_array(), (images[name] - truth)[..., 0])


def test_cost_quality_shows_each_method_once_and_infinite_quality_at_the_top():
    names = list(METHODS)
    frame = pd.DataFrame({"method": names, "guidance_scale": 1.0, "inverted_at": 1.0})
    frame = frame.assign(rows=np.arange(1.0, 15) * 100, named=False)
    frame["psnr vae"] = frame["psnr vae low"] = frame["psnr vae high"] = [*range(30, 43), np.inf]
    kinds = {name: method.reversible for name, method in METHODS.items()}
    figure = plots.cost_quality(frame, kinds, best=130)
    (ax,) = figure.axes
    assert sorted(text.get_text() for text in ax.texts) == sorted(names)
    points = {(x, y) for bars in ax.containers for x, y in bars.lines[0].get_xydata()}
    assert (1400.0, 130.0) in points and len(points) == 14
    assert {text.get_text() for text in ax.get_legend().get_texts()} == set(kinds.values())


def test_error_accumulation_draws_medians():
    rows = [
        {"picture": p, "guidance_scale": w, "inverted": way, "node": n, "latent rms": w * (4 - n)}
        | ({"psnr input": 30 - w} if n == 0 else {})
        for p in (0, 1)
        for w in (1, 3)
        for way in ("unguided", "same scale")
        for n in range(5)
    ]
    strips = {w: np.zeros((2, 8, 8, 3)) for w in (1, 3)}
    figure = plots.error_accumulation(pd.DataFrame(rows), 34.0, strips, [4, 1])
    left, right = figure.subfigs[0].axes
    drawn = {line.get_label(): line.get_ydata() for line in left.lines}
    np.testing.assert_allclose(drawn["w = 3"], [12, 9, 6, 3])
    assert list(drawn) == ["w = 1", "w = 3", "w = 3, inverted at w too"]
    np.testing.assert_allclose(right.lines[0].get_ydata(), [29, 27])
