"""Drawing: every function takes data that `erddci.experiments` measured and knows no model."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import PIL.Image
from IPython.display import Image, display
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

if TYPE_CHECKING:
    import plotly.graph_objects as go

# Okabe and Ito's colours, which most colour-blind readers can tell apart.
COLOURS = {
    "ddim": "#D55E00",
    "dual-chain": "#0072B2",
    "original": "#999999",
    "floor": "#000000",
    "third": "#009E73",
    "fourth": "#CC79A7",
}
SCALES = ("#56B4E9", "#E69F00", "#D55E00", "#CC79A7", "#000000")
# 64 levels a colour look like 256, and make the PNG of a picture half as large.
LEVELS = [round(round(value * 63 / 255) * 255 / 63) for value in range(256)]
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.constrained_layout.use": True,
    "savefig.bbox": "tight",
    "pdf.fonttype": 42,
}


def show(figure: Figure, alt: str) -> None:
    """Display a figure in a notebook as one small PNG with alternative text, and close it."""
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=85)
    plt.close(figure)
    PIL.Image.open(drawn).convert("RGB").point(3 * LEVELS).save(small, "png", optimize=True)
    display(Image(small.getvalue(), format="png", alt=alt))


def pictures(rows: Mapping[str, Sequence[np.ndarray]], titles: Sequence[str] = ()) -> Figure:
    """Rows of pictures [H, W, 3] with a label for each row and a title for each column."""
    wide = max(map(len, rows.values()))
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(
            len(rows), wide, figsize=(1.25 * wide + 0.6, 1.25 * len(rows) + 0.3), squeeze=False
        )
        for line, (label, images) in zip(axes, rows.items(), strict=True):
            _picture_row(line, images, label)
        for ax, title in zip(axes[0], titles, strict=False):
            ax.set_title(title, fontsize=8, loc="center")
    return figure


def error_accumulation(
    frame: pd.DataFrame,
    floor: float,
    strips: Mapping[float, np.ndarray],
    nodes: Sequence[int],
) -> Figure:
    """Figure 1: the latent error of the way back by node, the picture's PSNR, and strips.

    Args:
        frame: from `experiments.error_accumulation`.
        floor: PSNR in dB of the VAE round trip against the input images.
        strips: pictures by guidance scale, from `experiments.way_back`.
        nodes: where on the way back the pictures of a strip are from.
    """
    scales = sorted(frame["guidance_scale"].unique())
    colours = dict(zip(scales, SCALES, strict=False))
    with mpl.rc_context(STYLE):
        figure = plt.figure(figsize=(8.2, 3.1 + 1.05 * len(strips)))
        parts: Any = figure.subfigures(2, 1, height_ratios=(3.1, 1.05 * len(strips)))
        top, bottom = parts
        left, right = top.subplots(1, 2, width_ratios=(3, 2))
        _error_by_node(left, frame, colours)
        _psnr_by_scale(right, frame, floor)
        axes = bottom.subplots(len(strips), len(nodes), squeeze=False)
        for line, (w, images) in zip(axes, strips.items(), strict=True):
            _picture_row(line, list(images), f"w = {w:g}")
        for ax, node in zip(axes[0], nodes, strict=True):
            ax.set_title(f"i = {node}", fontsize=8, loc="center")
    return figure


def _error_by_node(ax: Axes, frame: pd.DataFrame, colours: Mapping[float, str]) -> None:
    last = frame["node"].max()
    walks = frame[frame["node"] < last].sort_values("inverted", ascending=False, kind="stable")
    for (w, inverted), group in walks.groupby(["guidance_scale", "inverted"], sort=False):
        if w == 1 and inverted == "same scale":
            continue  # the same walk as inverting unguided
        error = group.groupby("node")["latent rms"].quantile([0.25, 0.5, 0.75]).unstack()
        style = "-" if inverted == "unguided" else "--"
        label = f"w = {w:g}" + ("" if inverted == "unguided" else ", inverted at w too")
        ax.plot(error.index, error[0.5], style, color=colours[w], label=label)
        if inverted == "unguided":
            ax.fill_between(error.index, error[0.25], error[0.75], color=colours[w], alpha=0.15)
    ax.set(yscale="log", xlabel="node i on the way back (N is noise, 0 the image)")
    ax.set(ylabel="RMS latent error", title="DDIM's error builds up on the way back")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.invert_xaxis()
    ax.legend()


def _psnr_by_scale(ax: Axes, frame: pd.DataFrame, floor: float) -> None:
    ends = frame[frame["node"] == 0]
    for inverted, marker in (("unguided", "o-"), ("same scale", "s--")):
        values = ends[ends["inverted"] == inverted].groupby("guidance_scale")["psnr input"]
        label = "inverted at w = 1" if inverted == "unguided" else "inverted at w too"
        ax.plot(values.median(), marker, color=COLOURS["original"], label=label, markersize=4)
    ax.axhline(floor, color=COLOURS["floor"], linewidth=1, linestyle=":")
    right = frame["guidance_scale"].max()
    offset = {"xytext": (0, -11), "textcoords": "offset points", "ha": "right"}
    ax.annotate("VAE round trip: the floor", (right, floor), **offset)
    ax.set(xlabel="guidance scale w", ylabel="PSNR to the input image (dB)")
    ax.set_xticks(sorted(frame["guidance_scale"].unique()))
    ax.set_title("… and guidance amplifies it")
    ax.legend(loc="lower left")


def dual_chain(order: pd.DataFrame) -> Figure:
    """Figure 2: the two chains and what each step moves along, from `experiments.step_order`."""
    asks = order[order["event"] == "ask"].set_index("ask")
    moves = order[order["event"] == "move"]
    last = int(moves["end"].max())
    height = {"z": 1.0, "x": 0.0}
    names = {"z": "original chain z", "x": "auxiliary chain x"}
    colours = {"z": COLOURS["original"], "x": COLOURS["dual-chain"]}
    plain: dict[Any, Any] = {"axes.grid": False}
    with mpl.rc_context(STYLE | plain):
        figure, ax = plt.subplots(figsize=(8.2, 3.4))
        for move in moves.itertuples():
            y, ask = height[move.chain], asks.loc[move.ask]
            arrow = {"arrowstyle": "-|>", "color": colours[move.chain], "lw": 1.8}
            arrow |= {"shrinkA": 15, "shrinkB": 15, "mutation_scale": 14}
            ax.annotate("", (move.end, y), (move.start, y), arrowprops=arrow)
            middle = (move.start + move.end) / 2
            noise = f"$\\varepsilon(z_{ask.start}, t_{ask.end})$"
            above = 0.13 if move.chain == "z" else -0.19
            ax.text(middle, y + above, noise, ha="center", color=colours[move.chain], fontsize=10)
            if move.chain == "x":
                link = {"arrowstyle": "->", "color": COLOURS["dual-chain"], "lw": 0.9, "ls": ":"}
                link |= {"shrinkA": 14, "shrinkB": 5, "connectionstyle": "arc3,rad=-0.12"}
                ax.annotate("", (middle, y - 0.02), (ask.start, 1.0), arrowprops=link)
        for chain, y in height.items():
            for node in range(last + 1):
                ax.text(
                    node, y, f"${chain}_{node}$", ha="center", va="center", fontsize=12, zorder=3,
                    bbox={"boxstyle": "circle,pad=0.35", "fc": "white", "ec": colours[chain]},
                )  # fmt: skip
            ax.text(-0.45, y, names[chain], ha="right", va="center", color=colours[chain])
        ax.plot([0, 0], [0.2, 0.8], color="black", lw=0.9)
        ax.text(0.05, 0.5, "$x_0 = z_0$", va="center", fontsize=9)
        ax.annotate(
            "back: the same noises, right to left, from $x_N$",
            (0, -0.5), (last, -0.5), ha="right", va="center", color=COLOURS["third"],
            arrowprops={"arrowstyle": "-|>", "color": COLOURS["third"], "lw": 1.6},
        )  # fmt: skip
        ax.set(xlim=(-1.65, last + 0.35), ylim=(-0.7, 1.35))
        ax.set_title(f"Each step from the image (left) to noise (right), N = {last}")
        ax.axis("off")
    return figure


WALKS = {
    "DDIM inversion": COLOURS["original"],
    "DDIM inference": COLOURS["ddim"],
    "dual-chain inference": COLOURS["dual-chain"],
}


def noise_trajectories(frames: Mapping[float, pd.DataFrame]) -> Figure:
    """Figure 3: predicted noise along three walks, by guidance scale, in its principal plane.

    Args:
        frames: from `experiments.noise_trajectories` by guidance scale.
    """
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, len(frames), figsize=(4.3 * len(frames), 3.9), squeeze=False
        )
        for ax, (w, frame) in zip(axes[0], frames.items(), strict=True):
            for (name, colour), size in zip(WALKS.items(), (46, 22, 8), strict=True):
                walk = frame[frame["walk"] == name].sort_values("t", ascending=False)
                ax.plot(walk["pc1"], walk["pc2"], color=colour, lw=0.6, alpha=0.6, zorder=1)
                shades = _lighten(colour, len(walk))
                ax.scatter(walk["pc1"], walk["pc2"], c=shades, s=size, zorder=2)
                ax.scatter([], [], color=colour, s=size, label=name)
            shares = frame.attrs["explained"]
            ax.set_title(f"way back at w = {w:g}")
            ax.set_xlabel(f"first component of ε ({shares[0]:.0%} of variance)")
            ax.set_ylabel(f"second component ({shares[1]:.0%})")
        axes[0, 0].legend(title="dark: t = T,  light: t = 0", title_fontsize=8)
    return figure


def noise_trajectories_3d(frame: pd.DataFrame) -> go.Figure:
    """The walks of Figure 3 in three principal components, to turn and zoom."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for name, colour in WALKS.items():
        walk = frame[frame["walk"] == name].sort_values("t", ascending=False)
        shades = [to_hex(shade) for shade in _lighten(colour, len(walk))]
        figure.add_trace(
            go.Scatter3d(
                x=walk["pc1"], y=walk["pc2"], z=walk["pc3"], name=name, mode="lines+markers",
                marker={"size": 4, "color": shades, "line": {"color": colour, "width": 1}},
                line={"color": colour, "width": 2},
                customdata=walk["t"], hovertemplate="t = %{customdata}",
            )
        )  # fmt: skip
    titles = dict(zip("xyz", ("pc1", "pc2", "pc3"), strict=True))
    figure.update_layout(
        scene={
            **{f"{axis}axis": {"title": {"text": title}} for axis, title in titles.items()},
            # Far enough for the whole box to fit.
            "camera": {"eye": {"x": 1.6, "y": 1.6, "z": 1.1}},
        },
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        legend={"orientation": "h", "y": 1, "yanchor": "top"},
        height=460,
    )
    return figure


