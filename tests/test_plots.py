"""Drawing: what was measured is what is drawn, and named."""

import io
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import PIL.Image
import pytest
from matplotlib.colors import to_rgb

from erddci import METHODS, plots
from erddci.plots.curves import draw_curves
from erddci.plots.looks import NEUTRAL
from erddci.plots.style import image_dpi


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def lines_of(ax):
    """The drawn lines by label; the markers on them are lines of their own, without a label."""
    return {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}


def legend_of(figure):
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def test_looks_are_those_of_the_registry_by_name_and_by_label():
    for name, method in METHODS.items():
        for given in (name, method.label):
            found = plots.look(given)
            assert (found.label, found.color, found.marker) == (
                method.label, method.color, method.marker,
            )  # fmt: skip
    assert plots.look("fifteenth") == plots.Look("fifteenth", NEUTRAL)


def test_no_two_methods_share_a_colour_or_a_mark():
    marks = {(method.color, method.marker) for method in METHODS.values()}
    assert len(marks) == len({method.color for method in METHODS.values()}) == len(METHODS)
    assert NEUTRAL not in {method.color for method in METHODS.values()}


def test_settings_that_are_no_methods_get_colours_that_no_method_has():
    names = ["dual chain", *(f"form {n}" for n in range(12)), "DDIM"]
    found = plots.setting_looks(names)
    assert list(found) == names
    assert found["dual chain"].color == METHODS["dual-chain"].color
    assert found["DDIM"] == plots.look("ddim")
    others = [found[name] for name in names if name.startswith("form")]
    assert not {each.color for each in others} & {each.color for each in METHODS.values()}
    assert len({(each.color, each.marker) for each in others}) == len(others)


def ways_to_edit(*ways):
    columns = ["setting", "method", "control", "schedule"]
    return pd.DataFrame([(" ".join(way), *way) for way in ways], columns=columns)


def test_ways_to_edit_show_their_method_control_and_schedule():
    table = ways_to_edit(
        ("ddim", "none", "constant"), ("ddim", "refine", "constant"), ("ddim", "none", "dynamic"),
        ("dual-chain", "none", "dynamic"), ("dual-chain (current)", "none", "dynamic"),
        ("new", "newest", "constant"),
    )  # fmt: skip
    looks = plots.edit_looks(table)
    found = [looks[setting] for setting in table["setting"]]
    plain, refined, dynamic, ours, variant, new = found
    assert {each.color for each in (plain, refined, dynamic)} == {METHODS["ddim"].color}
    assert ours.color == variant.color == METHODS["dual-chain"].color and new.color == NEUTRAL
    assert plain.marker == dynamic.marker != refined.marker
    assert plain.dashes == refined.dashes != dynamic.dashes == ours.dashes
    assert plain.fill == refined.fill != dynamic.fill == ours.fill
    assert len({replace(each, label="") for each in found}) == len(table)


def test_looks_of_ways_to_edit_do_not_hang_on_their_order_or_on_new_ways():
    table = ways_to_edit(
        ("ddim", "none", "constant"), ("ddim", "refine", "dynamic"), ("edict", "none", "constant")
    )
    schedules = ("constant", "dynamic")
    found = plots.edit_looks(table, schedules)
    assert plots.edit_looks(table[::-1], schedules) == found
    more = pd.concat([ways_to_edit(("aidi", "none", "another"), ("ddim", "none", "a")), table])
    assert found.items() <= plots.edit_looks(more, schedules).items()


def test_lines_that_coincide_share_one_line_without_gaps():
    x = pd.Index([1, 2, 3, 4])
    looks = [plots.look(name) for name in ("direct", "edict", "bdia", "ddim")]
    heights = [5, 5, 5, 1]
    curves = [
        (each, pd.DataFrame({"low": y, "middle": y, "high": y}, index=x))
        for each, y in zip(looks, heights, strict=True)
    ]
    figure, ax = plt.subplots()
    ax.grid(False)
    draw_curves(ax, curves)
    assert lines_of(ax)["DDIM"].get_linestyle() == "-"
    figure.canvas.draw()
    (left, height), (right, _) = ax.transData.transform([(1, 5), (4, 5)]).astype(int)
    pixels = np.asarray(figure.canvas.buffer_rgba())[::-1][height, left:right, :3]
    colours = np.array([to_rgb(each.color) for each in looks[:3]]) * 255
    nearest = np.abs(pixels[:, None] - colours).max(-1)
    # Each has its third of the line, but for what anti-aliasing and markers cover.
    assert ((nearest < 3).mean(0) > 0.25).all() and (pixels.min(1) < 250).all()
    # Each of them has a marker, and where two have to share a point the later is the smaller.
    marks = [line for line in ax.lines if line.get_linestyle() == "None"]
    assert {line.get_color() for line in marks} == {each.color for each in looks}
    assert {x for line in marks if line.get_ydata()[0] == 5 for x in line.get_xdata()} == set(x)


