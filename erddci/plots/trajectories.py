"""Figures of walks to noise and back: their error, their order of steps, and their paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from erddci.plots.style import COLOURS, SCALES, STYLE, image_row

if TYPE_CHECKING:
    import plotly.graph_objects as go


def error_accumulation(
    frame: pd.DataFrame,
    floor: float,
    strips: Mapping[float, np.ndarray],
    nodes: Sequence[int],
) -> Figure:
    """Figure 1: the latent error of the way back by node, the image's PSNR, and strips.

    Args:
        frame: from `experiments.error_accumulation`.
        floor: PSNR in dB of the VAE round trip against the input images.
        strips: images by guidance scale, from `experiments.way_back`.
        nodes: where on the way back the images of a strip are from.
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
            image_row(line, list(images), f"w = {w:g}")
        for ax, node in zip(axes[0], nodes, strict=True):
            ax.set_title(f"i = {node}", fontsize=8, loc="center")
    return figure


def _error_by_node(ax: Axes, frame: pd.DataFrame, colours: Mapping[float, str]) -> None:
    last = frame["node"].max()
    walks = frame[frame["node"] < last].sort_values("inverted", ascending=False, kind="stable")
    for (w, inverted), group in walks.groupby(["guidance_scale", "inverted"], sort=False):
        if w == 1 and inverted == "same scale":
            continue  # the same walk as inverting unguided
        error = group.groupby("node")["latent_rms"].quantile([0.25, 0.5, 0.75]).unstack()
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
        values = ends[ends["inverted"] == inverted].groupby("guidance_scale")["psnr_input"]
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
                walk = frame[frame["trajectory"] == name].sort_values("t", ascending=False)
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
        walk = frame[frame["trajectory"] == name].sort_values("t", ascending=False)
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


def _lighten(colour: str, count: int) -> list[Any]:
    """Shades from a colour towards white."""
    mix = np.linspace(0, 0.75, count)[:, None]
    return [tuple(shade) for shade in (1 - mix) * np.array(to_rgb(colour)) + mix]


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
            ax.plot(group["steps"], group["latent_rms"], "o-", color=COLOURS[method], label=method)
        first = frame[frame["method"] == "ddim"].iloc[-1]
        steps = np.array(sorted(frame["steps"].unique()))
        ax.plot(
            steps,
            2 * first["latent_rms"] * first["steps"] / steps,
            ":",
            color="black",
            label="slope of 1/N",
        )
        ax.set(
            xscale="log", yscale="log", xlabel="steps N", ylabel="RMS latent error at the image"
        )
        ax.legend()
    return figure