def plane(walks: Mapping[str, np.ndarray], data: np.ndarray, title: str = "") -> Figure:
    """Walks of toy points in the plane, each [N + 1, points, 2], over the data [M, 2]."""
    with mpl.rc_context(STYLE):
        figure, ax = plt.subplots(figsize=(4.6, 4.2))
        ax.scatter(*data.T, s=3, color="#DDDDDD", label="data")
        for (name, walk), colour in zip(walks.items(), list(COLOURS.values()), strict=False):
            for number, points in enumerate(np.moveaxis(walk, 1, 0)):
                ax.plot(*points.T, color=colour, lw=1, label=None if number else name)
            ax.scatter(*walk[0].T, s=14, color=colour, zorder=3)
        ax.set(xlabel="first coordinate", ylabel="second coordinate", title=title, aspect="equal")
        ax.legend(loc="upper left")
    return figure


def step_size(frame: pd.DataFrame) -> Figure:
    """Error against the number of steps for every method of `experiments.step_size`, log-log."""
    with mpl.rc_context(STYLE):
        figure, ax = plt.subplots(figsize=(4.8, 3.3))
        for method, group in frame.groupby("method"):
            ax.plot(group["steps"], group["latent rms"], "o-", color=COLOURS[method], label=method)
        first = frame[frame["method"] == "ddim"].iloc[-1]
        steps = np.array(sorted(frame["steps"].unique()))
        ax.plot(
            steps,
            2 * first["latent rms"] * first["steps"] / steps,
            ":",
            color="black",
            label="slope of 1/N",
        )
        ax.set(
            xscale="log", yscale="log", xlabel="steps N", ylabel="RMS latent error at the image"
        )
        ax.legend()
    return figure


