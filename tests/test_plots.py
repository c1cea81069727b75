"""Drawing: what was measured is what is drawn, and named."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import PIL.Image
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
    # Each map of errors lies under its image, and shows the mean error of the colours.
    for place, name in enumerate(["VAE round trip", *METHODS]):
        lower = figure.axes[place + 5 * (place // 5 + 1)]
        if name in images:
            np.testing.assert_allclose(lower.images[0].get_array(), (images[name] - truth)[..., 0])


def test_cost_quality_shows_each_method_once_and_infinite_quality_at_the_top():
    names = list(METHODS)
    frame = pd.DataFrame({"method": names, "guidance_scale": 1.0, "inverted_at": 1.0})
    frame = frame.assign(nfe=np.arange(1.0, 15) * 100, named=False)
    frame["psnr_vae"] = frame["psnr_vae_low"] = frame["psnr_vae_high"] = [*range(30, 43), np.inf]
    kinds = {name: method.reversible for name, method in METHODS.items()}
    figure = plots.cost_quality(frame, kinds, best=130)
    (ax,) = figure.axes
    assert sorted(text.get_text() for text in ax.texts) == sorted(names)
    points = {(x, y) for bars in ax.containers for x, y in bars.lines[0].get_xydata()}
    assert (1400.0, 130.0) in points and len(points) == 14
    assert {text.get_text() for text in ax.get_legend().get_texts()} == set(kinds.values())


def test_steps_quality_draws_a_line_a_method_and_tells_both_ways_up_apart():
    walks = [("ddim", 1, 1), ("ddim", 3, 1), ("ddim", 3, 3), ("direct", 3, 3)]
    columns = ["method", "guidance_scale", "inverted_at"]
    frame = pd.DataFrame(walks, columns=columns).merge(pd.Series([50, 10], name="steps"), "cross")
    frame["psnr_vae"] = frame["steps"] + frame["inverted_at"].astype(float)
    frame.loc[frame["method"] == "direct", "psnr_vae"] = np.inf
    frame["psnr_vae_low"] = frame["psnr_vae_high"] = frame["psnr_vae"]
    figure = plots.steps_quality(frame, best=130)
    drawn = [
        [line.get_ydata().tolist() for line in ax.lines if len(line.get_ydata())]
        for ax in figure.axes
    ]
    # In the order of the legend: what is exact at the back, DDIM up at w before DDIM up at 1.
    assert drawn == [[[11, 51]], [[130, 130], [13, 53], [11, 51]]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "direct", "ddim, up at w", "ddim, up at w = 1",
    ]  # fmt: skip


def test_error_accumulation_draws_medians():
    rows = [
        {"image": p, "guidance_scale": w, "inverted": way, "node": n, "latent_rms": w * (4 - n)}
        | ({"psnr_input": 30 - w} if n == 0 else {})
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


def test_guidance_sweep_draws_every_way_and_exact_ones_at_the_top():
    ways, scales = ("dual chain", "D2 guided inversion", "null-text"), (1, 3, 7.5)
    quality = {"dual chain": 30.0, "D2 guided inversion": np.inf, "null-text": 42.0}
    rows = [
        {"image": p, "setting": way, "guidance_scale": w, "psnr_vae": quality[way] - w}
        | {
            "ssim_vae": 0.9,
            "lpips_vae": 0.1,
            "psnr_truth": 20.0,
            "background": 30.0,
            "edit_accuracy": p,
        }
        for p in (0, 1)
        for way in ways
        for w in scales
    ]
    frame = pd.DataFrame(rows)
    figure = plots.guidance_sweep(frame, frame)
    assert len(figure.axes) == 6
    (legend,) = figure.legends
    assert {text.get_text() for text in legend.get_texts()} == set(ways)
    first = figure.axes[0]
    labels = dict(zip(first.get_yticks(), first.get_yticklabels(), strict=True))
    (top,) = (height for height, text in labels.items() if text.get_text() == "exact")
    drawn = {line.get_color(): line.get_ydata() for line in first.lines}
    np.testing.assert_allclose(drawn[plots.GUIDED["D2 guided inversion"]["color"]], [top] * 3)
    np.testing.assert_allclose(drawn[plots.GUIDED["dual chain"]["color"]], [29, 27, 22.5])
    # Edits are averaged: of two scenes, one did as asked.
    np.testing.assert_allclose(figure.axes[5].lines[0].get_ydata(), 0.5)
    assert len(plots.guidance_sweep(frame).axes) == 3


def test_attention_maps_name_the_words_and_scale_each_map_to_its_maximum():
    images = {name: np.full((8, 8, 3), 0.5) for name in ("source", "target")}
    looks = np.arange(16.0).reshape(4, 4)
    maps = {"source": [("red", looks), ("cube", 3 * looks)], "target": [("blue", looks)]}
    axes = plots.attention_maps(images, maps).axes
    assert [ax.get_title() for ax in axes] == ["", "red", "cube", "", "blue", ""]
    for ax in (axes[1], axes[2], axes[4]):
        _, over = ax.images
        np.testing.assert_allclose(over.get_array(), looks / 15)
    assert not axes[5].images


def test_a_map_of_nothing_lights_nothing():
    figure = plots.attention_maps({"x": np.ones((8, 8, 3))}, {"x": [("red", np.zeros((4, 4)))]})
    np.testing.assert_array_equal(figure.axes[1].images[1].get_array(), 0)


def test_alignment_has_targets_in_rows_and_sources_in_columns():
    shares = {"refine": np.eye(2, 3), "replace": np.ones((2, 3))}
    axes = plots.alignment(shares, ["blue", "cube"], ["red", "cube", "left"]).axes
    for ax, (kind, expected) in zip(axes, shares.items(), strict=True):
        assert ax.get_title() == kind
        np.testing.assert_array_equal(ax.images[0].get_array(), expected)
        assert [text.get_text() for text in ax.get_xticklabels()] == ["red", "cube", "left"]
    assert [text.get_text() for text in axes[0].get_yticklabels()] == ["blue", "cube"]


def test_edit_gallery_puts_each_image_and_its_line_where_they_belong():
    images = {
        way: np.full((2, 8, 8, 3), n / 4) for n, way in enumerate(("input", "ddim", "truth"))
    }
    images["ddim"][1] = 1
    figure = plots.edit_gallery(images, ["colour", "add"], {"ddim": ["20 dB", "30 dB"]})
    axes = np.reshape(figure.axes, (2, 3))
    assert [ax.get_title() for ax in axes[0]] == ["input", "ddim", "truth"]
    assert [ax.get_ylabel() for ax in axes[:, 0]] == ["colour", "add"]
    assert [ax.get_xlabel() for ax in axes.T.flat] == ["", "", "20 dB", "30 dB", "", ""]
    assert (axes[1, 1].images[0].get_array() == 1).all()


def test_injection_sweep_has_cross_attention_across_and_means_over_scenes():
    shares = (0, 0.4)
    images = {(c, s): np.full((8, 8, 3), c + s / 2) for c in shares for s in shares}
    measured = {"psnr_truth": 20.0, "edit_accuracy": 1.0, "preservation": 0.5}
    rows = [
        {"cross_until": c, "self_until": s} | measured | {"edit_accuracy": image}
        for c, s in images
        for image in (0, 1)
    ]
    figure = plots.injection_sweep(images, pd.DataFrame(rows))
    grid, curves = (part.axes for part in figure.subfigs)
    drawn = [ax.images[0].get_array()[0, 0, 0] for ax in grid]
    np.testing.assert_allclose(drawn, [0, 0.4, 0.2, 0.6])
    assert [ax.get_title() for ax in grid] == ["0", "0.4", "", ""]
    top, bottom = curves
    np.testing.assert_allclose([line.get_ydata() for line in top.lines], 20)
    np.testing.assert_allclose([line.get_ydata() for line in bottom.lines], 0.5)
    assert [text.get_text() for text in top.get_legend().get_texts()] == ["0", "0.4"]


def summary_of_edits():
    rows = []
    for n, way in enumerate(("ddim + refine", "dual-chain, dynamic")):
        for w in (1.0, 7.5):
            row = {"setting": way, "guidance_scale": w, "steps": 10, "nfe": 40.0 + n}
            for name in ("psnr_truth", "background", "edit_accuracy", "nfe"):
                value = row.setdefault(name, n + w)
                row |= {f"{name}_low": value - 1, f"{name}_high": value + 1}
            rows.append(row)
    return pd.DataFrame(rows)


def test_edit_benchmark_draws_a_point_a_way_and_writes_every_mean():
    table = summary_of_edits().query("guidance_scale == 7.5")
    kinds = pd.DataFrame(
        {"colour": [30.0, 20.5], "add": [25.0, 21.0]}, index=list(table["setting"])
    )
    top, bottom = (part.axes for part in plots.edit_benchmark(table, kinds).subfigs)
    left, right = top
    for ax, across, up in ((left, "background", "edit_accuracy"), (right, "nfe", "psnr_truth")):
        points = [line.get_xydata()[0] for line in ax.lines if len(line.get_xdata()) == 1]
        np.testing.assert_allclose(points, table[[across, up]])
    assert [text.get_text() for text in bottom[0].texts] == ["30.0", "25.0", "20.5", "21.0"]
    assert [text.get_text() for text in bottom[0].get_yticklabels()] == list(table["setting"])


def test_edit_sweeps_draw_a_line_a_way_in_every_panel():
    table = summary_of_edits()
    table = pd.concat([table, table.assign(steps=20)])
    axes = np.reshape(plots.edit_sweeps(table).axes, (3, 2))
    table = table[table["steps"] == 10]
    for ax, name in zip(axes[:, 0], ("psnr_truth", "edit_accuracy", "background"), strict=True):
        for line, (way, group) in zip(ax.lines, table.groupby("setting"), strict=True):
            assert line.get_label() == way
            np.testing.assert_allclose(line.get_xydata(), group[["guidance_scale", name]])


def test_throughput_is_drawn_beside_the_ideal():
    frame = pd.DataFrame(
        {"varied": ["batch size"] * 2 + ["processes"] * 2, "value": [1, 4, 1, 2]}
        | {"images_per_second": [2.0, 3.0, 2.5, 4.5], "ideal": [2.0, 8.0, 2.5, 5.0]}
    )
    for ax, (varied, group) in zip(
        plots.throughput(frame).axes, frame.groupby("varied"), strict=True
    ):
        measured, ideal = ax.lines
        assert ax.get_xlabel() == varied
        np.testing.assert_allclose(measured.get_ydata(), group["images_per_second"])
        np.testing.assert_allclose(ideal.get_ydata(), group["ideal"])


def test_show_leaves_colours_within_two_levels(monkeypatch):
    shown = []
    monkeypatch.setattr("erddci.plots.style.display", shown.append)
    ramp = np.linspace(0, 1, 64 * 64 * 3).reshape(64, 64, 3)
    plots.show(plots.image_grid({"ramp": [ramp]}), "A ramp of colours from black to white")
    (image,) = shown
    assert image.alt.startswith("A ramp")
    drawn = np.asarray(PIL.Image.open(io.BytesIO(image.data)))
    assert set(np.unique(drawn)) <= set(plots.LEVELS) and drawn.max() == 255
    assert max(abs(value - level) for value, level in enumerate(plots.LEVELS)) <= 2