def test_lines_with_infinite_values_coincide_only_where_they_are_equal():
    first = pd.DataFrame({"middle": [1.0, np.inf]}, index=[1, 2])
    first = first.assign(low=first["middle"], high=first["middle"])
    other = first.assign(middle=[3.0, 4.0])
    _, ax = plt.subplots()
    draw_curves(ax, [(plots.look("ddim"), first), (plots.look("edict"), other)])
    assert {line.get_linestyle() for line in lines_of(ax).values()} == {"-"}


def test_points_that_coincide_are_drawn_one_around_the_other():
    first = pd.DataFrame({"low": [0, 5], "middle": [0, 5], "high": [0, 5]}, index=[1, 2])
    curves = [(plots.look("ddim"), first), (plots.look("edict"), first.assign(middle=[3, 5]))]
    _, ax = plt.subplots()
    draw_curves(ax, curves)
    sizes = {
        (line.get_color(), x): line.get_markersize()
        for line in ax.lines if line.get_linestyle() == "None" for x in line.get_xdata()
    }  # fmt: skip
    ddim, edict = METHODS["ddim"].color, METHODS["edict"].color
    assert sizes[ddim, 2] > sizes[ddim, 1] == sizes[edict, 1] == sizes[edict, 2]


def test_reconstructions_name_every_method_and_its_numbers():
    truth = np.full((16, 16, 3), 0.5)
    images = {name: truth + 0.01 * n for n, name in enumerate(METHODS)}
    figure = plots.reconstructions(truth, images, {name: f"of {name}" for name in images})
    titles = [ax.get_title() for ax in figure.axes]
    below = [ax.get_xlabel() for ax in figure.axes]
    labels = [method.label for method in METHODS.values()]
    assert [name for name in titles if name] == ["VAE round trip", *labels]
    assert [words for words in below if words.startswith("of ")] == [f"of {n}" for n in METHODS]
    # Each map of errors lies under its image, and shows the mean error of the colours.
    for place, name in enumerate(["VAE round trip", *METHODS]):
        lower = figure.axes[place + 5 * (place // 5 + 1)]
        if name in images:
            np.testing.assert_allclose(lower.images[0].get_array(), (images[name] - truth)[..., 0])


def cost_table(psnr, names=tuple(METHODS)):
    frame = pd.DataFrame({"method": names, "guidance_scale": 1.0, "inverted_at": 1.0})
    frame = frame.assign(nfe=np.arange(1.0, len(names) + 1) * 100)
    frame["psnr_vae"] = frame["psnr_vae_low"] = frame["psnr_vae_high"] = psnr
    return frame


def test_cost_quality_shows_each_method_once_and_infinite_quality_at_the_top():
    figure = plots.cost_quality(cost_table([*range(30, 43), np.inf]))
    (ax,) = figure.axes
    points = [line.get_xydata()[0].tolist() for line in ax.lines]
    top = dict(zip(*(ax.get_yticklabels(), ax.get_yticks()), strict=True))
    (height,) = (place for text, place in top.items() if text.get_text() == "∞")
    assert points == [[100.0 * (n + 1), 30 + n] for n in range(13)] + [[1400, height]]
    kinds = [method.reversible for method in METHODS.values()]
    labels = [method.label for method in METHODS.values()]
    assert sorted(legend_of(figure)) == sorted([*labels, *set(kinds)])
    fills = {line.get_color(): line.get_markerfacecolor() for line in ax.lines}
    hollow = {name for name, method in METHODS.items() if fills[method.color] == "white"}
    assert hollow == {n for n, method in METHODS.items() if method.reversible == "approximate"}


def test_cost_quality_draws_methods_that_it_does_not_know():
    figure = plots.cost_quality(cost_table([30.0, 40.0], ("ddim", "fifteenth")))
    assert legend_of(figure) == ["approximate", "DDIM", "unknown", "fifteenth"]
    assert figure.axes[0].lines[1].get_color() == NEUTRAL


def test_cost_quality_keeps_points_apart_that_coincide():
    table = cost_table([np.inf, np.inf, 40.0, 40.0], ("bdia", "belm", "ddim", "null-text"))
    figure = plots.cost_quality(table.assign(nfe=20.0))
    heights = {line.get_color(): line.get_ydata()[0] for line in figure.axes[0].lines}
    sizes = {line.get_color(): line.get_markersize() for line in figure.axes[0].lines}
    bdia, belm, ddim, null = (METHODS[name].color for name in table["method"])
    assert heights[bdia] != heights[belm] and heights[ddim] == heights[null] == 40
    assert sizes[ddim] > sizes[null]


def steps_table(*inversions):
    columns = ["method", "guidance_scale", "inverted_at"]
    steps = pd.Series([50, 10], name="steps")
    frame = pd.DataFrame(inversions, columns=columns).merge(steps, "cross")
    frame["psnr_vae"] = frame["steps"] + frame["inverted_at"].astype(float)
    frame.loc[frame["method"] == "direct", "psnr_vae"] = np.inf
    return frame.assign(psnr_vae_low=frame["psnr_vae"], psnr_vae_high=frame["psnr_vae"])


def test_steps_quality_draws_a_line_a_method_and_tells_both_inversions_apart():
    table = steps_table(
        ("ddim", 1, 1), ("ddim", 3, 1), ("ddim", 3, 3), ("direct", 3, 3), ("fifteenth", 3, 3)
    )
    figure = plots.steps_quality(table)
    drawn = [
        {name: line.get_ydata().tolist() for name, line in lines_of(ax).items()}
        for ax in figure.axes
    ]
    at_w, at_1 = "DDIM, inverted at w", "DDIM, inverted at w = 1"
    top = next(
        place for text, place in zip(
            figure.axes[0].get_yticklabels(), figure.axes[0].get_yticks(), strict=True
        ) if text.get_text() == "∞"
    )  # fmt: skip
    assert drawn[0] == {at_w: [11, 51]}
    assert drawn[1] == {
        at_w: [13, 53], at_1: [11, 51], "Direct": [top, top], "fifteenth": [13, 53],
    }  # fmt: skip
    assert top > 53 and legend_of(figure) == [at_w, at_1, "Direct", "fifteenth"]


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
    np.testing.assert_allclose(drawn["w = 3, inverted at w = 1"], [12, 9, 6, 3])
    assert list(drawn) == ["w = 1", "w = 3, inverted at w = 1", "w = 3, inverted at w"]
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
    assert set(legend_of(figure)) == set(ways)
    first = figure.axes[0]
    labels = dict(zip(first.get_yticks(), first.get_yticklabels(), strict=True))
    (top,) = (height for height, text in labels.items() if text.get_text() == "100 to ∞")
    drawn = {label: line.get_ydata() for label, line in lines_of(first).items()}
    np.testing.assert_allclose(drawn["D2 guided inversion"], [top] * 3)
    np.testing.assert_allclose(drawn["dual chain"], [29, 27, 22.5])
    # Edits are averaged: of two scenes, one was done.
    for line in lines_of(figure.axes[5]).values():
        np.testing.assert_allclose(line.get_ydata(), 0.5)
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
    ways = ("ddim + refine", "ddim", "refine", "constant"), ("new", "newest", "none", "dynamic")
    for n, (way, method, control, schedule) in enumerate(ways):
        for w in (1.0, 7.5):
            row = {"setting": way, "guidance_scale": w, "steps": 10, "nfe": 40.0 + n}
            row |= {"method": method, "control": control, "schedule": schedule}
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
    figure = plots.edit_sweeps(table)
    axes = np.reshape(figure.axes, (3, 2))
    table = table[table["steps"] == 10]
    for ax, name in zip(axes[:, 0], ("psnr_truth", "edit_accuracy", "background"), strict=True):
        drawn = lines_of(ax)
        assert set(drawn) == set(table["setting"]) == set(legend_of(figure))
        for way, group in table.groupby("setting"):
            np.testing.assert_allclose(drawn[way].get_xydata(), group[["guidance_scale", name]])


def test_step_size_draws_every_method_and_the_slope():
    frame = pd.DataFrame({"method": ["ddim"] * 2 + ["fifteenth"] * 2, "steps": [10, 20] * 2})
    frame["latent_rms"] = [0.2, 0.1, 1e-15, 1e-15]
    drawn = lines_of(plots.step_size(frame).axes[0])
    assert drawn["DDIM"].get_color() == METHODS["ddim"].color
    assert drawn["fifteenth"].get_color() == NEUTRAL
    np.testing.assert_allclose(drawn["slope of 1/N"].get_ydata(), [0.4, 0.2])


def test_noise_trajectories_have_the_colours_of_their_methods():
    names = ("DDIM inversion", "DDIM sampling", "dual-chain sampling", "new sampling")
    frame = pd.DataFrame({"trajectory": np.repeat(names, 3), "t": [1, 2, 3] * 4})
    frame = frame.assign(pc1=0.0, pc2=1.0, pc3=2.0)
    frame.attrs["explained"] = [0.5, 0.3, 0.2]
    figure = plots.noise_trajectories_3d(frame)
    colours = {trace.name: trace.line.color for trace in figure.data}
    # An inversion that its method's sampling is beside is grey.
    ddim, dual = METHODS["ddim"].color, METHODS["dual-chain"].color
    assert colours == dict(zip(names, (NEUTRAL, ddim, dual, NEUTRAL), strict=True))
    (text,) = (ax.get_legend().get_texts() for ax in plots.noise_trajectories({1: frame}).axes)
    assert tuple(each.get_text() for each in text) == names


def test_dual_chain_names_every_node_and_prediction():
    events = [("ask", "z", 0, 1, 1), ("move", "z", 0, 1, 1), ("ask", "z", 1, 1, 2)]
    events += [("move", "x", 0, 1, 2)]
    order = pd.DataFrame(events, columns=["event", "chain", "start", "end", "ask"])
    texts = {text.get_text() for text in plots.dual_chain(order).axes[0].texts}
    assert {"$z_0$", "$z_1$", "$x_0$", "$x_1$", "original chain z", "auxiliary chain x"} <= texts
    assert {r"$\varepsilon(z_0, t_1)$", r"$\varepsilon(z_1, t_1)$"} <= texts


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


def shown(figure, monkeypatch):
    """The PNG that a notebook gets, as an array, and its alternative text."""
    displayed = []
    monkeypatch.setattr("erddci.plots.style.display", displayed.append)
    plots.show(figure, "A ramp of colours from black to white")
    (image,) = displayed
    return np.asarray(PIL.Image.open(io.BytesIO(image.data))), image.alt


def test_show_leaves_colours_within_two_levels(monkeypatch):
    ramp = np.linspace(0, 1, 64 * 64 * 3).reshape(64, 64, 3)
    drawn, alt = shown(plots.image_grid({"ramp": [ramp]}), monkeypatch)
    assert alt.startswith("A ramp")
    assert set(np.unique(drawn)) <= set(plots.LEVELS) and drawn.max() == 255
    assert max(abs(value - level) for value, level in enumerate(plots.LEVELS)) <= 2


def test_each_pixel_of_an_image_is_two_by_two_on_the_screen(monkeypatch):
    checks = np.indices((128, 128)).sum(0) % 2
    image = np.repeat(checks[..., None], 3, 2) * np.array([1.0, 0, 1])
    drawn, _ = shown(plots.image_grid({"a": [image] * 3, "b": [image]}), monkeypatch)
    magenta = (drawn[..., 0] > 200) & (drawn[..., 1] < 50)
    # Four boards, half of whose 256² pixels are magenta; none is blurred with its neighbours.
    assert abs(magenta.sum() / (4 * 256**2 / 2) - 1) < 0.03
    blurred = (drawn[..., 0] > 60) & (drawn[..., 0] < 200) & (drawn[..., 1] < 20)
    assert blurred.sum() < 100


def test_resolution_is_no_higher_than_images_need():
    assert image_dpi(plt.figure()) == 85
    photograph = np.zeros((512, 512, 3))
    assert image_dpi(plots.image_grid({"photograph": [photograph]})) == 240