def reconstructions(
    round_trip: np.ndarray, images: Mapping[str, np.ndarray], measures: Mapping[str, str]
) -> Figure:
    """Figure 4: what each method brings back, and where it differs from the VAE round trip.

    Args:
        round_trip: the ground truth [height, width, 3].
        images: reconstructions by method.
        measures: a line of numbers to print under each.
    """
    panels = {"VAE round trip": round_trip, **images}
    wide, high = 5, -(-len(panels) // 5)
    plain: dict[Any, Any] = {"axes.grid": False, "axes.titlelocation": "center"}
    with mpl.rc_context(STYLE | plain):
        figure, axes = plt.subplots(2 * high, wide, figsize=(1.6 * wide, 3.6 * high))
        for ax in axes.flat:
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        for place, (name, image) in enumerate(panels.items()):
            row, column = divmod(place, wide)
            axes[2 * row, column].imshow(image, interpolation="lanczos")
            axes[2 * row, column].set_title(name, fontsize=9)
            if name not in images:
                continue
            error = np.abs(image - round_trip).mean(2)
            norm = LogNorm(1e-4, 0.5, clip=True)
            shown = axes[2 * row + 1, column].imshow(error, cmap="magma", norm=norm)
            axes[2 * row + 1, column].set_xlabel(measures[name], fontsize=7.5)
        # The first column of the first row of errors belongs to the ground truth, which has none.
        bar = axes[1, 0].inset_axes((0.08, 0.6, 0.84, 0.08))
        figure.colorbar(shown, cax=bar, orientation="horizontal", label="absolute error")
    return figure


def attention_maps(
    images: Mapping[str, np.ndarray], maps: Mapping[str, Sequence[tuple[str, np.ndarray]]]
) -> Figure:
    """Where words look: a row for each picture, which is dimmed where a word looks less.

    Args:
        images: pictures [height, width, 3] by label.
        maps: for each label words and their maps, from `experiments.word_maps`.  Each map is
            scaled to its own maximum.
    """
    wide = 1 + max(map(len, maps.values()))
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(
            len(images), wide, figsize=(0.95 * wide + 0.3, 1.2 * len(images)), squeeze=False
        )
        for line, (label, image) in zip(axes, images.items(), strict=True):
            _picture_row(line, [image], label)
            for ax, (word, looks) in zip(line[1:], maps[label], strict=False):
                _lit(ax, image, looks)
                ax.set_title(word, fontsize=8, loc="center")
    return figure


def _lit(ax: Axes, image: np.ndarray, looks: np.ndarray) -> None:
    """A grey picture with a map over it."""
    height, width = image.shape[:2]
    frame = (0, width, height, 0)
    grey = 0.6 * image.mean(2)
    ax.imshow(grey, cmap="gray", vmin=0, vmax=1, extent=frame, interpolation="lanczos")
    share = looks / max(looks.max(), 1e-12)
    ax.imshow(share, cmap="inferno", alpha=0.75 * share, extent=frame, interpolation="bilinear")


def alignment(
    answers: Mapping[str, np.ndarray], targets: Sequence[str], sources: Sequence[str]
) -> Figure:
    """Which words of a target prompt (rows) take attention from which of the source (columns).

    Args:
        answers: shares [targets, sources] by the kind of alignment.
    """
    plain: dict[Any, Any] = {"axes.grid": False}
    with mpl.rc_context(STYLE | plain):
        size = (len(answers) * (0.17 * len(sources) + 0.4) + 0.8, 0.17 * len(targets) + 1.3)
        figure, axes = plt.subplots(1, len(answers), figsize=size, sharey=True, squeeze=False)
        for ax, (kind, shares) in zip(axes[0], answers.items(), strict=True):
            ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
            ax.set_xticks(range(len(sources)), sources, rotation=90, fontsize=8)
            ax.set_yticks(range(len(targets)), targets, fontsize=8)
            ax.set_xticks(np.arange(len(sources)) - 0.5, minor=True)
            ax.set_yticks(np.arange(len(targets)) - 0.5, minor=True)
            ax.grid(which="minor", color="#DDDDDD", linewidth=0.5, alpha=1)
            ax.tick_params(length=0, which="both")
            ax.set_title(kind, loc="center")
            ax.set_xlabel("source")
        axes[0, 0].set_ylabel("target")
    return figure


def edit_gallery(
    images: Mapping[str, np.ndarray], labels: Sequence[str], lines: Mapping[str, Sequence[str]]
) -> Figure:
    """Edits by several ways: a row for each scene, a column for each way.

    Args:
        images: pictures [scenes, height, width, 3] by way, from `experiments.edit_gallery`.
        labels: a word for each scene.
        lines: what to print under the pictures of a way, one line a scene.
    """
    plain: dict[Any, Any] = {"axes.grid": False}
    with mpl.rc_context(STYLE | plain):
        size = (1.22 * len(images) + 0.3, 1.36 * len(labels) + 0.45)
        figure, axes = plt.subplots(len(labels), len(images), figsize=size, squeeze=False)
        for column, (way, rows) in zip(axes.T, images.items(), strict=True):
            column[0].set_title(textwrap.fill(way, 17), fontsize=8.5, loc="center")
            for number, (ax, image) in enumerate(zip(column, rows, strict=True)):
                ax.imshow(image, interpolation="lanczos")
                ax.set(xticks=[], yticks=[])
                ax.spines[:].set_visible(False)
                if way in lines:
                    ax.set_xlabel(lines[way][number], fontsize=7.5, labelpad=2)
        for ax, label in zip(axes[:, 0], labels, strict=True):
            ax.set_ylabel(label, fontsize=9)
    return figure


def injection_sweep(
    images: Mapping[tuple[float, float], np.ndarray], frame: pd.DataFrame
) -> Figure:
    """How an edit changes with the share of attention that is the source's, in pictures and means.

    Args:
        images: a picture [height, width, 3] for each pair of shares of cross-attention and
            self-attention.
        frame: from `experiments.injection_sweep`.
    """
    shares = sorted({cross for cross, _ in images})
    with mpl.rc_context(STYLE):
        figure = plt.figure(figsize=(8.2, 3.9))
        left, right = cast(Any, figure.subfigures(1, 2, width_ratios=(1.15, 1)))
        axes = left.subplots(len(shares), len(shares), squeeze=False)
        for line, itself in zip(axes, shares, strict=True):
            _picture_row(line, [images[cross, itself] for cross in shares], f"{itself:g}")
        for ax, cross in zip(axes[0], shares, strict=True):
            ax.set_title(f"{cross:g}", fontsize=8, loc="center")
        left.suptitle("share of the walk with the source's cross-attention", fontsize=9)
        left.supylabel("… with its self-attention", fontsize=9)
        top, bottom = right.subplots(2, 1, sharex=True)
        _sweep_curves(top, frame, {"psnr truth": "-"})
        _sweep_curves(bottom, frame, {"asked": "-", "kept": "--"})
        top.set_ylabel("PSNR to the truth (dB)")
        bottom.set(
            ylabel="share read as true", xlabel="share of cross-attention", ylim=(-0.04, 1.04)
        )
        top.legend(title="share of self-attention", title_fontsize=8, ncols=3)
        bottom.legend(
            [Line2D([], [], color="black", linestyle=style) for style in ("-", "--")],
            ["what was asked", "all else"],
        )
    return figure


def _sweep_curves(ax: Axes, frame: pd.DataFrame, styles: Mapping[str, str]) -> None:
    """Means over scenes by the share of cross-attention, a line for each of self-attention."""
    means = frame.groupby(["itself", "cross"])[list(styles)].mean()
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.85, frame["itself"].nunique()))
    for (itself, group), shade in zip(means.groupby("itself"), shades, strict=True):
        for name, style in styles.items():
            values = group.loc[itself, name]
            ax.plot(values, style, color=shade, marker="o", markersize=3, label=f"{itself:g}")


KINDS = {
    "approximate": ("#D55E00", "o"),
    "exact": ("#0072B2", "s"),
    "exact given what is stored": ("#009E73", "^"),
}


def cost_quality(frame: pd.DataFrame, kinds: Mapping[str, str], best: float = 130.0) -> Figure:
    """PSNR against network rows, one point a method, one panel a guidance scale.

    Args:
        frame: medians, from `benchmark.summary`, with a column `rows` of all rows of a picture.
        kinds: how reversible each method is.
        best: PSNR in dB at which better values, infinite ones too, are drawn.
    """
    scales = sorted(frame["guidance_scale"].unique())
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, len(scales), figsize=(4.6 * len(scales), 4.6), sharey=True, squeeze=False
        )
        for ax, w in zip(axes[0], scales, strict=True):
            part = frame[frame["guidance_scale"] == w].sort_values("psnr vae")
            for kind, (colour, marker) in KINDS.items():
                rows = part[part["method"].map(kinds) == kind]
                quality = rows["psnr vae"].clip(upper=best)
                spans = [
                    (quality - rows["psnr vae low"].clip(upper=best)).clip(lower=0),
                    (rows["psnr vae high"].clip(upper=best) - quality).clip(lower=0),
                ]
                ax.errorbar(
                    rows["rows"], quality, spans, fmt=marker, color=colour, label=kind,
                    markersize=5, elinewidth=0.8,
                )  # fmt: skip
            _label_points(ax, part, best)
            ax.set(xscale="log", xlabel="network rows, both ways", title=f"w = {w:g}")
            ax.set(xlim=(part["rows"].min() * 0.85, part["rows"].max() * 2), ylim=(0, best + 30))
            ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.xaxis.set_major_formatter("{x:g}")
            ax.xaxis.set_minor_locator(NullLocator())
        axes[0, 0].set_ylabel("PSNR to the VAE round trip (dB)")
        axes[0, 0].legend(loc="lower right")
    return figure


def edit_benchmark(table: pd.DataFrame, kinds: pd.DataFrame) -> Figure:
    """Ways to edit by what they did and kept, by PSNR and cost, and by kind of edit.

    Args:
        table: from `edit_benchmark.summary`; the ceiling is left out.
        kinds: PSNR of each way (rows) and kind (columns), from `edit_benchmark.by_kind`.
    """
    table = table[table["way"].isin(kinds.index)]
    with mpl.rc_context(STYLE):
        figure = plt.figure(figsize=(9.6, 4.2 + 0.26 * len(kinds)))
        parts: Any = figure.subfigures(2, 1, height_ratios=(4.2, 0.8 + 0.26 * len(kinds)))
        left, right = parts[0].subplots(1, 2)
        _ways(left, table, "background", "asked")
        left.set(xlabel="background: PSNR to the truth's VAE round trip (dB)")
        left.set(ylabel="share of asked attributes found", title="Did it do what was asked …")
        _ways(right, table, "rows", "psnr truth")
        right.set(xscale="log", xlabel="network rows, both ways")
        right.set(
            ylabel="PSNR to the truth's VAE round trip (dB)", title="… how well, at what cost?"
        )
        right.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        right.xaxis.set_major_formatter("{x:g}")
        right.xaxis.set_minor_locator(NullLocator())
        handles, names = left.get_legend_handles_labels()
        parts[0].legend(handles, names, loc="outside right center", fontsize=7.5)
        _heat(parts[1].subplots(), kinds)
    return figure


MARKERS = "osD^v<>PpXd*h8"


def _ways(ax: Axes, table: pd.DataFrame, across: str, up: str) -> None:
    for (n, row), marker in zip(enumerate(table.to_dict("records")), MARKERS, strict=False):
        ours = row["way"].startswith("dual-chain")
        colour = COLOURS["dual-chain"] if ours else mpl.colormaps["tab20c"](4 + n % 16)
        spans = [
            [[row[name] - row[f"{name} low"]], [row[f"{name} high"] - row[name]]]
            for name in (across, up)
        ]
        ax.errorbar(
            row[across], row[up], spans[1], spans[0], fmt=marker, color=colour, label=row["way"],
            markersize=6, elinewidth=0.8, markeredgecolor="black", markeredgewidth=0.4,
        )  # fmt: skip


def _heat(ax: Axes, kinds: pd.DataFrame) -> None:
    ax.imshow(kinds, cmap="viridis", aspect="auto")
    ax.set_xticks(range(kinds.shape[1]), list(kinds))
    ax.set_yticks(range(len(kinds)), list(kinds.index))
    ax.set_title("PSNR to the truth's VAE round trip (dB) by kind of edit, best mean rank on top")
    ax.grid(False)
    middle = (np.nanmin(kinds) + np.nanmax(kinds)) / 2
    for (row, column), value in np.ndenumerate(kinds.to_numpy()):
        colour = "white" if value < middle else "black"
        ax.text(column, row, f"{value:.1f}", ha="center", va="center", color=colour, fontsize=8)


def edit_sweeps(sweeps: Mapping[str, pd.DataFrame]) -> Figure:
    """How ways to edit fare over guidance scales and over numbers of steps.

    Args:
        sweeps: summaries by the column that varies, from `edit_benchmark.summary`.
    """
    rows = {
        "psnr truth": "PSNR to the truth (dB)",
        "asked": "asked",
        "background": "background (dB)",
    }
    names = {"guidance_scale": "guidance scale w", "steps": "steps N"}
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(
            len(rows), len(sweeps), figsize=(4.2 * len(sweeps), 2.1 * len(rows)), squeeze=False,
            sharex="col", sharey="row",
        )  # fmt: skip
        for column, (by, table) in enumerate(sweeps.items()):
            # Ours in blue and green; the order of names is that of the colours.
            hues = [COLOURS[name] for name in ("fourth", "ddim", "floor", "original", "third")]
            groups = table.sort_values(["way", by]).groupby("way")
            for (way, group), colour in zip(groups, [*hues, COLOURS["dual-chain"]], strict=False):
                for line, name in zip(axes[:, column], rows, strict=True):
                    line.plot(group[by], group[name], "o-", color=colour, label=way, markersize=4)
                    low, high = group[f"{name} low"], group[f"{name} high"]
                    line.fill_between(group[by], low, high, color=colour, alpha=0.12)
            axes[-1, column].set_xlabel(names[by])
            axes[0, column].set_title(f"over {names[by]}")
            values = sorted(table[by].unique())
            axes[-1, column].set_xticks(values, [f"{value:g}" for value in values])
        for line, said in zip(axes[:, 0], rows.values(), strict=True):
            line.set_ylabel(said)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def throughput(table: pd.DataFrame) -> Figure:
    """Pictures per second against each of what `benchmark.throughput` varied, and the ideal."""
    groups = table.groupby("varied", sort=False)
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(groups), figsize=(3.8 * len(groups), 3), squeeze=False)
        for ax, (varied, group) in zip(axes[0], groups, strict=True):
            x, done = group["value"], group["pictures per second"]
            ax.plot(x, done, "o-", color=COLOURS["dual-chain"], label="measured")
            ax.plot(x, group["ideal"], ":", color=COLOURS["floor"], label="ideal")
            ax.set(xlabel=varied, ylabel="pictures per second", ylim=(0, 2.2 * done.max()))
            ax.set_xticks(x)
        axes[0, 0].legend()
    return figure


def _label_points(ax: Axes, frame: pd.DataFrame, best: float) -> None:
    """Name the points, those that coincide with one label; labels of one height keep apart."""
    marks: dict[tuple[float, float], list[str]] = {}
    for row in frame.sort_values(["psnr vae", "rows"]).to_dict("records"):
        way = f" (up at w = {row['inverted_at']:g})" if row["named"] else ""
        place = (row["rows"], round(min(row["psnr vae"], best)))
        marks.setdefault(place, []).append(row["method"] + way)
    lowest = -np.inf
    for (rows, quality), names in marks.items():
        height = max(quality, lowest + 5)
        lowest = height + 8 * (len(names) - 1)
        ax.annotate(
            "\n".join(names[::-1]), (rows, quality), (rows * 1.12, height),
            fontsize=7, va="bottom" if len(names) > 1 else "center",
            arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": "grey"},
        )  # fmt: skip


# Ways of `experiments.guidance_sweep`: colour by family, dashes, marker and width.  The lines of
# exact ways lie on each other, so the first of them are wide.
GUIDED: dict[str, dict[str, Any]] = {
    "direct": {"color": "#BBBBBB", "lw": 7},
    "D2 mirrored": {"color": "#009E73", "lw": 3.5},
    "null-text": {"color": "#000000", "marker": "s"},
    "negative-prompt": {"color": "#000000", "marker": "^", "ls": ":"},
    "DDIM": {"color": "#D55E00", "marker": "o"},
    "dual chain": {"color": "#0072B2", "marker": "v"},
    "D1 guidance near the image": {"color": "#56B4E9", "marker": "<"},
    "D1 guidance fading": {"color": "#56B4E9", "marker": ">", "ls": "--"},
    "D3 anchored": {"color": "#E69F00", "marker": "P"},
    "D3 clipped": {"color": "#E69F00", "marker": "X", "ls": "--"},
    "D1 + D2, the noisy end": {"color": "#CC79A7", "marker": "d", "ls": "--"},
    "D1 + D2, the default": {"color": "#CC79A7", "marker": "D"},
}
EXACT = 100.0  # dB, above which only the rounding of the decoder's numbers is left


def guidance_sweep(frame: pd.DataFrame, edits: pd.DataFrame | None = None) -> Figure:
    """Figure 5: what comes back, and how edits do, by guidance scale; one line a way.

    Args:
        frame: from `experiments.guidance_sweep`; drawn are medians and quartiles.
        edits: from `experiments.edit_sweep`; drawn are means and their standard errors.
    """
    rows = [(frame, RETURNED, False)] + ([] if edits is None else [(edits, EDITED, True)])
    small: dict[Any, Any] = {"lines.linewidth": 1.4, "lines.markersize": 4.5}
    with mpl.rc_context(STYLE | small):
        figure, axes = plt.subplots(
            len(rows), 3, figsize=(10.2, 2.9 * len(rows) + 0.2), squeeze=False, sharex=True
        )
        for line, (part, titles, means) in zip(axes, rows, strict=True):
            for ax, (column, title) in zip(line, titles.items(), strict=True):
                _by_scale(ax, part, column, means)
                ax.set_title(title)
        for ax in axes[-1]:
            ax.set_xticks(sorted(frame["guidance_scale"].unique()))
            ax.xaxis.set_major_formatter("{x:g}")
            ax.set_xlabel("guidance scale w")
        names = {name for part, *_ in rows for name in part["way"]}
        shown = {name: Line2D([], [], **look) for name, look in GUIDED.items() if name in names}
        figure.legend(list(shown.values()), list(shown), loc="outside right center")
    return figure


RETURNED = {
    "psnr vae": "Reconstruction: PSNR (dB) ↑",
    "ssim vae": "Reconstruction: SSIM ↑",
    "lpips vae": "Reconstruction: LPIPS ↓",
}
EDITED = {
    "psnr truth": "Edit: PSNR to the truth (dB) ↑",
    "background": "Edit: PSNR of background (dB) ↑",
    "asked": "Edit: share done as asked ↑",
}


def _by_scale(ax: Axes, frame: pd.DataFrame, column: str, means: bool) -> None:
    """One line a way; values in dB that count as exact are drawn on a line at the top."""
    decibel = column.startswith("psnr") and not means
    rough = frame[column][frame[column] < EXACT] if decibel else frame[column]
    top = 10 * np.ceil(rough.max() / 10) + 5 if len(rough) and decibel else 20.0
    for way, look in GUIDED.items():
        groups = frame[frame["way"] == way].groupby("guidance_scale")[column]
        if not len(groups):
            continue
        if means:
            middle, error = groups.mean(), groups.sem()
            low, high = middle - error, middle + error
        else:
            # Of values in between one is taken, as infinity cannot be averaged.
            low, middle, high = (groups.quantile(q, interpolation="lower") for q in QUARTILES)
        if decibel:
            low, middle, high = (each.where(each < EXACT, top) for each in (low, middle, high))
        ax.plot(middle.index, middle, **look)
        ax.fill_between(middle.index, low, high, color=look["color"], alpha=0.1, lw=0)
    if decibel and (frame[column] >= EXACT).any():
        kept = [tick for tick in range(0, int(top), 10)]
        ax.set_yticks([*kept, top], [*map(str, kept), "exact"])


QUARTILES = (0.25, 0.5, 0.75)


def _picture_row(axes: Sequence[Axes], images: Sequence[np.ndarray], label: str) -> None:
    for ax in axes:
        ax.axis("off")
    for ax, image in zip(axes, images, strict=False):
        ax.imshow(image, interpolation="lanczos")
    axes[0].text(
        -0.06, 0.5, label, transform=axes[0].transAxes, rotation=90, ha="right", va="center"
    )


def _lighten(colour: str, count: int) -> list[Any]:
    """Shades from a colour towards white."""
    mix = np.linspace(0, 0.75, count)[:, None]
    return [tuple(shade) for shade in (1 - mix) * np.array(to_rgb(colour)) + mix]
